"""The mount table for those who only answer: read again when the kernel says that it has changed.

A table of 5,000 mounts costs the kernel some 14 ms to write, and a node with 200 volumes is asked
for one of them 200 times a minute: a twentieth of a CPU. ``poll()`` on the table tells of every
mount, unmount and remount in this process's mount namespace (``proc_pid_mountinfo(5)``), but not
of a file system that the kernel made read-only after an error: so what is kept is kept for
:data:`LONGEST` seconds, no longer. Whoever acts on a mount reads the table itself.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LONGEST: Final = 10.0
"""Seconds."""


class MountEvents:
    """Whether the mount table has changed since this was last asked; for one thread at a time.

    A file that tells of no changes, as those of tests are, has always changed.
    """

    def __init__(self, table: Path) -> None:
        self._table = table
        self._descriptor: int | None = None
        self._epoll: select.epoll | None = None
        self._mute = False

    def __call__(self) -> bool:
        """Asked before the table is read: what changes meanwhile is told the next time."""
        if self._mute:
            return True
        try:
            if self._epoll is None:
                self._begin()
                return True
            return bool(self._epoll.poll(0))
        except PermissionError:  # epoll_ctl(2): this file cannot be waited for
            self._mute = True
        except OSError:
            pass
        return True

    def _begin(self) -> None:
        descriptor = os.open(self._table, os.O_RDONLY | os.O_CLOEXEC)
        epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        try:
            epoll.register(descriptor, select.EPOLLPRI | select.EPOLLERR)
        except OSError:
            epoll.close()
            os.close(descriptor)
            raise
        self._descriptor, self._epoll = descriptor, epoll

    def close(self) -> None:
        """Let go of the table."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()


class Kept(Generic[T]):
    """What ``read`` gave last, for as long as nothing has ``changed``; for any thread."""

    def __init__(
        self,
        read: Callable[[], T],
        changed: Callable[[], bool],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._changed = changed
        self._now = now
        self._one = threading.Lock()
        self._kept: tuple[float, T] | None = None

    def get(self) -> T:
        """It as it is now, but for what changes without a word, and that of the last seconds."""
        with self._one:
            now = self._now()
            # Asked each time: an event that is answered by age would be answered once more.
            changed = self._changed()
            if changed or self._kept is None or not 0 <= now - self._kept[0] < LONGEST:
                self._kept = None
                self._kept = now, self._read()
            return self._kept[1]
