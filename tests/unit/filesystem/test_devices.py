"""What sysfs says of block devices, and the children that ask the devices themselves."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.errors import (
    CommandFailed,
    CommandTimeout,
    FailedPrecondition,
    NotReady,
    Unavailable,
    VolumeInUse,
)
from rds_csi.filesystem import devices, probe
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.model.block_device import Device
from rds_csi.runtime.process import Result
from tests.unit.fakes.runner import Call, FakeRunner
from tests.unit.fakes.sysfs import HOST_NQN, OTHER_NQN, namespace_of

DEVICE = Device(Path("/dev/nvme0n1"), (259, 3), "nqn.2000-02.com.mikrotik:pvc-1", HOST_NQN)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = namespace_of(tmp_path, DEVICE.devno, DEVICE.nqn)
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
        (directory / "ro").write_text("1\n" if call.args[-2] == "--setro" else "0\n")

    runner.on(*devices._PROBE, effect=follow)
    await block.set_read_only(DEVICE, False, volume="v")
    assert runner.calls == []
    await block.set_read_only(DEVICE, True, volume="v")
    assert runner.calls[-1].args[-5:] == ("run", "-", "blockdev", "--setro", "/dev/nvme0n1")
    await block.set_read_only(DEVICE, False, volume="v")
    assert runner.calls[-1].args[-2:] == ("--setrw", "/dev/nvme0n1")
    runner.forget()
    runner.on(*devices._PROBE)
    with pytest.raises(FailedPrecondition, match="cannot be made read-only"):
        await block.set_read_only(DEVICE, True, volume="v")


@pytest.mark.looptime
async def test_a_device_that_is_held_for_an_instant_is_not_in_use(
    block: BlockDevices, runner: FakeRunner
) -> None:
    """By the mount namespace of a container that is being started."""
    claim = (*devices._PROBE, str(block._root), "/dev/nvme0n1", "259:3", DEVICE.nqn, HOST_NQN, "-")
    runner.fail(*claim, "claim", status=probe.HELD, times=2)
    runner.on(*claim, "claim", times=1)
    await block.require_unclaimed(DEVICE, volume="v")
    assert len(runner.asked(*devices._PROBE)) == 3
    assert asyncio.get_running_loop().time() == pytest.approx(1.0, abs=0.1)


@pytest.mark.looptime
async def test_a_claimed_device_is_in_use_another_failure_is_one(
    block: BlockDevices, runner: FakeRunner
) -> None:
    sysfs = str(block._root)
    claim = (*devices._PROBE, sysfs, "/dev/nvme0n1", "259:3", DEVICE.nqn, HOST_NQN, "-", "claim")
    runner.on(*claim, times=1)
    await block.require_unclaimed(DEVICE, volume="v")
    runner.fail(*claim, status=probe.HELD, times=100)
    with pytest.raises(VolumeInUse, match="259:3"):
        await block.require_unclaimed(DEVICE, volume="v")
    runner.forget()
    runner.fail(*claim, status=probe.OTHER, stderr="of another", times=1)
    with pytest.raises(Unavailable, match="not its device any more: of another"):
        await block.require_unclaimed(DEVICE, volume="v")
    runner.fail(*claim, status=probe.ERROR)
    with pytest.raises(CommandFailed):
        await block.require_unclaimed(DEVICE, volume="v")


@pytest.mark.parametrize("multipath", [True, False])
def test_whose_a_device_is_stands_in_sysfs(tmp_path: Path, multipath: bool) -> None:
    """In both layouts of the kernel: below the subsystem, or below the one controller."""
    namespace_of(tmp_path, DEVICE.devno, DEVICE.nqn, multipath=multipath)
    block = BlockDevices(FakeRunner(), root=tmp_path)
    block.prove(DEVICE, volume="v")
    for other, why in (
        (replace(DEVICE, nqn=DEVICE.nqn + "2"), f"now that of {DEVICE.nqn}"),
        (replace(DEVICE, host_nqn=OTHER_NQN), "another host NQN"),
        (replace(DEVICE, devno=(259, 4)), "no device 259:4 any more"),
    ):
        with pytest.raises(Unavailable, match=why):
            block.prove(other, volume="v")


def test_a_disk_that_is_no_volume_is_nobodys(tmp_path: Path) -> None:
    """A partition of the volume, or the host's own disk, has no subsystem right above it."""
    (tmp_path / "devices" / "sda").mkdir(parents=True)
    (tmp_path / "dev" / "block").mkdir(parents=True)
    (tmp_path / "dev" / "block" / "259:3").symlink_to(tmp_path / "devices" / "sda")
    with pytest.raises(Unavailable, match="no NVMe subsystem"):
        BlockDevices(FakeRunner(), root=tmp_path).prove(DEVICE, volume="v")


async def test_a_device_that_changes_hands_under_a_program_is_no_success(
    block: BlockDevices, runner: FakeRunner, directory: Path
) -> None:
    """Whether the program succeeds or fails: what it worked on is not proven to the end."""
    for status in (0, 32):
        (directory.parent / "subsysnqn").write_text(f"{DEVICE.nqn}\n")
        runner.forget()
        runner.on(
            *devices._PROBE,
            result=Result(status, "", "it failed"),
            effect=lambda _call: (directory.parent / "subsysnqn").write_text("nqn.b\n"),
        )
        with pytest.raises(Unavailable, match=r"not its device any more: .*nqn\.b"):
            await block.run_on(DEVICE, ["mount", "x"], timeout=1, volume="v")


async def test_a_program_that_is_missing_or_too_slow_is_named(
    block: BlockDevices, runner: FakeRunner
) -> None:
    runner.fail(*devices._PROBE, status=probe.MISSING, stderr="mkfs.xfs\n", times=1)
    with pytest.raises(NotReady, match=r"mkfs\.xfs cannot be run.*package xfsprogs"):
        await block.run_on(DEVICE, ["mkfs.xfs"], timeout=1, volume="v")
    runner.on(*devices._PROBE, takes=2, times=2)
    with pytest.raises(CommandTimeout, match="mount took longer than 1 s"):
        await block.run_on(DEVICE, ["mount"], timeout=1, volume="v")
    with pytest.raises(CommandTimeout, match="claim of /dev/nvme0n1 took longer"):
        await block._probe(DEVICE, ["claim"], 1, "v")
    runner.fail(*devices._PROBE, status=7, stderr="no space")
    with pytest.raises(CommandFailed, match="mount failed with status 7: no space"):
        await block.run_on(DEVICE, ["mount"], timeout=1, volume="v")
