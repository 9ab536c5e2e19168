"""A file system grows to its device, proven to be the volume's before and after."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rds_csi.errors import CommandFailed, CommandTimeout, Internal, Unavailable
from rds_csi.filesystem import devices
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.grow import Grower
from rds_csi.filesystem.mounts import Mount
from rds_csi.model.block_device import Device
from rds_csi.model.volume import MIB
from rds_csi.runtime.process import Result
from tests.unit.fakes.runner import Call, FakeRunner
from tests.unit.fakes.sysfs import HOST_NQN, namespace_of

DEVICE = Device(Path("/dev/nvme0n1"), (259, 3), "nqn.2000-02.com.mikrotik:pvc-1", HOST_NQN)
SIZE = 1024 * MIB
SLACK = 16 * MIB


@dataclass
class Disk:
    """A mounted file system of ``now`` bytes on a device of ``SIZE``, and its programs."""

    root: Path
    fs_type: str
    now: int = SIZE // 2
    works: bool = True
    """Whether growing grows."""
    runner: FakeRunner = field(default_factory=FakeRunner)

    def __post_init__(self) -> None:
        directory = namespace_of(self.root, DEVICE.devno, DEVICE.nqn)
        (directory / "size").write_text(f"{SIZE // 512}\n")
        self.grower = Grower(self.runner, BlockDevices(self.runner, root=self.root))
        self.shown = self.runner.on(*self.measure, effect=self._measured)
        self.runner.on(*devices._PROBE, effect=self._grown)

    @property
    def measure(self) -> tuple[str, ...]:
        return ("xfs_growfs", "-n") if self.fs_type == "xfs" else ("dumpe2fs", "-h")

    @property
    def mount(self) -> Mount:
        return Mount(
            devno=DEVICE.devno,
            root="/",
            point="/mnt",
            options=("rw",),
            fs_type=self.fs_type,
            source="/dev/nvme0n1",
            super_options=("rw",),
        )

    @property
    def acts(self) -> list[tuple[str, ...]]:
        """The programs run on the device, held open."""
        return [call.args for call in self.runner.asked(*devices._PROBE)]

    async def grow(self) -> bool:
        return await self.grower.grow(DEVICE, self.mount, volume="pvc-1")

    def swap(self) -> None:
        """The kernel gives the device's number to another volume."""
        for each in (self.root / "devices", self.root / "dev"):
            shutil.rmtree(each)
        directory = namespace_of(self.root, DEVICE.devno, f"{DEVICE.nqn}2")
        (directory / "size").write_text(f"{SIZE // 512}\n")

    def _measured(self, _call: Call) -> None:
        blocks = self.now // 4096
        text = {
            "xfs": f"meta-data=/dev/nvme0n1 isize=512 agcount=4\n"
            f"data     =                       bsize=4096   blocks={blocks}, imaxpct=25\n"
            "log      =internal log           bsize=4096   blocks=16384, version=2\n",
            "ext4": f"Inode count: 65536\nBlock count:              {blocks}\n"
            "Reserved block count:     0\nFirst block:              0\n"
            "Block size:               4096\nFragment size:            4096\n",
        }
        self.shown.result = Result(0, text[self.fs_type], "")

    def _grown(self, _call: Call) -> None:
        self.now = SIZE if self.works else self.now


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return Disk(tmp_path, request.param)


async def test_it_grows_to_its_device_and_only_once(disk: Disk) -> None:
    assert await disk.grow()
    (held,) = disk.acts
    command = {"xfs": ("xfs_growfs", "-d", "/mnt"), "ext4": ("resize2fs", "/dev/nvme0n1")}
    words = command[disk.fs_type]
    assert held[-len(words) - 2 :] == ("run", "-", *words)
    assert not await disk.grow()
    assert len(disk.acts) == 1


@pytest.mark.parametrize(("missing", "grows"), [(0, False), (SLACK - 4096, False), (SLACK, True)])
async def test_what_is_left_for_a_last_group_is_not_worth_it(
    disk: Disk, missing: int, grows: bool
) -> None:
    disk.now = SIZE - missing
    assert await disk.grow() is grows
    assert bool(disk.acts) is grows


async def test_a_file_system_larger_than_its_device_is_left(disk: Disk) -> None:
    disk.now = 2 * SIZE
    assert not await disk.grow()
    assert disk.acts == []


async def test_a_mount_of_another_device_is_not_touched(disk: Disk) -> None:
    with pytest.raises(Unavailable, match=r"/mnt shows device \(259, 4\), not 259:3"):
        await disk.grower.grow(DEVICE, replace(disk.mount, devno=(259, 4)), volume="pvc-1")
    assert disk.runner.calls == []


async def test_a_number_that_is_anothers_by_now_is_not_touched(disk: Disk) -> None:
    disk.swap()
    with pytest.raises(Unavailable, match="not its device any more"):
        await disk.grow()
    assert disk.runner.calls == []


@pytest.mark.parametrize("status", [0, 1])
async def test_what_was_measured_of_another_device_is_not_believed(disk: Disk, status: int) -> None:
    """It goes while it is measured: whatever the program says then, that is the reason."""
    disk.runner.forget()
    disk.runner.on(*disk.measure, effect=lambda _call: disk.swap(), result=Result(status, "", "x"))
    with pytest.raises(Unavailable, match="not its device any more"):
        await disk.grow()
    assert disk.acts == []


async def test_a_size_that_cannot_be_asked_is_said(disk: Disk) -> None:
    disk.runner.forget()
    disk.runner.fail(*disk.measure, stderr="Input/output error")
    with pytest.raises(CommandFailed, match="Input/output error"):
        await disk.grow()


async def test_a_size_that_makes_no_sense_is_not_believed(disk: Disk) -> None:
    disk.runner.forget()
    disk.runner.on(*disk.measure, result=Result(0, "what?\n", ""))
    with pytest.raises(Internal, match=r"is not in what .* says: 'what\?'") as caught:
        await disk.grow()
    assert caught.value.volume == "pvc-1"
    assert disk.acts == []


async def test_a_growth_that_fails_says_that_nothing_is_lost(disk: Disk) -> None:
    disk.runner.forget()
    disk.shown = disk.runner.on(*disk.measure, effect=disk._measured)
    disk.runner.fail(*devices._PROBE, stderr="no room")
    with pytest.raises(Internal, match=f"the {disk.fs_type} on .* could not be grown: no room") as (
        caught
    ):
        await disk.grow()
    assert "unharmed" in caught.value.advice


async def test_a_growth_that_is_only_claimed_is_an_error(disk: Disk) -> None:
    disk.works = False
    with pytest.raises(Internal, match=f"reported success, but .* has {SIZE // 2} bytes"):
        await disk.grow()


@pytest.mark.looptime
async def test_a_growth_that_takes_too_long_is_said(disk: Disk) -> None:
    disk.runner.forget()
    disk.shown = disk.runner.on(*disk.measure, effect=disk._measured)
    disk.runner.on(*devices._PROBE, takes=10_000)
    with pytest.raises(CommandTimeout, match="took longer than 600 s"):
        await disk.grow()
