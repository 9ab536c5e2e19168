"""What sysfs says of block devices, and the children that ask the devices themselves."""

from pathlib import Path

import pytest

from rds_csi.errors import CommandFailed, FailedPrecondition, VolumeInUse
from rds_csi.filesystem import devices, probe
from rds_csi.filesystem.devices import BlockDevices, Device
from tests.unit.fakes.runner import Call, FakeRunner

DEVICE = Device(Path("/dev/nvme0n1"), (259, 3), "nqn.2000-02.com.mikrotik:pvc-1", "nqn.host")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "dev" / "block" / "259:3"
    path.mkdir(parents=True)
    (path / "size").write_text("2048\n")
    (path / "ro").write_text("0\n")
    return path


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def block(runner: FakeRunner, tmp_path: Path, directory: Path) -> BlockDevices:
    assert directory.exists()
    return BlockDevices(runner, root=tmp_path)


def test_sysfs(block: BlockDevices) -> None:
    assert block.exists((259, 3))
    assert block.size((259, 3)) == 1024**2
    assert block.read_only((259, 3)) is False
    assert not block.exists((259, 4))
    assert block.size((259, 4)) is None
    assert block.read_only((259, 4)) is None


def test_numbers_of_nodes(block: BlockDevices, tmp_path: Path) -> None:
    assert block.number_of(tmp_path) is None
    assert block.number_of("/dev/null") is None
    assert block.number_of(tmp_path / "none") is None


async def test_read_only_is_set_and_checked(
    block: BlockDevices, runner: FakeRunner, directory: Path
) -> None:
    def follow(call: Call) -> None:
        (directory / "ro").write_text("1\n" if call.args[1] == "--setro" else "0\n")

    runner.on("blockdev", effect=follow)
    await block.set_read_only(DEVICE, False, volume="v")
    assert runner.calls == []
    await block.set_read_only(DEVICE, True, volume="v")
    assert runner.calls[-1].args == ("blockdev", "--setro", "/dev/nvme0n1")
    await block.set_read_only(DEVICE, False, volume="v")
    assert runner.calls[-1].args == ("blockdev", "--setrw", "/dev/nvme0n1")
    runner.forget()
    runner.on("blockdev")
    with pytest.raises(FailedPrecondition, match="cannot be made read-only"):
        await block.set_read_only(DEVICE, True, volume="v")


async def test_a_claimed_device_is_in_use_another_failure_is_one(
    block: BlockDevices, runner: FakeRunner
) -> None:
    runner.on(*devices._PROBE, "claim", "/dev/nvme0n1", "259:3", times=1)
    await block.require_unclaimed(DEVICE, volume="v")
    runner.fail(*devices._PROBE, "claim", status=probe.HELD, times=1)
    with pytest.raises(VolumeInUse, match="259:3"):
        await block.require_unclaimed(DEVICE, volume="v")
    runner.fail(*devices._PROBE, "claim", status=probe.CHANGED)
    with pytest.raises(CommandFailed):
        await block.require_unclaimed(DEVICE, volume="v")
