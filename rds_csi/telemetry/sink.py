"""Where log lines go: a queue with an end, and a thread that writes it to standard error.

Who logs must never wait and never fail. A pipe that nobody reads any more (the container runtime
hangs), a full disk, a reader that has gone, a descriptor that was closed: each would else stop the
event loop or end a call with an error that has nothing to do with it. So a line that finds no room
or cannot be written is dropped and counted, and once lines can be written again, a line says how
many are missing. What is written is in order and whole.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

ROOM: Final = 1024**2
"""Bytes that may wait: some thousand lines."""


class Sink:
    """A text stream over ``descriptor``; None where there is none, and every line is dropped.

    ``notice`` is told, in the thread, how many lines were dropped before one that was written.
    """

    def __init__(
        self,
        descriptor: int | None,
        *,
        room: int = ROOM,
        notice: Callable[[int], None] = lambda _lines: None,
    ) -> None:
        self.dropped = 0
        """Lines that were not written."""
        self.descriptor = descriptor
        self._room = room
        self._notice = notice
        self._told = 0
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._torn = False
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Queue the text, a whole line. Never waits, never raises."""
        line = text.encode(errors="backslashreplace")
        with self._changed:
            # A line that is longer than all the room is taken where it is the only one.
            fits = not self._waiting or self._size + len(line) <= self._room
            if self.descriptor is not None and fits and self._runs():
                self._waiting.append(line)
                self._size += len(line)
                self._changed.notify_all()
            else:
                self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Nothing: the thread is at it."""

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self.descriptor is not None and os.isatty(self.descriptor)

    def drain(self, seconds: float) -> bool:
        """Wait until all is written, at most so long; whether it is. For the end of a process."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, seconds)

    def _runs(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log writer", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread is to be had, or the interpreter ends
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                line = self._waiting[0]
            written = self._write_whole(line)
            with self._changed:
                # Not before: who drains waits for the one that is being written, too.
                self._waiting.popleft()
                self._size -= len(line)
                self.dropped += not written
                missing = self.dropped - self._told if written else 0
                self._told += missing
                if not missing:
                    self._changed.notify_all()
            if missing:
                self._notice(missing)
                with self._changed:
                    self._changed.notify_all()

    def _write_whole(self, line: bytes) -> bool:
        """Whether the line was written. What a failure leaves of a line ends with it."""
        assert self.descriptor is not None  # noqa: S101 - for the type checker: see write
        whole = b"\n" + line if self._torn else line
        rest = memoryview(whole)
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:
                # Somebody made the descriptor non-blocking, perhaps a process that shares it.
                poller = select.poll()
                poller.register(self.descriptor, select.POLLOUT)
                poller.poll()
            except OSError:
                self._torn = self._torn or len(rest) < len(whole)
                return False
        self._torn = False
        return True


def occupy_standard_descriptors() -> None:
    """Open ``/dev/null`` where standard input, output or error is closed.

    Else the next file that is opened, a staging record or a device, gets that number, and whoever
    writes to standard error writes into it: a program that we start, or a C library.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
