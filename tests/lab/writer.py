"""The application in the resilience tests: writes numbered, checksummed blocks and never gives up.

    python writer.py [--pause SECONDS] PATH JOURNAL [PATH JOURNAL ...]

Each PATH gets a thread that writes one block at a time, past the page cache, and takes it as
written only after ``fsync``. Everything it tries, and what came of it, goes into the JOURNAL,
which must not be on the volume: a line ``try``, ``ack`` or ``err`` with the block's number, the
monotonic time, and the error's name. After an error the file is opened anew, as an application
does that restarts; it is never created, for where a mount is missing that would write elsewhere.
SIGTERM ends it after the block at hand. A second writer with the same journal goes on counting.

Only the standard library: in the emulated machine every import costs.
"""

import argparse
import errno
import hashlib
import mmap
import os
import signal
import struct
import threading
import time
from pathlib import Path
from typing import Final

BLOCK: Final = 4096
SLOTS: Final = 256
"""Blocks are written round and round over so many places, so that a lost write shows as an
older number. They are all that is used of the volume: 1 MiB."""
START: Final = 16 * 1024**2
"""Where on a raw device the places begin."""
_HEADER: Final = struct.Struct("<16sQ")
_MAGIC: Final = b"rds-csi writer \n"
_DIGEST: Final = hashlib.sha256().digest_size


def block(number: int) -> bytes:
    """The block of a number: the same always, and no two alike."""
    head = _HEADER.pack(_MAGIC, number)
    body = head + hashlib.shake_128(head).digest(BLOCK - len(head) - _DIGEST)
    return body + hashlib.sha256(body).digest()


def number_of(content: bytes) -> int | None:
    """The number of a block as read back; None if it is not what was written, to the last bit."""
    if len(content) != BLOCK:
        return None
    magic, number = _HEADER.unpack_from(content)
    if magic != _MAGIC or content != block(number):
        return None
    return int(number)


def place(number: int, path: Path) -> int:
    """Where the block of a number goes, in bytes."""
    start = START if path.is_block_device() else 0
    return start + number % SLOTS * BLOCK


class Writer:
    """Writes to one path until told to stop."""

    def __init__(self, path: Path, journal: Path, pause: float, stop: threading.Event) -> None:
        self._path = path
        self._pause = pause
        self._stop = stop
        self._number = last_number(journal) + 1
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # O_DIRECT wants memory that begins at a page.
        self._buffer = mmap.mmap(-1, BLOCK)
        self._file = -1

    def run(self) -> None:
        while not self._stop.is_set():
            self._note("try")
            try:
                self._write()
            except OSError as error:
                self._note("err", errno.errorcode.get(error.errno or 0, str(error)))
                self._close()
                self._stop.wait(0.1)
            else:
                self._note("ack")
                self._stop.wait(self._pause)
            # Also after an error: the block may have been written, so its number is used up.
            self._number += 1
        self._close()

    def _write(self) -> None:
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_DIRECT)
        self._buffer[:] = block(self._number)
        written = os.pwrite(self._file, self._buffer, place(self._number, self._path))
        if written != BLOCK:
            raise OSError(errno.EIO, "short write")
        os.fsync(self._file)

    def _close(self) -> None:
        if self._file >= 0:
            try:
                os.close(self._file)
            except OSError as error:
                self._note("err", errno.errorcode.get(error.errno or 0, str(error)))
            self._file = -1

    def _note(self, what: str, detail: str = "") -> None:
        line = f"{what} {self._number} {time.monotonic():.4f} {detail}".rstrip() + "\n"
        os.write(self._journal, line.encode())


def last_number(journal: Path) -> int:
    """The highest number in a journal; -1 if there is none."""
    try:
        lines = journal.read_text().splitlines()
    except FileNotFoundError:
        return -1
    return max((int(line.split(" ")[1]) for line in lines), default=-1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("paths", nargs="+", type=Path)
    arguments = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    pairs = zip(arguments.paths[::2], arguments.paths[1::2], strict=True)
    threads = [
        threading.Thread(target=Writer(path, journal, arguments.pause, stop).run)
        for path, journal in pairs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
