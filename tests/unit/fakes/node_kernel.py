"""A node's NVMe/TCP, what sysfs shows of it, and the RDS behind it.

It plays the kernel's trick as well: :meth:`FakeKernel.swap` gives a volume up, and its device's
name and number to another volume, unless a mount or an open descriptor still keeps them. Every act
is a step with a boundary before and after it; ``Steps`` ends the driver at any of them.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rds_csi.errors import CommandTimeout, ConnectFailed
from rds_csi.model.block_device import DeviceNumber
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.sysfs import Controller, Namespace
from tests.unit.fakes.device_mapper import FakeDeviceMapper, FakeMap
from tests.unit.fakes.mounts import DEVTMPFS, Entry, FakeMountTable, FileSystem
from tests.unit.fakes.sysfs import namespace_of

HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555"
FINISHED = ("ext4", "xfs")


class Killed(BaseException):
    """The driver was killed with -9 here: nothing of it runs any more."""


@dataclass(slots=True)
class Steps:
    """Counts boundaries, and ends the driver at number ``stop`` by ``how``, or calls ``then``."""

    stop: int = 0
    how: str = "kill"
    then: Callable[[], None] | None = None
    at: str = ""
    """The name of the boundary at which to stop, instead of its number."""
    passed: list[str] = field(default_factory=list)

    async def boundary(self, what: str) -> None:
        self.passed.append(what)
        if len(self.passed) != self.stop and what != self.at:
            return
        self.at = ""
        if self.then is not None:
            self.then()
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
    replay: bool = False
    """Its journal has to be replayed, as after a crash."""
    write_protected: bool = False

    def make(self, fs_type: str, uuid: str) -> None:
        self.content, self.uuid, self.fs_size = fs_type, uuid, self.size


@dataclass(slots=True)
class Connection:
    """A connected disk, as the kernel shows it."""

    number: int
    disk: Disk
    size: int

    @property
    def name(self) -> str:
        return f"nvme{self.number}n1"

    @property
    def devno(self) -> DeviceNumber:
        return 259, self.number


class FakeKernel:
    """Stands for ``Connector`` and ``Sysfs`` at once."""

    def __init__(self, root: Path) -> None:
        self.steps = Steps()
        self.dev = root / "dev"
        self.sys = root / "sys"
        self.multipath = True
        """Which of the kernel's two layouts sysfs has."""
        self._block = self.sys / "dev" / "block"
        for directory in (self.dev, self._block, self.sys / "block"):
            directory.mkdir(parents=True)
        self.mapper = FakeDeviceMapper(self.sys, self.dev, used=self._used)
        self.rds: dict[str, Disk] = {}
        self.connections: dict[str, Connection] = {}
        self.states: dict[str, str] = {}
        """What became of connections that are not live, by NQN."""
        self.more_paths: dict[str, dict[str, str]] = {}
        """States of connections to other addresses than the first, by NQN and address."""
        self.without_namespace: set[str] = set()
        """The NQNs whose connection leads to no device."""
        self.rescans_until_seen = 1
        self.asked_for_paths: list[Target] = []
        self.table = FakeMountTable(root / "mountinfo", dev=self.dev, file_system=self._file_system)
        self._numbers = 0
        self._held: set[int] = set()
        """The numbers of devices that are held open."""

    async def connect_with_retry(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        del config
        await self.steps.boundary("before connect")
        if target.nqn not in self.rds:
            raise ConnectFailed("connection refused", volume=volume)
        if target.nqn not in self.connections:
            self._plug(target.nqn)
        found = self.find(target.nqn)
        if found is None:
            raise ConnectFailed("its device did not appear", volume=volume)
        await self.steps.boundary("after connect")
        return found

    async def connect_missing(
        self,
        target: Target,
        config: ConnectionConfig,
        *,
        volume: str = "",
        confirm: Callable[[], Awaitable[bool]] | None = None,
    ) -> list[str]:
        """Remembers that it was asked; its RDS has one address that works."""
        del config, volume, confirm
        await self.steps.boundary("before missing paths")
        self.asked_for_paths.append(target)
        return []

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
            found = self.connections.get(nqn)
            if found is not None:
                found.size = found.disk.size
                self._write_size(found)
        await self.steps.boundary("after rescan")

    def controllers_of(self, wanted: Callable[[str], bool]) -> list[Controller]:
        return [
            Controller(
                name=f"nvme{number}{'' if address == '10.0.0.1' else '00'}",
                nqn=each,
                hostnqn=HOST_NQN,
                state=state,
                address=address,
                port=4420,
                ctrl_loss_tmo="off",
                reconnect_delay="5",
            )
            for number, each in enumerate(self.connections)
            if wanted(each)
            for address, state in {
                "10.0.0.1": self.states.get(each, "live"),
                **self.more_paths.get(each, {}),
            }.items()
        ]

    def namespace_of(self, controllers: Iterable[Controller], nsid: int = 1) -> Namespace | None:
        assert nsid == 1
        found = [self.find(each.nqn) for each in controllers if not each.leaving]
        return next((each for each in found if each is not None), None)

    def owner(self, devno: DeviceNumber) -> str:
        return next((nqn for nqn, each in self.connections.items() if each.devno == devno), "")

    def owner_of_node(self, name: str) -> str:
        return next((nqn for nqn, each in self.connections.items() if each.name == name), "")

    def _plug(self, nqn: str, number: int = 0) -> None:
        self._numbers += not number
        disk = self.rds[nqn]
        found = Connection(number or self._numbers, disk, disk.size)
        self.connections[nqn] = found
        (self.dev / found.name).touch()
        directory = namespace_of(
            self.sys, found.devno, nqn, HOST_NQN, name=found.name, multipath=self.multipath
        )
        (directory / "ro").write_text(f"{int(disk.write_protected)}\n")
        self._write_size(found)

    def swap(self, nqn: str, other: str) -> None:
        """The kernel gives a volume up and connects another, which gets what names are free."""
        found = self.connections.get(nqn)
        if found is None:
            return
        mounted = any(entry.devno == found.devno for entry in self.table.entries)
        kept = mounted or found.number in self._held or self.mapper.holds(found.devno)
        self.unplug(nqn)
        self._plug(other, 0 if kept else found.number)

    def unplug(self, nqn: str, *, orderly: bool = False) -> None:
        """The device goes away: disconnected, or given up by the kernel."""
        found = self.connections[nqn]
        if orderly:
            users = [entry.point for entry in self.table.entries if entry.devno == found.devno]
            nodes = [entry.point for entry in self._nodes(found)]
            assert not users + nodes, f"disconnected under {users + nodes}"
            assert not self.mapper.holds(found.devno), "disconnected under a map"
        del self.connections[nqn]
        self.table.unplug(str(self.dev / found.name))
        (self.dev / found.name).unlink()
        directory = self._directory(found)
        shutil.rmtree(directory.resolve().parent)
        directory.unlink()
        self.mapper.lose(found.devno)

    def _used(self, devno: DeviceNumber) -> bool:
        """Whether a mount or a program has a device or a map open."""
        return any(entry.devno == devno for entry in self.table.entries)

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

    @staticmethod
    def _is_gone(device: str) -> bool:
        return not Path(device).exists()

    def connection(self, device: str) -> Connection:
        """What is behind a device node; a program that asks a map without a path waits."""
        nqn = self._nqn(device)
        if not nqn:
            raise CommandTimeout(f"the program on {device} took too long and was killed")
        return self.connections[nqn]

    def _nqn(self, device: str) -> str:
        """The NQN behind a device node now, also through a map."""
        name = Path(device).name
        found = self.mapper.by_node(name)
        return self.nqn_of(
            found.devno
            if found is not None
            else next(each.devno for each in self.connections.values() if each.name == name)
        )

    def front_of(self, device: str) -> "FakeMap | Connection":
        """The map or the connection that a device node is of."""
        found = self.mapper.by_node(Path(device).name)
        return found if found is not None else self.connection(device)

    def nqn_of(self, devno: DeviceNumber) -> str:
        """The NQN of a device, also through a map; empty where that leads to none."""
        found = next((each for each in self.mapper.maps.values() if each.devno == devno), None)
        if found is not None:
            assert found.active is not None
            devnos = set(found.active.paths) - found.active.lost
        else:
            devnos = {devno}
        return next((nqn for nqn, each in self.connections.items() if each.devno in devnos), "")

    def _file_system(self, device: str) -> FileSystem | None:
        if not Path(device).exists():
            return None
        found = self.connection(device)
        devno = self.front_of(device).devno
        return FileSystem(devno, found.disk.content, found.disk.content in FINISHED)

    def set_read_only(self, nqn: str) -> None:
        """The kernel refuses writes to the device from now on."""
        (self._directory(self.connections[nqn]) / "ro").write_text("1\n")
