"""A node's kernel, its programs and the RDS behind them, small enough to stop at any step.

Every act outside of the driver (a program, a connect, a record on disk) is one step with a
boundary before and after it; ``mkfs`` has one in its middle as well. ``Steps`` ends the driver
at any of them. What would lose data on a real node fails the test here.
"""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rds_csi.errors import CommandFailed, ConnectFailed
from rds_csi.filesystem import devices, probe
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import DeviceNumber, Mounts
from rds_csi.node import Node, NodeSettings
from rds_csi.nvme.sysfs import Controller, Namespace
from rds_csi.parameters import ConnectionConfig, Target
from rds_csi.process import Result
from rds_csi.staging import StagedVolume, StagingStore
from tests.unit.fakes.mounts import DEVTMPFS, Entry, FakeMountTable, FileSystem

HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555"
FINISHED = ("ext4", "xfs")
OK = Result(0, "", "")


class Killed(BaseException):
    """The driver was killed with -9 here: nothing of it runs any more."""


@dataclass(slots=True)
class Steps:
    """Counts boundaries, and ends the driver at number ``stop`` by ``how``."""

    stop: int = 0
    how: str = "kill"
    passed: list[str] = field(default_factory=list)

    async def boundary(self, what: str) -> None:
        self.passed.append(what)
        if len(self.passed) != self.stop:
            return
        if self.how == "kill":
            raise Killed(what)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)


@dataclass(slots=True)
class Disk:
    """One volume as the RDS has it. ``content`` is ``blank``, ``half``, ``half xfs``, or a type."""

    size: int
    content: str = "blank"
    uuid: str = ""
    fs_size: int = 0
    data: str = ""
    """What a pod wrote."""
    readable: bool = True
    write_protected: bool = False

    def make(self, fs_type: str, uuid: str) -> None:
        self.content, self.uuid, self.fs_size = fs_type, uuid, self.size


@dataclass(slots=True)
class Connection:
    """A connected disk, as the kernel shows it."""

    name: str
    devno: DeviceNumber
    disk: Disk
    size: int


class FakeHost:
    """Stands for ``Runner``, ``Connector`` and ``Sysfs`` at once; make a :meth:`node` of it."""

    def __init__(self, root: Path) -> None:
        self.steps = Steps()
        self.dev = root / "dev"
        self.kubelet = root / "kubelet"
        self._block = root / "sys" / "dev" / "block"
        for directory in (self.dev, self.kubelet, self._block):
            directory.mkdir(parents=True)
        self.state = root / "state"
        self.rds: dict[str, Disk] = {}
        self.connections: dict[str, Connection] = {}
        self.states: dict[str, str] = {}
        """What became of connections that are not live, by NQN."""
        self.without_namespace: set[str] = set()
        """The NQNs whose connection leads to no device."""
        self.claimed: set[str] = set()
        """Device names that something out of sight holds."""
        self.calls: list[tuple[str, ...]] = []
        self.formats = 0
        self.rescans_until_seen = 1
        self.statfs = Result(0, "4096 1000 600 500 100 90\n", "")
        self.refusals: dict[str, Result] = {}
        """Programs that fail, by name."""
        self.table = FakeMountTable(root / "mountinfo", dev=self.dev, file_system=self._file_system)
        self._numbers = 0

    def node(self) -> Node:
        """A driver just started on this host."""
        runner_table = Mounts(self, table=self.table.path)
        return Node(
            settings=NodeSettings(
                node_id="node-1", host_nqn=HOST_NQN, kubelet_dir=self.kubelet, max_volumes=7
            ),
            connector=self,
            sysfs=self,
            runner=self,
            store=SteppedStore(self.state, self.steps),
            mounts=runner_table,
            devices=FakeBlockDevices(self, self._block.parent.parent),
        )

    # The kernel's side of NVMe/TCP

    async def connect_with_retry(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        del config
        await self.steps.boundary("before connect")
        if target.nqn not in self.rds:
            raise ConnectFailed("connection refused", volume=volume)
        if target.nqn not in self.connections:
            self._plug(target.nqn)
        await self.steps.boundary("after connect")
        found = self.find(target.nqn)
        assert found is not None
        return found

    def find(self, nqn: str) -> Namespace | None:
        found = self.connections.get(nqn)
        if found is None or nqn in self.without_namespace:
            return None
        return Namespace(device=self.dev / found.name, size=found.size, devno=found.devno, nsid=1)

    async def disconnect(self, nqn: str, *, volume: str = "") -> None:
        del volume
        await self.steps.boundary("before disconnect")
        if nqn in self.connections:
            self.unplug(nqn, orderly=True)
        await self.steps.boundary("after disconnect")

    async def rescan(self, nqn: str, *, volume: str = "") -> None:
        del volume
        await self.steps.boundary("before rescan")
        self.rescans_until_seen -= 1
        if self.rescans_until_seen <= 0:
            found = self.connections[nqn]
            found.size = found.disk.size
            self._write_size(found)
        await self.steps.boundary("after rescan")

    def controllers_of(self, wanted: Callable[[str], bool]) -> list[Controller]:
        return [
            Controller(
                name=f"nvme{number}",
                nqn=each,
                hostnqn=HOST_NQN,
                state=self.states.get(each, "live"),
                address="10.0.0.1",
                port=4420,
                ctrl_loss_tmo="off",
                reconnect_delay="5",
            )
            for number, each in enumerate(self.connections)
            if wanted(each)
        ]

    def namespace_of(self, controllers: Iterable[Controller], nsid: int = 1) -> Namespace | None:
        assert nsid == 1
        found = [self.find(each.nqn) for each in controllers if not each.leaving]
        return next((each for each in found if each is not None), None)

    def owner(self, devno: DeviceNumber) -> str:
        return next((nqn for nqn, each in self.connections.items() if each.devno == devno), "")

    def owner_of_node(self, name: str) -> str:
        return next((nqn for nqn, each in self.connections.items() if each.name == name), "")

    def _plug(self, nqn: str) -> None:
        self._numbers += 1
        disk = self.rds[nqn]
        found = Connection(f"nvme{self._numbers}n1", (259, self._numbers), disk, disk.size)
        self.connections[nqn] = found
        (self.dev / found.name).touch()
        directory = self._block / f"259:{self._numbers}"
        directory.mkdir()
        (directory / "ro").write_text(f"{int(disk.write_protected)}\n")
        self._write_size(found)

    def unplug(self, nqn: str, *, orderly: bool = False) -> None:
        """The device goes away: disconnected, or given up by the kernel."""
        found = self.connections[nqn]
        if orderly:
            users = [entry.point for entry in self.table.entries if entry.devno == found.devno]
            nodes = [entry.point for entry in self._nodes(found)]
            assert not users + nodes, f"disconnected under {users + nodes}"
        del self.connections[nqn]
        self.table.unplug(str(self.dev / found.name))
        (self.dev / found.name).unlink()
        shutil.rmtree(self._directory(found))

    def _nodes(self, found: Connection) -> list[Entry]:
        return [
            entry
            for entry in self.table.entries
            if (entry.devno, entry.root) == (DEVTMPFS, f"/{found.name}")
        ]

    def _directory(self, found: Connection) -> Path:
        return self._block / f"{found.devno[0]}:{found.devno[1]}"

    def _write_size(self, found: Connection) -> None:
        (self._directory(found) / "size").write_text(f"{found.size // 512}\n")

    def connection(self, device: str) -> Connection:
        """What is behind a device node."""
        return next(each for each in self.connections.values() if each.name == Path(device).name)

    def _file_system(self, device: str) -> FileSystem | None:
        if not Path(device).exists():
            return None
        found = self.connection(device)
        return FileSystem(found.devno, found.disk.content, found.disk.content in FINISHED)

    # Programs

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the port of rds_csi.process
        volume: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        del timeout, environment
        words = tuple(args)
        if words[: len(devices._PROBE)] == devices._PROBE:
            words = ("probe", *words[len(devices._PROBE) :])
        self.calls.append(words)
        await self.steps.boundary(f"before {words[0]}")
        result = self.refusals.get(words[0]) or await self._program(words)
        await self.steps.boundary(f"after {words[0]}")
        if check and result.returncode:
            raise CommandFailed(
                f"{words[0]} failed: {result.stderr}",
                returncode=result.returncode,
                stderr=result.stderr,
                volume=volume,
            )
        return result

    async def _program(self, words: tuple[str, ...]) -> Result:
        match words:
            case ("mount", "-t", _, "-o", options, device, _):
                if options.startswith("rw"):
                    assert not self._mark(device), "mounted with the mark of a format"
                return self.table.run(words)
            case ("mount" | "umount", *_):
                return self.table.run(words)
            case ("probe", "run", device, devno, digest, *command):
                inspected = self._inspect(device, devno)
                if json.loads(inspected.stdout)["digest"] != digest:
                    return Result(probe.CHANGED, "", "the content has changed")
                return await self._mkfs(device, command)
        return self._quick_program(words)

    def _quick_program(self, words: tuple[str, ...]) -> Result:
        """Those that the driver gives a device as their last word."""
        last = words[-1]
        programs: dict[tuple[str, ...], Callable[[], Result]] = {
            ("blkid", "-p", "-o", "export"): lambda: self._blkid(self.connection(last).disk),
            ("blockdev", "--setro"): lambda: self._set_read_only(self.connection(last), True),
            ("blockdev", "--setrw"): lambda: self._set_read_only(self.connection(last), False),
            ("dumpe2fs", "-h"): lambda: self._dumpe2fs(self.connection(last)),
            ("resize2fs",): lambda: self._grow(self.connection(last)),
            ("xfs_growfs", "-n"): lambda: self._xfs_geometry(self._mounted(last)),
            ("xfs_growfs", "-d"): lambda: self._grow(self._mounted(last)),
            ("probe", "inspect", words[-2]): lambda: self._inspect(words[-2], last),
            ("probe", "claim", words[-2]): lambda: self._claim(words[-2]),
        }
        if words[:2] == ("stat", "--file-system"):
            return self.statfs
        return programs[words[:-1]]()

    @staticmethod
    def _blkid(disk: Disk) -> Result:
        if disk.content in ("blank", "half"):
            return Result(2, "", "")
        fs_type = disk.content.removeprefix("half ")
        return Result(0, f"UUID={disk.uuid}\nTYPE={fs_type}\nUSAGE=filesystem\n", "")

    def _inspect(self, device: str, devno: str) -> Result:
        found = self.connection(device)
        if devno != f"{found.devno[0]}:{found.devno[1]}":
            return Result(probe.CHANGED, "", "another device")
        if not found.disk.readable:
            return Result(probe.ERROR, "", "[Errno 5] Input/output error\n")
        answer = {
            "size": found.size,
            "data": None if found.disk.content == "blank" else 1024,
            "unfinished": found.disk.uuid if found.disk.content == "half xfs" else None,
            "digest": f"{found.size} {found.disk.content} {found.disk.uuid}",
        }
        return Result(0, json.dumps(answer), "")

    async def _mkfs(self, device: str, command: Sequence[str]) -> Result:
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
        nqn = next(nqn for nqn, each in self.connections.items() if each.name == Path(device).name)
        record = self.state / f"{nqn.rpartition(':')[2]}.json"
        found = json.loads(record.read_text())["formatting"] if record.exists() else ""
        assert isinstance(found, str)
        return found

    def _claim(self, device: str) -> Result:
        found = self.connection(device)
        mounted = any(entry.devno == found.devno for entry in self.table.entries)
        return Result(probe.HELD if mounted or found.name in self.claimed else 0, "", "")

    def _set_read_only(self, found: Connection, read_only: bool) -> Result:
        shown = int(read_only or found.disk.write_protected)
        (self._directory(found) / "ro").write_text(f"{shown}\n")
        return OK

    @staticmethod
    def _dumpe2fs(found: Connection) -> Result:
        blocks = found.disk.fs_size // 4096
        return Result(0, f"Block count:              {blocks}\nBlock size:   4096\n", "")

    def _mounted(self, point: str) -> Connection:
        mounted = self.table.at(point)[-1]
        return next(each for each in self.connections.values() if each.devno == mounted.devno)

    @staticmethod
    def _xfs_geometry(found: Connection) -> Result:
        blocks = found.disk.fs_size // 4096
        return Result(0, f"data     =              bsize=4096   blocks={blocks}, imaxpct=25\n", "")

    def _grow(self, found: Connection) -> Result:
        assert any(entry.devno == found.devno for entry in self.table.entries), "grown unmounted"
        found.disk.fs_size = found.size
        return OK

    # Questions of the tests

    def leaks(self) -> list[str]:
        """What is left on the node: nothing, when every volume was taken down."""
        files = [str(path) for path in self.kubelet.rglob("*") if not path.name.startswith("stage")]
        records = [str(path) for path in self.state.glob("*")] if self.state.exists() else []
        return [*self.table.points(), *self.connections, *files, *records]

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
        for connection in self._host.connections.values():
            if str(path) == str(self._host.dev / connection.name):
                return connection.devno
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
