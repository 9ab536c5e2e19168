"""The kernel's own word that an NVMe connection came up, or came back.

Whoever looks now and then misses an outage that began and ended in between. The kernel sends an
event (``NVME_EVENT=connected``, Linux 5.16 and newer) to everybody who listens, each time that a
controller becomes live. It takes no rights, and reaches every network namespace of the host.
What anybody may send is no proof: an event says only that it is worth a look.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_KOBJECT_UEVENT: Final = 15
_KERNEL: Final = 1
"""The group of the kernel's own events (2 is udev's, made of them)."""
_LONGEST: Final = 16 * 1024
"""Bytes; the kernel's longest event has 2 KiB."""


def connected(event: bytes) -> str:
    """The name of the controller that an event says is live now; empty for any other event."""
    fields = dict(
        field.split("=", 1) for field in event.decode(errors="replace").split("\0") if "=" in field
    )
    if (fields.get("SUBSYSTEM"), fields.get("NVME_EVENT")) != ("nvme", "connected"):
        return ""
    return os.path.basename(fields.get("DEVPATH", ""))  # noqa: PTH119 - a text, not a path


def kernel_socket() -> socket.socket:
    """A socket that gets the kernel's events from now on. Raises OSError."""
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _KOBJECT_UEVENT)
    try:
        found.bind((0, _KERNEL))
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found


class Uevents:
    """Collects the names of controllers that became live. Use it on one event loop."""

    def __init__(self, make: Callable[[], socket.socket] = kernel_socket) -> None:
        self._make = make
        self._socket: socket.socket | None = None
        self._names: set[str] = set()
        self._lost = False
        self._told = asyncio.Event()

    def open(self) -> None:
        """Listen from now on; where that is not possible, :meth:`wait` is no more than a pause."""
        try:
            self._socket = self._make()
        except OSError as error:
            log.warning("the kernel's events cannot be had", error=str(error))

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def listening(self) -> bool:
        """Whether the kernel's events are heard."""
        return self._socket is not None

    async def wait(self, seconds: float) -> None:
        """Return when a controller became live, at the latest after ``seconds``."""
        loop = asyncio.get_running_loop()
        if self._socket is not None:
            loop.add_reader(self._socket, self._receive)
        try:
            async with asyncio.timeout(seconds):
                await self._told.wait()
        except TimeoutError:
            pass
        finally:
            if self._socket is not None:
                loop.remove_reader(self._socket)

    def take(self) -> frozenset[str] | None:
        """Which became live since the last time; None where the kernel had to drop events."""
        self._receive()
        names = None if self._lost else frozenset(self._names)
        self._names.clear()
        self._lost = False
        self._told.clear()
        return names

    def answered(self, name: str) -> None:
        """What was told of this controller so far needs no look any more."""
        self._receive()
        self._names.discard(name)

    def _receive(self) -> None:
        while self._socket is not None:
            try:
                event = self._socket.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    log.warning("the kernel's events have ended", error=str(error))
                    self._forget()
                self._lost = True
                self._told.set()
                continue
            if name := connected(event):
                self._names.add(name)
                self._told.set()

    def _forget(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
        self.close()
