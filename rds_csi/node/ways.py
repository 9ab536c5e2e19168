"""Whether a volume's map has a way to its target, and what is to be done where it has none.

:func:`judge` is a pure rule over what was read of sysfs, device mapper and our records;
:class:`Sight` reads it. Nothing here touches a device.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from rds_csi.errors import CommandFailed
from rds_csi.model.block_device import DeviceNumber
from rds_csi.model.volume import read_nqn
from rds_csi.node.ports import Subsystems
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.nvme.sysfs import Controller
from rds_csi.pathlayer.events import statuses
from rds_csi.pathlayer.maps import Map, Maps
from rds_csi.pathlayer.table import Status
from rds_csi.runtime.process import Runner


class Way(Enum):
    """The way from a map to its volume."""

    WELL = "I/O flows"
    KERNEL = "the kernel tries to bring the connection back"
    MOVED = "the kernel tries where the target was"
    LOST = "nothing leads from the map to the volume any more"
    EMPTY = "connected, and no device behind the connection"
    BARRED = "not the healer's to bring back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of one map and its volume.

    ``controllers`` are this node's connections under the NQN on record, or without a record under
    the map's own volume and generation; ``devices`` the block devices that the live ones lead to.
    ``status`` is None where the kernel gives none that is a map's of ours. ``alone``: no other map
    is of this volume.
    """

    map: Map
    record: StagedVolume | None
    controllers: tuple[Controller, ...] = ()
    devices: frozenset[DeviceNumber] = frozenset()
    status: Status | None = None
    alone: bool = True

    @property
    def volume(self) -> str:
        """The volume's id."""
        return self.map.identity.volume

    @property
    def flows(self) -> bool:
        """Whether a path that works leads to a device of a live connection."""
        if self.map.suspended or self.status is None:
            return False
        return self.status.works(self.devices)


def judge(seen: Seen, addresses: Collection[str]) -> tuple[Way, str]:
    """The way, and in words why it is none. ``addresses``: where the volume is to be reached."""
    live = any(each.live for each in seen.controllers)
    if live and seen.flows:
        return Way.WELL, ""
    if why := barred(seen):
        return Way.BARRED, why
    if live and not seen.devices:
        return Way.EMPTY, "the RDS exports no disk under this name, or another than before"
    if live:
        return Way.LOST, "its connection is live, and its map does not use it"
    return _unconnected(seen.controllers, addresses)


def _unconnected(controllers: Sequence[Controller], addresses: Collection[str]) -> tuple[Way, str]:
    if not controllers:
        return Way.LOST, (
            "the kernel gave the NVMe connection up: ctrlLossTmo was over, the target said that it "
            "has no such export (Linux 6.10 and newer), or somebody disconnected it"
        )
    tried = ", ".join(f"{each.name} to {each.address} ({each.state})" for each in controllers)
    # One that the kernel takes down needs nobody's help to go.
    if any(each.leaving or each.address in addresses for each in controllers):
        return Way.KERNEL, tried
    return Way.MOVED, f"{tried}, and the RDS is at {', '.join(sorted(addresses))} now"


def barred(seen: Seen) -> str:
    """Why the volume is not the healer's to bring back; empty where it is.

    The export's name must tell this node from whoever held the volume before or after it: what
    waits in a map is old by the time it is written. Without a generation in the name a volume that
    was handed over meanwhile would take it.
    """
    record, identity = seen.record, seen.map.identity
    if not seen.alone:
        return f"the node has more than one map of it: {identity.uuid} is one of them"
    if record is None or not record.staged:
        return "the node has no staging record of it"
    name = read_nqn(record.nqn)
    if name is None or (name.volume, name.generation) != (identity.volume, identity.generation):
        return f"its staging record names {record.nqn}, and its map is {identity.uuid}"
    if not name.generation:
        return "its export's name has no generation, so another node may hold the volume by now"
    return _outdated(record)


def _outdated(record: StagedVolume) -> str:
    if record.superseded is not None:
        return f"it was handed over since: it is at generation {record.superseded} now"
    if record.fs_type and not record.uuid:
        return "its staging record does not say which file system is on it"
    return ""


def _named(nqn: str) -> tuple[str, int]:
    """The volume and the hand-over in an export's name; of no export of ours, what no map has."""
    name = read_nqn(nqn)
    return ("", 0) if name is None else (name.volume, name.generation)


class Sight:
    """Looks at maps, and at what belongs to them. ``host_nqn``: whose connections are ours."""

    def __init__(
        self,
        *,
        maps: Maps,
        store: StagingStore,
        subsystems: Subsystems,
        runner: Runner,
        host_nqn: str,
    ) -> None:
        self._maps = maps
        self._store = store
        self._subsystems = subsystems
        self._runner = runner
        self._host_nqn = host_nqn

    async def all(self) -> list[Seen]:
        """Every map of this cluster's volumes."""
        # The status first: what happens after it shows as a map without a way, is looked at
        # again under the volume's lock, and found well.
        if not await asyncio.to_thread(self._maps.all):
            return []
        told = await statuses(self._runner)
        records = {each.volume: each for each in await self._store.list()}
        return await asyncio.to_thread(self._seen, self._maps.all, records, told)

    async def at(self, volume: str) -> Seen | None:
        """The volume's map, of the highest generation if there are several; None for no map."""
        found = self._maps.find(volume)
        if found is None:
            return None
        told: dict[str, Status] = {}
        try:
            told[found.identity.uuid] = await self._maps.status(found)
        except CommandFailed:
            if self._maps.find(volume, found.identity.generation) is None:
                return None  # it goes away
            raise
        record = await self._store.read(volume)
        records = {} if record is None else {volume: record}
        seen = await asyncio.to_thread(self._seen, lambda: self._maps.of(volume), records, told)
        return max(seen, key=lambda each: each.map.identity.generation, default=None)

    def _seen(
        self,
        look: Callable[[], Iterable[Map]],
        records: dict[str, StagedVolume],
        told: dict[str, Status],
    ) -> list[Seen]:
        maps = list(look())
        volumes = [each.identity.volume for each in maps]
        nqns = {records[volume].nqn for volume in volumes if volume in records}
        # A map without a record is judged by the name in which it was made.
        identities = (each.identity for each in maps if each.identity.volume not in records)
        names = {(each.volume, each.generation) for each in identities}
        controllers: dict[str | tuple[str, int], list[Controller]] = {}
        for controller in self._subsystems.controllers_of(
            lambda nqn: nqn in nqns or (bool(names) and _named(nqn) in names)
        ):
            if controller.hostnqn == self._host_nqn:
                for key in (controller.nqn, _named(controller.nqn)):
                    controllers.setdefault(key, []).append(controller)
        found = []
        for each in maps:
            record, identity = records.get(each.identity.volume), each.identity
            name = record.nqn if record is not None else (identity.volume, identity.generation)
            ours = controllers.get(name, [])
            found.append(
                Seen(
                    map=each,
                    record=record,
                    controllers=tuple(ours),
                    devices=self._devices(ours),
                    status=told.get(identity.uuid),
                    alone=volumes.count(identity.volume) == 1,
                )
            )
        return found

    def _devices(self, controllers: Iterable[Controller]) -> frozenset[DeviceNumber]:
        namespace = self._subsystems.namespace_of([each for each in controllers if each.live])
        return frozenset() if namespace is None else frozenset({namespace.devno})
