"""The node service with real devices: loop devices stand for NVMe, all else is the kernel's.

Real mkfs, mounts, growth and device numbers. Needs root and loop devices.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from rds_csi.errors import FailedPrecondition, NotBlank, VolumeInUse, VolumeMismatch
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mount, Mounts, parse
from rds_csi.model.access import AccessMode
from rds_csi.model.block_device import DeviceNumber
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.model.volume import MIB
from rds_csi.node.ports import NodePorts
from rds_csi.node.service import Node, NodeSettings
from rds_csi.node.staging import StagingStore
from rds_csi.nvme.sysfs import Controller, Namespace
from rds_csi.pathlayer.maps import Maps
from rds_csi.runtime.process import SubprocessRunner
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import HOST_NQN
from tests.unit.fakes.sysfs import namespace_of
from tests.unit.node.calls import SIZE, VOLUME, Calls, nqn


def run(*args: str) -> str:
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout.strip()


def rdev(path: Path | str) -> int:
    return Path(path).stat().st_rdev


def private_namespace() -> subprocess.Popen[bytes]:
    """A process with a mount namespace of its own, and in it a copy of every mount."""
    holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "60"])
    while Path(f"/proc/{holder.pid}/cmdline").read_bytes() != b"sleep\x0060\x00":
        time.sleep(0.01)
    return holder


def loop_devices() -> bool:
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        return False
    found = subprocess.run(["losetup", "-f"], check=False, capture_output=True)
    return found.returncode == 0


def may_grow_ext4() -> bool:
    """Whether this root has CAP_SYS_RESOURCE, which growing ext4 needs and some sandboxes drop."""
    status = Path("/proc/self/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(mask, 16) >> 24 & 1)


pytestmark = pytest.mark.skipif(not loop_devices(), reason="needs root and loop devices")


class LoopHost:
    """Connects an image file as a loop device: ``Connector`` and ``Sysfs`` in one."""

    def __init__(self, root: Path) -> None:
        self.kubelet = root / "kubelet"
        self.kubelet.mkdir()
        self.image = root / "image"
        self.image.touch()
        os.truncate(self.image, SIZE)
        self.device = ""
        self.read_only = False
        """Whether the target protects it from writes."""
        self.connects = 0
        self.runner = SubprocessRunner()
        self._sys = root / "sys"
        self._state = root / "state"

    def node(self) -> Node:
        devices = BlockDevices(self.runner, root=self._sys)
        return Node(
            NodeSettings(node_id="n", host_nqn=HOST_NQN, kubelet_dir=self.kubelet),
            NodePorts(
                initiator=self,
                subsystems=self,
                runner=self.runner,
                store=StagingStore(self._state),
                devices=devices,
                maps=Maps(self.runner, devices, "rds.csi.srvlab.io/test", root=self._sys),
                mounts=Mounts(self.runner),
            ),
        )

    async def connect_with_retry(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        del config, volume
        self.connects += 1
        if not self.device:
            self.device = run(*self._attach, str(self.image))
            self._own(target.nqn)
        found = self.find(target.nqn)
        assert found is not None
        return found

    async def connect_missing(self, *_: object, **__: object) -> list[str]:
        return []

    @property
    def _attach(self) -> tuple[str, ...]:
        return ("losetup", "-f", "--show", *(["--read-only"] if self.read_only else []))

    def _own(self, wanted: str) -> None:
        """Say of the loop device whose it is; all else of it is the kernel's."""
        number = rdev(self.device)
        devno = os.major(number), os.minor(number)
        shutil.rmtree(self._sys, ignore_errors=True)
        directory = namespace_of(self._sys, devno, wanted, HOST_NQN)
        for name in ("size", "ro"):
            real = Path(f"/sys/dev/block/{devno[0]}:{devno[1]}")
            (directory / name).symlink_to(real / name)

    def find(self, wanted: str) -> Namespace | None:
        if wanted != nqn(VOLUME) or not self.device:
            return None
        number = rdev(self.device)
        devno = os.major(number), os.minor(number)
        size = int(Path(f"/sys/dev/block/{devno[0]}:{devno[1]}/size").read_text()) * 512
        return Namespace(device=Path(self.device), size=size, devno=devno, nsid=1)

    async def disconnect(self, _nqn: str, *, volume: str = "") -> None:
        del volume
        if self.device:
            run("losetup", "-d", self.device)
            self.device = ""

    async def rescan(self, _nqn: str, *, volume: str = "") -> None:
        del volume
        run("losetup", "-c", self.device)

    def controllers_of(self, wanted: Callable[[str], bool]) -> list[Controller]:
        known = self.device and wanted(nqn(VOLUME))
        return (
            [Controller(name="nvme0", nqn=nqn(VOLUME), hostnqn=HOST_NQN, state="live")]
            if known
            else []
        )

    def namespace_of(self, controllers: Iterable[Controller], nsid: int = 1) -> Namespace | None:
        assert nsid == 1
        return next((self.find(each.nqn) for each in controllers), None)

    def owner(self, devno: DeviceNumber) -> str:
        found = self.find(nqn(VOLUME))
        return nqn(VOLUME) if found is not None and found.devno == devno else ""

    def owner_of_node(self, name: str) -> str:
        return nqn(VOLUME) if self.device == f"/dev/{name}" else ""

    def mounts(self) -> list[Mount]:
        table = parse(Path("/proc/self/mountinfo").read_bytes())
        return [mount for mount in table if Path(mount.point).is_relative_to(self.kubelet)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LoopHost]:
    host = LoopHost(tmp_path)
    yield host
    for mount in reversed(host.mounts()):
        subprocess.run(["umount", mount.point], check=False)
    if host.device:
        subprocess.run(["losetup", "-d", host.device], check=False)


@pytest.fixture
def calls(host: LoopHost) -> Calls:
    fake: FakeHost = host  # type: ignore[assignment] # of a host, Calls need a node and the path
    calls = Calls(host=fake)
    calls.stage_path.mkdir()
    return calls


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
async def test_the_life_of_a_file_system(host: LoopHost, calls: Calls, fs_type: str) -> None:
    label = 'context="system_u:object_r:container_file_t:s0:c1,c2"'
    calls = calls.but(fs_type=fs_type, flags=("noatime", "nosuid", label))
    await calls.stage()
    await calls.stage()
    other = calls.but(flags=("noatime", "nosuid", label.replace("c2", "c3")))
    with pytest.raises(VolumeMismatch, match=r"mounted at .* with options"):
        await other.stage()
    await calls.publish()
    await calls.publish()
    reader = calls.but(readonly=True, target_name="reader")
    await reader.publish()
    await reader.publish()
    assert len(host.mounts()) == 3
    assert host.connects == 1
    (calls.target_path / "data").write_text("kept")
    with pytest.raises(OSError, match="Read-only"):
        (reader.target_path / "data").write_text("changed")
    (mount,) = [mount for mount in host.mounts() if mount.point == str(reader.target_path)]
    assert {"ro", "nosuid", "noatime"} <= set(mount.options)

    bytes_, inodes = await calls.stats()
    assert SIZE * 0.8 < bytes_.total <= SIZE
    assert inodes.total > 0
    factor = 2 if fs_type == "xfs" or may_grow_ext4() else 1
    os.truncate(host.image, factor * SIZE)
    assert await calls.expand(factor * SIZE) == factor * SIZE
    bytes_, _ = await calls.stats()
    assert bytes_.total > SIZE * factor * 0.8

    with pytest.raises(VolumeInUse, match="reader"):
        await calls.unstage()
    with (calls.target_path / "data").open(), pytest.raises(VolumeInUse, match="busy"):
        await calls.unpublish()
    assert (calls.target_path / "data").read_text() == "kept"
    await reader.unpublish()
    await calls.unpublish()
    await calls.unpublish()
    await calls.unstage()
    await calls.unstage()
    assert host.mounts() == []
    assert host.device == ""
    assert [path.name for path in host.kubelet.iterdir()] == ["stage"]

    os.truncate(host.image, (2 * factor - 1) * SIZE)
    await calls.stage()
    assert (calls.stage_path / "data").read_text() == "kept"
    statistics = os.statvfs(calls.stage_path)
    assert statistics.f_blocks * statistics.f_frsize > SIZE * (2 * factor - 1) * 0.8
    await calls.unstage()


async def test_the_life_of_a_raw_device(host: LoopHost, calls: Calls) -> None:
    calls = calls.but(block=True)
    await calls.stage()
    assert host.mounts() == []
    await calls.publish()
    await calls.publish()
    second = calls.but(target_name="second")
    await second.publish()
    assert len(host.mounts()) == 2
    assert rdev(calls.target_path) == rdev(host.device)
    with calls.target_path.open("r+b") as device:
        device.write(b"raw data")
        device.flush()
        os.fsync(device.fileno())
    assert (await calls.stats())[0].total == SIZE
    os.truncate(host.image, SIZE + MIB)
    assert await calls.expand(SIZE + MIB) == SIZE + MIB
    with pytest.raises(VolumeInUse, match="one or the other"):
        await calls.but(readonly=True, target_name="reader").publish()
    with pytest.raises(VolumeInUse, match="mounted at"):
        await calls.unstage()
    await calls.unpublish()
    await second.unpublish()

    reader = calls.but(readonly=True, target_name="reader")
    await reader.publish()
    with pytest.raises(PermissionError), reader.target_path.open("r+b", buffering=0) as device:
        device.write(b"changed")
    await reader.unpublish()
    await calls.publish()
    with calls.target_path.open("r+b") as device:
        assert device.read(8) == b"raw data"
        device.write(b"new data")
    await calls.unpublish()
    await calls.unstage()
    assert host.mounts() == []
    assert host.device == ""


async def test_what_a_raw_device_holds_is_not_formatted(host: LoopHost, calls: Calls) -> None:
    host.image.write_bytes(bytes(MIB) + b"raw data" + bytes(SIZE - MIB - 8))
    with pytest.raises(NotBlank, match="no signature"):
        await calls.stage()
    assert host.device == ""
    assert host.image.read_bytes()[MIB : MIB + 8] == b"raw data"


async def crash(host: LoopHost, calls: Calls) -> bytes:
    """Leave the volume as a node leaves it that fell over just after an fsync; its bytes."""
    await calls.stage()
    (calls.stage_path / "data").write_text("kept")
    run("sync", "-f", str(calls.stage_path))
    crashed = host.image.with_name("crashed")
    shutil.copyfile(host.image, crashed)  # with a journal that is not empty
    await calls.unstage()
    shutil.copyfile(crashed, host.image)
    return host.image.read_bytes()


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
async def test_readers_are_refused_while_a_journal_waits_to_be_replayed(
    host: LoopHost, calls: Calls, fs_type: str
) -> None:
    """They may not write, so they would see nothing of what stands only in the journal."""
    calls = calls.but(fs_type=fs_type)
    crashed = await crash(host, calls)
    reader = calls.but(mode=AccessMode.MULTI_NODE_READER_ONLY)
    with pytest.raises(FailedPrecondition, match="use it writable once first"):
        await reader.stage()
    assert host.image.read_bytes() == crashed
    assert host.device == ""
    await calls.stage()
    assert (calls.stage_path / "data").read_text() == "kept"
    await calls.unstage()
    clean = host.image.read_bytes()
    await reader.stage()
    assert (calls.stage_path / "data").read_text() == "kept"
    await reader.unstage()
    assert host.image.read_bytes() == clean, "a reader wrote"


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
async def test_the_only_reader_has_the_kernel_replay_the_journal(
    host: LoopHost, calls: Calls, fs_type: str
) -> None:
    """Nobody else has the volume, so it may be written; unless the device takes no writes."""
    calls = calls.but(fs_type=fs_type)
    crashed = await crash(host, calls)
    reader = calls.but(mode=AccessMode.SINGLE_NODE_READER_ONLY)
    host.read_only = True
    with pytest.raises(FailedPrecondition, match="use it writable once first"):
        await reader.stage()
    assert host.image.read_bytes() == crashed
    host.read_only = False
    await reader.stage()
    assert (calls.stage_path / "data").read_text() == "kept"
    await reader.unstage()
    await calls.but(mode=AccessMode.MULTI_NODE_READER_ONLY).stage()
    await reader.unstage()


async def test_a_holder_out_of_sight_keeps_the_device(host: LoopHost, calls: Calls) -> None:
    """A container with a mount namespace of its own still has the volume mounted."""
    await calls.stage()
    holder = private_namespace()
    try:
        with pytest.raises(VolumeInUse, match="another mount namespace"):
            await calls.unstage()
        assert host.device
    finally:
        holder.kill()
        holder.wait()
    await calls.unstage()
    assert host.device == ""


async def test_a_device_node_made_by_the_go_driver_is_adopted(host: LoopHost, calls: Calls) -> None:
    calls = calls.but(block=True)
    await calls.stage()
    os.mknod(calls.target_path, 0o60660, rdev(host.device))
    await calls.publish()
    assert host.mounts() == []
    assert (await calls.stats())[0].total == SIZE
    await calls.unpublish()
    os.mknod(calls.target_path, 0o60660, os.makedev(7, 250))
    await calls.publish()
    assert rdev(calls.target_path) == rdev(host.device)
    await calls.unpublish()
    await calls.unstage()


async def test_a_damaged_file_system_is_not_touched(host: LoopHost, calls: Calls) -> None:
    await calls.stage()
    await calls.unstage()
    with host.image.open("r+b") as image:
        image.seek(1024 + 4)
        image.write(b"\xff" * 8)  # its block count
    before = host.image.stat().st_mtime_ns
    with pytest.raises((FailedPrecondition, NotBlank)):
        await calls.stage()
    assert host.image.stat().st_mtime_ns == before
    assert host.device == ""
