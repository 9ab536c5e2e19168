"""Events of device mapper are told once, and the status of all maps comes in one program."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

import pytest

from rds_csi.pathlayer.events import Events, statuses
from tests.unit.fakes.sysfs import HOST_NQN
from tests.unit.pathlayer.mapped import SIZE, VOLUME, Node, nqn


class Control:
    """A pipe stands for the control device: readable when something happened."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        os.mkfifo(path)
        self.armed = 0
        self._writer = -1
        self._path = path
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> int:
        assert request == 0xC138FD10
        assert len(argument) == 312
        assert argument[:20] == bytes.fromhex("04000000 25000000 00000000 38010000 38010000")
        self.armed += 1
        os.set_blocking(descriptor, False)
        with suppress(BlockingIOError):
            os.read(descriptor, 100)
        return 0

    def happen(self) -> None:
        if self._writer < 0:
            self._writer = os.open(self._path, os.O_RDWR)
        os.write(self._writer, b"!")


def test_what_happened_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control(tmp_path / "control", monkeypatch)
    found = Events(tmp_path / "control")
    assert found.changed() is True, "what was before nobody knows"
    assert found.changed() is False
    control.happen()
    control.happen()
    assert found.changed() is True
    assert found.changed() is False
    assert control.armed == 2
    found.close()
    found.close()
    os.close(control._writer)


def test_without_a_control_device_nothing_can_be_told(tmp_path: Path) -> None:
    assert Events(tmp_path / "control").changed() is None


def test_a_kernel_without_the_call_can_tell_nothing_and_keeps_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "control").touch()

    def refuse(*_arguments: object) -> int:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = Events(tmp_path / "control")
    assert found.changed() is None
    assert found.changed() is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_the_status_of_all_maps_comes_by_name(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert await statuses(node) == {}
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME), HOST_NQN))
    node.mapper.add("mpatha", "mpath-somebody's")
    found = await statuses(node)
    assert found == {made.identity.uuid: await node.maps.status(made)}
    node.mapper.lose((259, 3))
    assert not (await statuses(node))[made.identity.uuid].works(made.paths)
