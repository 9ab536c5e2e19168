"""A node whose volumes are staged over maps of the path layer, and what the healer sees of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rds_csi.errors import ConnectFailed, FailedPrecondition, OperationPending
from rds_csi.filesystem import probe
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.model.volume import MIB
from rds_csi.node.connected import Front, Volumes
from rds_csi.node.mender import Mender
from rds_csi.node.staging import StagedVolume
from rds_csi.node.ways import Seen, Sight, Way
from rds_csi.nvme.sysfs import Controller, Namespace
from rds_csi.pathlayer.maps import Map
from rds_csi.pathlayer.table import SECTOR
from rds_csi.runtime.process import Result
from tests.unit.fakes.device_mapper import FakeMap
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import HOST_NQN, Disk

VOLUME = "pvc-0123456789abcdef0123456789ab"
OTHER = "pvc-ffffffffffffffffffffffffffff"
UUID = "99999999-2222-4333-8444-555555555555"
SIZE = 64 * MIB
ADDRESS = "10.0.0.1"


def nqn(volume: str = VOLUME, generation: int = 1) -> str:
    return f"nqn.2000-02.com.mikrotik:{volume}" + (f".{generation}" if generation else "")


class MappedHost(FakeHost):
    """A :class:`FakeHost` with a device mapper, whose programs are steps like all others."""

    def __init__(self, root: Path, *, address: str = "") -> None:
        super().__init__(root)
        self.address = ADDRESS
        """Where the RDS answers."""
        self.at: dict[str, str] = {}
        """The addresses of connections, where they are not the RDS's present one."""
        self.attempts: list[str] = []
        ports = self.ports()
        self.maps, self.store = ports.maps, ports.store
        self.volumes = Volumes(self, self, self.maps, HOST_NQN)
        self.sight = Sight(
            maps=self.maps, store=self.store, subsystems=self, runner=self, host_nqn=HOST_NQN
        )
        self.mender = Mender(
            sight=self.sight,
            initiator=self,
            volumes=self.volumes,
            devices=ports.devices,
            maps=self.maps,
            address=address,
        )

    # A volume's life

    async def staged(self, volume: str = VOLUME, generation: int = 1, **record: Any) -> Map:
        """A volume with an ext4, connected, mapped and recorded."""
        name = nqn(volume, generation)
        if name not in self.rds:
            self.rds[name] = Disk(SIZE)
            self.rds[name].make("ext4", UUID)
        namespace = await self.connect_with_retry(
            Target((ADDRESS,), 4420, name), ConnectionConfig()
        )
        device = self.volumes.device(name, Front.bare(namespace))
        made = await self.maps.create(
            self.maps.identity(volume, generation), namespace.size, device
        )
        await self.record(volume, generation, **record)
        return made

    async def record(self, volume: str = VOLUME, generation: int = 1, **changes: Any) -> None:
        values: dict[str, Any] = {
            "volume": volume,
            "nqn": nqn(volume, generation),
            "address": ADDRESS,
            "port": 4420,
            "staging_path": f"/stage/{volume}",
            "fs_type": "ext4",
            "uuid": UUID,
            "generation": generation,
        }
        await self.store.write(StagedVolume(**(values | changes)))

    async def connected_again(self, volume: str = VOLUME, generation: int = 1) -> Namespace:
        """The connection alone."""
        target = Target((ADDRESS,), 4420, nqn(volume, generation))
        return await self.connect_with_retry(target, ConnectionConfig())

    def lose(self, volume: str = VOLUME, generation: int = 1) -> None:
        """The kernel gives the connection up."""
        self.unplug(nqn(volume, generation))

    async def found(self, volume: str = VOLUME) -> Map:
        found = self.maps.find(volume)
        assert found is not None
        return found

    async def seen(self, volume: str = VOLUME) -> Seen:
        found = await self.sight.at(volume)
        assert found is not None
        return found

    async def way(self, volume: str = VOLUME) -> Way:
        return self.mender.judge(await self.seen(volume))[0]

    def map(self, volume: str = VOLUME, generation: int = 1) -> FakeMap:
        found = self.mapper.by_uuid(self.maps.identity(volume, generation).uuid)
        assert found is not None
        return found

    def leads_home(self, volume: str = VOLUME, generation: int = 1) -> bool:
        """Whether the map leads to its volume's device, as the kernel sees it."""
        active = self.map(volume, generation).active
        found = self.connections.get(nqn(volume, generation))
        assert active is not None
        return found is not None and active.paths == [found.devno] and not active.lost

    def check(self) -> None:
        """No table that is loaded, or was, leads to another volume's device."""
        super().check()
        for each in self.mapper.maps.values():
            name = each.uuid.partition("-")[2].partition("-")[2]
            for table in (each.active, each.loaded):
                for path in table.paths if table is not None else ():
                    owner = self.owner(path)
                    assert not owner or owner.endswith(f":{name}"), f"{each.uuid} leads to {owner}"

    # The kernel

    def unplug(self, nqn: str, *, orderly: bool = False) -> None:
        super().unplug(nqn, orderly=orderly)
        self.at.pop(nqn, None)
        self.states.pop(nqn, None)
        self.without_namespace.discard(nqn)

    def hide(self, nqn: str) -> None:
        """The connection stays, and leads to no device any more."""
        self.without_namespace.add(nqn)
        self.mapper.lose(self.connections[nqn].devno)

    async def disconnect(self, nqn: str, *, volume: str = "") -> None:
        if nqn in self.without_namespace:
            await self.steps.boundary("before disconnect")
            if nqn in self.connections:
                self.unplug(nqn)
            await self.steps.boundary("after disconnect")
            return
        await super().disconnect(nqn, volume=volume)

    async def connect_once(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        self.attempts.append(target.nqn)
        if self.address not in target.addresses:
            raise ConnectFailed(f"nothing at {target.addresses}", volume=volume)
        return await self.connect_with_retry(target, config, volume=volume)

    async def give_up(self, nqn: str, *, volume: str = "") -> None:
        await self.steps.boundary("before give-up")
        if nqn in self.connections:
            if self.states.get(nqn, "live") == "live":
                raise FailedPrecondition("not given up: it is live", volume=volume)
            assert self.mapper.maps, "given up without a map that holds its I/O"
            self.unplug(nqn)
        await self.steps.boundary("after give-up")

    def controllers_of(self, wanted: Callable[[str], bool]) -> list[Controller]:
        return [
            Controller(
                name=each.name,
                nqn=each.nqn,
                hostnqn=each.hostnqn,
                state=each.state,
                address=self.at.get(each.nqn, self.address),
                port=4420,
            )
            for each in super().controllers_of(wanted)
        ]

    def _quick_program(self, words: tuple[str, ...]) -> Result:
        if words[:2] != ("probe", "superblock"):
            return super()._quick_program(words)
        if self._is_gone(words[-1]):  # given up while it was held open
            return Result(probe.ERROR, "", "[Errno 5] Input/output error\n")
        told = json.loads(self._inspect(self.connection(words[-1])).stdout or "null")
        return Result(0, json.dumps(told and told["superblock"]), "")


@dataclass(slots=True)
class Locks:
    """The locks of volumes: ``taken`` by RPCs, and what was done with which."""

    taken: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)

    async def __call__(
        self,
        volume: str,
        work: Callable[[], Awaitable[bool]],
        timeout: float,  # noqa: ASYNC109 - the port of rds_csi.node.healer
    ) -> bool:
        assert volume not in self.held, "two at once"
        if volume in self.taken:
            raise OperationPending("an RPC is at work", volume=volume)
        self.held.add(volume)
        try:
            async with asyncio.timeout(timeout):
                return await work()
        finally:
            self.held.discard(volume)
            self.done.append(volume)


def sectors(size: int) -> int:
    return size // SECTOR
