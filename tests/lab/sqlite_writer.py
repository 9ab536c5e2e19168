"""A small database with a write-ahead log, in a process that can be killed as a pod's is.

Reads lines from its standard input, ``durable FIRST`` or ``hasty FIRST``, commits fifty rows, one
by one, from that number on, and answers ``ok`` or what went wrong. What is durable is flushed at
each commit; what is hasty is sent to the disk and not flushed, as the kernel does after some
seconds by itself.
"""

import ctypes
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Self

ROWS = 50
_WAIT_WRITE_WAIT = 7
"""SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER (linux/fs.h): it flushes nothing."""


class Writer:
    """The process, from outside."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        """It is killed in the middle of whatever it does: nothing is closed in order."""
        self._process.kill()
        self._process.communicate()

    def commit(self, how: str, first: int) -> str:
        """Fifty commits; what it says of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{how} {first}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


def rows(path: Path) -> list[int]:
    """What is in it now; it has to be whole."""
    database = sqlite3.connect(path)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [number for (number,) in database.execute("SELECT n FROM t ORDER BY n")]
    finally:
        database.close()


def _main(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    # Nothing is moved from the log into the database meanwhile, for that flushes.
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER, data BLOB)")
    database.commit()
    for line in sys.stdin:
        how, first = line.split()
        database.execute(f"PRAGMA synchronous={'FULL' if how == 'durable' else 'NORMAL'}")
        try:
            for number in range(int(first), int(first) + ROWS):
                database.execute("INSERT INTO t VALUES (?, randomblob(20000))", (number,))
                database.commit()
            if how == "hasty":
                _send(Path(f"{path}-wal"))
        except (sqlite3.Error, OSError) as error:
            _answer(str(error))
        else:
            _answer("ok")


def _answer(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _send(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR)
    library = ctypes.CDLL(None, use_errno=True)
    offset = ctypes.c_int64(0)
    if library.sync_file_range(descriptor, offset, offset, _WAIT_WRITE_WAIT):
        raise OSError(ctypes.get_errno(), "sync_file_range")
    os.close(descriptor)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
