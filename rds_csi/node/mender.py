"""Brings one volume back under its map: connect, prove, lead the map there.

Called with the volume's lock held, so nothing of the driver stages, grows or unstages the volume
meanwhile. What was seen before the lock was had counts for nothing here: all is looked at again.
Each step finds in the kernel what an interrupted one left: a connection that stands is used, a
table that was loaded and never swapped in is loaded anew.

Nothing is formatted, mounted or unmounted here. What is not proven to be what the map led to
before stays outside, and the map goes on waiting: the NQN with its generation, this node's host
NQN, at least as many bytes, and the file system's own UUID, read past the cache from the very
device.
"""

from collections.abc import Collection
from typing import Final

import structlog

from rds_csi.errors import FailedPrecondition, InvalidRequest
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.model.block_device import Device
from rds_csi.model.contexts import ADDRESS_KEY, NQN_KEY, PORT_KEY, Target
from rds_csi.node.connected import Front, Volumes
from rds_csi.node.ports import Reconnector
from rds_csi.node.staging import StagedVolume
from rds_csi.node.ways import Seen, Sight, Way, judge
from rds_csi.nvme.sysfs import Namespace
from rds_csi.pathlayer.maps import Map, Maps
from rds_csi.pathlayer.table import SECTOR

log = structlog.get_logger(__name__)

_FAMILIES: Final = {"ext4": "ext", "xfs": "xfs"}
RELEASE: Final = (
    "its I/O waits and nothing is lost yet; if the RDS will never have it again: `rds-csi release "
    "VOLUME` in the node plugin ends the waiting with errors"
)


class Mender:
    """Brings volumes back. ``address``: where this node's settings say that the RDS is, or empty.

    A StorageClass that names an address of its own is believed more than that.
    """

    def __init__(
        self,
        *,
        sight: Sight,
        initiator: Reconnector,
        volumes: Volumes,
        devices: BlockDevices,
        maps: Maps,
        address: str = "",
    ) -> None:
        self._sight = sight
        self._initiator = initiator
        self._volumes = volumes
        self._devices = devices
        self._maps = maps
        self._address = address

    def judge(self, seen: Seen) -> tuple[Way, str]:
        """:func:`rds_csi.node.ways.judge`, with the addresses at which the volume is now."""
        return judge(seen, self.addresses(seen.record))

    def addresses(self, record: StagedVolume | None) -> Collection[str]:
        """The addresses at which a staged volume is to be reached; none by a broken record."""
        try:
            return self.target(record).addresses if record is not None else ()
        except InvalidRequest:
            return ()  # the attempt says what is wrong with it

    def target(self, record: StagedVolume) -> Target:
        """Where the volume is exported now; :class:`InvalidParameter` for a broken record."""
        theirs = record.pinned or not self._address
        told = {
            ADDRESS_KEY: record.address if theirs else self._address,
            PORT_KEY: str(record.port),
            NQN_KEY: record.nqn,
        }
        return Target.from_contexts(told, {})

    async def mend(self, volume: str) -> bool:
        """Lead the volume's map to the volume again, if nothing leads there; whether it was done.

        Raises :class:`FailedPrecondition` for what must not be brought back, whatever the
        connection raises, and :class:`Unavailable` where the device was lost again meanwhile. The
        map then waits as before.
        """
        seen = await self._sight.at(volume)
        if seen is None:
            return False
        way, why = self.judge(seen)
        if way in (Way.WELL, Way.KERNEL):
            return False
        if way is Way.BARRED or seen.record is None:
            raise FailedPrecondition(f"not brought back: {why}", volume=volume, advice=RELEASE)
        if not (await self._maps.table(seen.map)).waits:
            raise FailedPrecondition(
                "it was released: its I/O fails, and what was written last is lost",
                volume=volume,
                advice="stop the pods that use it; it is connected anew when they start again",
            )
        namespace = await self._connected(way, seen.record)
        device = self._volumes.device(seen.record.nqn, Front.bare(namespace))
        _require_size(namespace, seen.map)
        await self._require_same_file_system(device, seen.record)
        await self._maps.reload(seen.map, device, namespace.size // SECTOR)
        log.warning(
            "volume brought back",
            volume=volume,
            map=seen.map.identity.uuid,
            device=device.number,
            size=namespace.size,
            was=way.name.lower(),
        )
        return True

    async def _connected(self, way: Way, record: StagedVolume) -> Namespace:
        volume, target = record.volume, self.target(record)
        if way is Way.MOVED:
            # The map holds what the kernel gives back when it lets go of the old address.
            await self._initiator.give_up(record.nqn, volume=volume)
        elif way is Way.EMPTY:
            # Only a connection made anew takes a namespace whose identifiers have changed.
            await self._initiator.disconnect(record.nqn, volume=volume)
        return await self._initiator.connect_once(target, record.config, volume=volume)

    async def _require_same_file_system(self, device: Device, record: StagedVolume) -> None:
        if not record.fs_type:
            return
        found = await self._devices.superblock(device, volume=record.volume)
        wanted = (_FAMILIES.get(record.fs_type, record.fs_type), record.uuid, True)
        if found is not None and (found.family, found.uuid, found.finished) == wanted:
            return
        shown = f"{found.family} with the UUID {found.uuid}" if found is not None else "neither"
        raise FailedPrecondition(
            f"not brought back: {device.path} holds {shown}, and the {record.fs_type} that is "
            f"mounted has the UUID {record.uuid}",
            volume=record.volume,
            advice=f"the RDS exports another content under its name; {RELEASE}",
        )


def _require_size(namespace: Namespace, found: Map) -> None:
    if namespace.size < found.size:
        raise FailedPrecondition(
            f"not brought back: {namespace.device} has {namespace.size} bytes, fewer than the "
            f"{found.size} of its map",
            volume=found.identity.volume,
            advice=f"the RDS exports another file under its name; {RELEASE}",
        )
