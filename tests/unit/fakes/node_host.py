"""A node's kernel, its programs and the RDS behind them, small enough to stop at any step.

Every act outside of the driver (a program, a connect, a record on disk) is one step with a
boundary before and after it; ``mkfs`` has one in its middle as well. What would lose data on a real
node fails the test here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rds_csi.errors import CommandFailed
from rds_csi.filesystem import devices, probe
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.block_device import DeviceNumber
from rds_csi.node.ports import NodePorts
from rds_csi.node.service import Node, NodeSettings
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.nvme.baseline import Doubt
from rds_csi.pathlayer.maps import Maps
from rds_csi.runtime.process import Result
from tests.unit.fakes.mounts import DEVTMPFS
from tests.unit.fakes.node_kernel import (
    FINISHED,
    HOST_NQN,
    Connection,
    Disk,
    FakeKernel,
    Steps,
)

OK = Result(0, "", "")
OWNER = "rds.csi.srvlab.io/test"


@dataclass(frozen=True, slots=True)
class Held:
    """What a program that holds a device was told of it."""

    device: str
    devno: DeviceNumber
    nqn: str
    map: str
    digest: str


def _unwrapped(args: Sequence[str]) -> tuple[tuple[str, ...], Held | None]:
    """The program meant, and what it holds: ``probe inspect DEVICE``, ``mount ...`` and so on."""
    count = len(devices._PROBE)
    if tuple(args[:count]) != devices._PROBE:
        return tuple(args), None
    _, device, number, nqn, host_nqn, dm_uuid, command, *rest = args[count:]
    assert host_nqn == HOST_NQN
    major, _, minor = number.partition(":")
    digest, *program = rest if command == "run" else ("-", "probe", command, device)
    return tuple(program), Held(device, (int(major), int(minor)), nqn, dm_uuid, digest)


class FakeHost(FakeKernel):
    """Stands for ``Runner``, ``Connector`` and ``Sysfs`` at once; make a :meth:`node` of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.kubelet = root / "kubelet"
        self.kubelet.mkdir()
        self.state = root / "state"
        self.claimed: set[str] = set()
        """Device names that something out of sight holds."""
        self.calls: list[tuple[str, ...]] = []
        """Programs; of one that holds its device, that program and not the one that holds it."""
        self.acts: list[tuple[str, str]] = []
        """What was done to which volume: program and NQN."""
        self.formats = 0
        self.statfs = Result(0, "4096 1000 600 500 100 90\n", "")
        self.doubts: dict[str, Doubt] = {}
        """Volumes whose target came back, perhaps without its memory."""
        self.refusals: dict[str, Result] = {}
        """Programs that fail, by name."""

    def ports(self) -> NodePorts:
        """What a Node service on this host works with."""
        devices = FakeBlockDevices(self, self.sys)
        return NodePorts(
            initiator=self,
            subsystems=self,
            runner=self,
            store=SteppedStore(self.state, self.steps),
            mounts=Mounts(self, table=self.table.path),
            devices=devices,
            maps=Maps(self, devices, OWNER, root=self.sys, dev=self.dev),
            doubt=self.doubts.get,
        )

    def node(self) -> Node:
        """A driver just started on this host."""
        settings = NodeSettings(
            node_id="node-1",
            host_nqn=HOST_NQN,
            kubelet_dir=self.kubelet,
            max_volumes=7,
            topology={"csi.rds-csi.io/topology": "all-nodes"},
        )
        return Node(settings, self.ports())

    # Programs

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the port of rds_csi.runtime.process
        volume: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        del timeout, environment
        words, held = _unwrapped(args)
        self.calls.append(words)
        await self.steps.boundary(f"before {words[0]}")
        result = await (self._held_open(held, words) if held else self._outcome(words))
        await self.steps.boundary(f"after {words[0]}")
        if check and result.returncode:
            raise CommandFailed(
                f"{words[0]} failed: {result.stderr}",
                returncode=result.returncode,
                stderr=result.stderr,
                volume=volume,
            )
        return result

    async def _held_open(self, held: "Held", words: tuple[str, ...]) -> Result:
        """A program on a device that is proven and held open until it ends."""
        found = self.connections.get(held.nqn)
        if not self._is_proven(held):
            gone = self._is_gone(held.device) and words[:2] == ("probe", "claim")
            return OK if gone else Result(probe.OTHER, "", f"{held.device} is another one")
        assert found is not None
        if held.digest not in ("-", self._digest(found)):
            return Result(probe.CHANGED, "", "the content has changed")
        self._held.add(found.number)
        if held.map != probe.NO_MAP:
            self.mapper.open.add(held.devno)
        try:
            await self.steps.boundary(f"{words[0]} holds the device")
            return await self._outcome(words)
        finally:
            self._held.discard(found.number)
            self.mapper.open.discard(held.devno)

    def _is_proven(self, held: "Held") -> bool:
        if held.map != probe.NO_MAP:
            front = self.mapper.by_uuid(held.map)
            shown = front is not None and (str(self.dev / front.node), front.devno)
            return shown == (held.device, held.devno) and self.nqn_of(held.devno) == held.nqn
        found = self.connections.get(held.nqn)
        shown = found is not None and (str(self.dev / found.name), found.devno)
        return shown == (held.device, held.devno)

    async def _outcome(self, words: tuple[str, ...]) -> Result:
        return self.refusals.get(words[0]) or await self._program(words)

    async def _program(self, words: tuple[str, ...]) -> Result:
        match words:
            case ("mount", "-t", _, "-o", options, device, _):
                if self._is_gone(device):
                    return Result(32, "", f"mount: special device {device} does not exist.")
                self.acts.append(("mount", self._nqn(device)))
                if options.startswith("rw"):
                    assert not self._mark(device), "mounted with the mark of a format"
                return self.table.run(words)
            case ("mount", "--bind", source, _) if Path(source).parent == self.dev:
                if not self._is_gone(source):
                    self.acts.append(("bind", self._nqn(source)))
                return self.table.run(words)
            case ("mount" | "umount", *_):
                return self.table.run(words)
            case ("mkfs.ext4" | "mkfs.xfs", *_, device):
                return await self._mkfs(device, words)
        return await self._dmsetup(words) if words[0] == "dmsetup" else self._quick_program(words)

    def _quick_program(self, words: tuple[str, ...]) -> Result:
        """Those that the driver gives a device, or a mount of one, as their last word."""
        last = words[-1]
        if words[:2] == ("stat", "--file-system"):
            return self.statfs
        if last.startswith(str(self.dev)) and self._is_gone(last):
            if words[:2] == ("probe", "claim"):
                return OK
            return Result(1, "", f"{last}: No such file or directory")
        programs: dict[tuple[str, ...], Callable[[], Result]] = {
            # mkfs.xfs without a word says what it can.
            (): lambda: Result(1, "", "-i sparse=0|1,nrext64=0|1\n"),
            ("blockdev", "--setro"): lambda: self._set_read_only(last, True),
            ("blockdev", "--setrw"): lambda: self._set_read_only(last, False),
            ("dumpe2fs", "-h"): lambda: self._dumpe2fs(self.connection(last)),
            ("resize2fs",): lambda: self._grow(self.front_of(last).devno),
            ("xfs_growfs", "-n"): lambda: self._xfs_geometry(self._mounted(last)),
            ("xfs_growfs", "-d"): lambda: self._grow(self.table.at(last)[-1].devno),
            ("probe", "inspect"): lambda: self._inspect(self.connection(last)),
            ("probe", "claim"): lambda: self._claim(last),
        }
        return programs[words[:-1]]()

    def _blkid(self, disk: Disk) -> Result:
        if "blkid" in self.refusals:
            return self.refusals["blkid"]
        if disk.content in ("blank", "half"):
            return Result(2, "", "")
        fs_type = disk.content.removeprefix("half ")
        return Result(0, f"UUID={disk.uuid}\nTYPE={fs_type}\nUSAGE=filesystem\n", "")

    def _inspect(self, found: Connection) -> Result:
        disk = found.disk
        if not disk.readable:
            return Result(probe.ERROR, "", "[Errno 5] Input/output error\n")
        family = disk.content.removeprefix("half ").replace("ext4", "ext")
        superblock = {
            "family": family,
            "uuid": disk.uuid,
            "finished": disk.content in FINISHED,
            "replay": disk.replay,
        }
        blkid = self._blkid(disk)
        answer: dict[str, object] = {
            "size": found.size,
            "data": {"blank": None, "half": 4096}.get(disk.content, 1024),
            "superblock": superblock if family in ("ext", "xfs") else None,
            "copies": [],
            "foreign": [],
            "digest": self._digest(found),
            "blkid": {
                "status": blkid.returncode,
                "output": blkid.stdout,
                "errors": blkid.stderr,
            },
        }
        return Result(0, json.dumps(answer), "")

    @staticmethod
    def _digest(found: Connection) -> str:
        return f"{found.size} {found.disk.content} {found.disk.uuid}"

    async def _mkfs(self, device: str, command: Sequence[str]) -> Result:
        if self._is_gone(device):
            return Result(1, "", f"{device}: No such file or directory")
        self.acts.append(("mkfs", self._nqn(device)))
        disk = self.connection(device).disk
        assert not disk.data, "mkfs over a pod's data"
        assert disk.content not in FINISHED, "mkfs over a file system"
        assert self._mark(device) in " ".join(command), "mkfs without its mark"
        fs_type = command[0].removeprefix("mkfs.")
        uuid = next(word for word in command if word.count("-") == 4).removeprefix("uuid=")
        assert disk.content != "half xfs" or "-f" in command or fs_type == "ext4"
        disk.content, disk.uuid = ("half xfs", uuid) if fs_type == "xfs" else ("half", "")
        await self.steps.boundary("in the middle of mkfs")
        disk.make(fs_type, uuid)
        self.formats += 1
        return OK

    def _mark(self, device: str) -> str:
        """The mark of a format that is on the node's disk now, or empty."""
        record = self.state / f"{self._nqn(device).rpartition(':')[2]}.json"
        found = json.loads(record.read_text())["formatting"] if record.exists() else ""
        assert isinstance(found, str)
        return found

    def _claim(self, device: str) -> Result:
        found = self.connection(device)
        mounted = any(entry.devno == found.devno for entry in self.table.entries)
        held = mounted or found.name in self.claimed or self.mapper.holds(found.devno)
        return Result(probe.HELD if held else 0, "", "")

    def _set_read_only(self, device: str, read_only: bool) -> Result:
        self.acts.append(("blockdev", self._nqn(device)))
        shown = int(read_only or self.connection(device).disk.write_protected)
        devno = self.front_of(device).devno
        (self.sys / f"dev/block/{devno[0]}:{devno[1]}/ro").write_text(f"{shown}\n")
        return OK

    @staticmethod
    def _dumpe2fs(found: Connection) -> Result:
        blocks = found.disk.fs_size // 4096
        return Result(0, f"Block count:              {blocks}\nBlock size:   4096\n", "")

    def _mounted(self, point: str) -> str:
        """The NQN of what is mounted there; empty where its device is gone."""
        return self.nqn_of(self.table.at(point)[-1].devno)

    def _xfs_geometry(self, nqn: str) -> Result:
        if not nqn:
            return Result(1, "", "xfs_growfs: Input/output error")
        blocks = self.connections[nqn].disk.fs_size // 4096
        return Result(0, f"data     =              bsize=4096   blocks={blocks}, imaxpct=25\n", "")

    def _grow(self, devno: DeviceNumber) -> Result:
        nqn = self.nqn_of(devno)
        if not nqn:
            return Result(1, "", "xfs_growfs: Input/output error")
        self.acts.append(("grow", nqn))
        assert any(entry.devno == devno for entry in self.table.entries), "grown unmounted"
        sizes = {each.devno: each.size for each in self.connections.values()}
        sizes |= {each.devno: each.size for each in self.mapper.maps.values()}
        self.connections[nqn].disk.fs_size = sizes[devno]
        return OK

    async def _dmsetup(self, words: tuple[str, ...]) -> Result:
        """A map is made, and only then gets its table; until then no sysfs shows it."""
        match words:
            case (_, "create", _, name, _, uuid, *_) if not self.mapper.knows(name, uuid):
                made = self.mapper.add(name, uuid)
                await self.steps.boundary("in the middle of dmsetup create")
                self.mapper.drop(made)
            case (_, "resume", *_):
                await self.steps.boundary("in the middle of a reload")
        return self.mapper.run(words)

    # Questions of the tests

    def leaks(self) -> list[str]:
        """What is left on the node: nothing, when every volume was taken down."""
        files = [str(path) for path in self.kubelet.rglob("*") if not path.name.startswith("stage")]
        records = [str(path) for path in self.state.glob("*")] if self.state.exists() else []
        # One without a table leads nowhere, and no sysfs shows it: the next stage clears it away.
        maps = [each.uuid for each in self.mapper.maps.values() if each.paths()]
        return [*self.table.points(), *maps, *self.connections, *files, *records]

    def check(self) -> None:
        """What must hold at any moment."""
        points = self.table.points()
        assert len(points) == len(set(points)), f"stacked: {points}"
        assert all(Path(point).exists() for point in points), f"removed under a mount: {points}"


class FakeBlockDevices(BlockDevices):
    """Regular files stand for device nodes, so their numbers come from the fake kernel."""

    def __init__(self, host: FakeHost, root: Path) -> None:
        super().__init__(host, root=root)
        self._host = host

    def number_of(self, path: Path | str) -> DeviceNumber | None:
        bound = [entry for entry in self._host.table.at(str(path)) if entry.devno == DEVTMPFS]
        # A bound node keeps its number, and shows whatever device has that number now.
        name = bound[-1].root.removesuffix("//deleted") if bound else str(path)
        nodes = {each.name: each.devno for each in self._host.connections.values()}
        nodes |= {each.node: each.devno for each in self._host.mapper.maps.values()}
        for node, devno in nodes.items():
            if name in (f"/{node}", str(self._host.dev / node)):
                return devno
        return None


class SteppedStore(StagingStore):
    """The real records, with a boundary before and after each change."""

    def __init__(self, directory: Path, steps: Steps) -> None:
        super().__init__(directory)
        self._steps = steps

    async def write(self, staged: StagedVolume) -> None:
        await self._steps.boundary("before record")
        await super().write(staged)
        await self._steps.boundary("after record")

    async def delete(self, volume: str) -> None:
        await self._steps.boundary("before forget")
        await super().delete(volume)
        await self._steps.boundary("after forget")
