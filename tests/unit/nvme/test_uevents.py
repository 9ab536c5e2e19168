"""Only the kernel's word that a controller is live is heard, and none is missed in silence."""

import errno
import os
import socket

import pytest
from structlog.testing import capture_logs

from rds_csi.nvme.uevents import Uevents, connected, kernel_socket

EVENT = (
    b"change@/devices/virtual/nvme-fabrics/ctl/nvme3\0ACTION=change\0"
    b"DEVPATH=/devices/virtual/nvme-fabrics/ctl/nvme3\0SUBSYSTEM=nvme\0NVME_TRTYPE=tcp\0"
    b"NVME_TRADDR=127.0.0.1\0NVME_EVENT=connected\0MAJOR=240\0MINOR=3\0DEVNAME=nvme3\0SEQNUM=7\0"
)
"""As Linux 6.1 sends it."""


class Line:
    """Both ends of a socket; the kernel's end can overflow."""

    def __init__(self) -> None:
        self.kernel, self._driver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._driver.setblocking(False)
        self.errors: list[int] = []

    def fileno(self) -> int:
        return self._driver.fileno()

    def recv(self, size: int) -> bytes:
        if self.errors:
            number = self.errors.pop()
            raise OSError(number, os.strerror(number))
        return self._driver.recv(size)

    def close(self) -> None:
        self._driver.close()
        self.kernel.close()


@pytest.fixture
def line():
    made = Line()
    yield made
    made.close()


@pytest.fixture
def uevents(line):
    made = Uevents(lambda: line)
    made.open()
    return made


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (EVENT, "nvme3"),
        (EVENT.replace(b"connected", b"rediscover"), ""),
        (EVENT.replace(b"SUBSYSTEM=nvme", b"SUBSYSTEM=block"), ""),
        (b"add@/devices/virtual/net/veth1\0ACTION=add\0SUBSYSTEM=net\0", ""),
        (b"\xff\xfe", ""),
        (b"", ""),
    ],
)
def test_what_an_event_says(event: bytes, name: str) -> None:
    assert connected(event) == name


async def test_a_wait_ends_with_a_connect_and_with_nothing_else(
    line: Line, uevents: Uevents
) -> None:
    assert uevents.listening
    line.kernel.send(EVENT.replace(b"SUBSYSTEM=nvme", b"SUBSYSTEM=block"))
    await uevents.wait(0.01)
    assert uevents.take() == frozenset()
    line.kernel.send(EVENT)
    line.kernel.send(EVENT.replace(b"nvme3", b"nvme4"))
    await uevents.wait(3600)
    assert uevents.take() == frozenset({"nvme3", "nvme4"})
    assert uevents.take() == frozenset()


async def test_an_event_during_a_look_ends_the_next_wait_at_once(
    line: Line, uevents: Uevents
) -> None:
    uevents.take()
    line.kernel.send(EVENT)
    await uevents.wait(3600)
    assert uevents.take() == frozenset({"nvme3"})


async def test_what_was_answered_is_not_told_again(line: Line, uevents: Uevents) -> None:
    line.kernel.send(EVENT)
    line.kernel.send(EVENT.replace(b"nvme3", b"nvme4"))
    uevents.answered("nvme3")
    assert uevents.take() == frozenset({"nvme4"})


async def test_dropped_events_are_known(line: Line, uevents: Uevents) -> None:
    line.errors = [errno.ENOBUFS]
    line.kernel.send(EVENT)
    await uevents.wait(3600)
    assert uevents.take() is None
    assert uevents.take() == frozenset()


async def test_a_socket_that_fails_is_given_up_and_said(line: Line, uevents: Uevents) -> None:
    line.errors = [errno.EIO]
    with capture_logs() as log:
        assert uevents.take() is None
    assert [each["event"] for each in log] == ["the kernel's events have ended"]
    await uevents.wait(0)
    assert uevents.take() == frozenset()


async def test_without_events_a_wait_is_a_pause() -> None:
    def refuse() -> socket.socket:
        raise OSError(errno.EPERM, "Operation not permitted")

    uevents = Uevents(refuse)
    with capture_logs() as log:
        uevents.open()
    assert [each["event"] for each in log] == ["the kernel's events cannot be had"]
    assert not uevents.listening
    await uevents.wait(0)
    assert uevents.take() == frozenset()
    uevents.close()


async def test_the_kernels_own_socket_can_be_had() -> None:
    with kernel_socket() as found, pytest.raises(BlockingIOError):
        found.recv(1)
