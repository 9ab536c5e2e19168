"""Whose a device is, on the real kernel: proven before anything is done to it, and held.

The trick is the kernel's own: as soon as nobody has a device open, its name and its number are
the next volume's.
"""

import hashlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from rds_csi.errors import Unavailable
from rds_csi.filesystem import devices as devices_module
from rds_csi.filesystem.attach import DeviceMounts
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.format import Formatter, State
from rds_csi.filesystem.grow import Grower
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.block_device import Device
from rds_csi.model.host_identity import HostIdentity, host_identity
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import SubprocessRunner
from tests.lab.target import Target

MIB: Final = 1 << 20
SIZE: Final = 64 * MIB
UUID: Final = "11111111-2222-4333-8444-555555555555"
HOST: Final = host_identity("lab", "proof")


@dataclass(frozen=True)
class Export:
    """A file, and a subsystem of its own that exports it."""

    nqn: str
    file: Path
    port: int

    def connect(self) -> Device:
        """The device, as a node finds it."""
        address = ["-t", "tcp", "-a", "127.0.0.1", "-s", str(self.port), "-n", self.nqn]
        host = ["--hostnqn", HOST.nqn, "--hostid", HOST.hostid]
        subprocess.run(["nvme", "connect", *address, *host], check=True, timeout=60)
        return wait_for_device(self.nqn, HOST)

    def disconnect(self) -> None:
        command = ["nvme", "disconnect", "-n", self.nqn]
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    def content(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()


def wait_for_device(nqn: str, host: HostIdentity) -> Device:
    end = time.monotonic() + 60
    while (found := Sysfs().namespace(nqn, host.nqn)) is None or not found.size:
        assert time.monotonic() < end, f"no device of {nqn}"
        time.sleep(0.1)
    return Device(found.device, found.devno, nqn, host.nqn)


@pytest.fixture
def exports(tmp_path: Path) -> Iterator[list[Export]]:
    found, targets = [], []
    for number, name in enumerate("ab"):
        file = tmp_path / f"{name}.img"
        with file.open("wb") as content:
            content.truncate(SIZE)
        found.append(Export(f"nqn.2000-02.com.mikrotik:proof-{name}", file, 4490 + number))
        targets.append(Target(found[-1].nqn, file, port=found[-1].port))
    for target in targets:
        target.start()
    yield found
    for export, target in zip(found, targets, strict=True):
        export.disconnect()
        target.stop()


def names(device: Device) -> tuple[Path, tuple[int, int]]:
    return device.path, device.devno


async def test_a_name_and_a_number_of_another_volume_open_nothing(
    exports: list[Export], tmp_path: Path
) -> None:
    a, b = exports
    runner = SubprocessRunner()
    devices = BlockDevices(runner)
    mounts = Mounts(runner)
    attach, formatter = DeviceMounts(mounts, devices), Formatter(devices)
    point = tmp_path / "point"
    point.mkdir()
    node = tmp_path / "node"
    node.touch()

    # Ours is formatted, mounted, grown and shown through the program that holds it open.
    device = a.connect()
    blank = await formatter.examine(
        device, "ext4", size=SIZE, content_expected=False, mark="", volume="a"
    )
    assert blank.state is State.BLANK
    await formatter.make(device, "ext4", blank, uuid=UUID, volume="a")
    mount = await attach.mount(device, str(point), fs_type="ext4", options=["rw"], volume="a")
    assert mount.devno == device.devno
    await devices.run_on(device, ["resize2fs", str(device.path)], timeout=60, volume="a")
    assert not await Grower(runner, devices).grow(device, mount, volume="a")
    await mounts.unmount(str(point), volume="a")
    await attach.bind(device, str(node), read_only=False, volume="a")
    await mounts.unmount(str(node), volume="a")
    await devices.require_unclaimed(device, volume="a")

    # The kernel gives it up, and all that it was known by to the next.
    a.disconnect()
    content = b.content()
    other = b.connect()
    assert names(other) == names(device), "the kernel gave other names: the trick is not played"
    whatever = ["mkfs.ext4", "-q", str(device.path)]
    for act in (
        formatter.examine(device, "ext4", size=SIZE, content_expected=False, mark=UUID, volume="a"),
        formatter.make(device, "ext4", blank, uuid=UUID, volume="a"),
        attach.mount(device, str(point), fs_type="ext4", options=["rw"], volume="a"),
        attach.bind(device, str(node), read_only=False, volume="a"),
        devices.run_on(device, whatever, timeout=60, volume="a"),
        devices.set_read_only(device, True, volume="a"),
        devices.require_unclaimed(device, volume="a"),
    ):
        with pytest.raises(Unavailable, match=r"now that of .*proof-b"):
            await act
    assert mounts.at(str(point)) + mounts.at(str(node)) == []
    assert b.content() == content
    assert devices.read_only(other.devno) is False

    # What is held open keeps its name and number, for as long as the program runs.
    holder = hold(other)
    b.disconnect()
    moved = a.connect()
    holder.kill()
    holder.wait()
    assert moved.path != other.path
    assert moved.devno != other.devno
    assert (await formatter.examine(
        moved, "ext4", size=SIZE, content_expected=False, mark="", volume="a"
    )).state is State.READY  # fmt: skip


def hold(device: Device) -> subprocess.Popen[bytes]:
    """A program that has the device open."""
    whose = ["/sys", str(device.path), device.number, device.nqn, device.host_nqn, "-"]
    holder = subprocess.Popen([*devices_module._PROBE, *whose, "run", "-", "sleep", "600"])
    while Path(f"/proc/{holder.pid}/cmdline").read_bytes() != b"sleep\x00600\x00":
        assert holder.poll() is None
        time.sleep(0.05)
    return holder
