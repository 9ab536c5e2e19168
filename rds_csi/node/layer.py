"""The map that stands between a volume's NVMe device and whoever uses it, at stage and unstage.

What a volume is used through, the kernel says: a map of its generation, or else the NVMe device.
So nothing is remembered of it, and a volume that was staged without a map goes on without one for
as long as it is in use.

A map that leads to no device lets its I/O wait. Nothing here begins what would wait with it, for
a program that does can be ended by nobody: it is refused instead, with what to do.
"""

from collections.abc import Sequence

import structlog

from rds_csi.errors import Unavailable, VolumeInUse
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mount
from rds_csi.node.connected import Front, Volumes
from rds_csi.node.uses import Uses
from rds_csi.node.wanted import Stage
from rds_csi.nvme.sysfs import Namespace
from rds_csi.pathlayer.maps import Map, Maps
from rds_csi.pathlayer.table import SECTOR

log = structlog.get_logger(__name__)


class Layer:
    """Makes, keeps and widens the maps of staged volumes."""

    def __init__(self, *, maps: Maps, volumes: Volumes, uses: Uses, devices: BlockDevices) -> None:
        self._maps = maps
        self._volumes = volumes
        self._uses = uses
        self._devices = devices

    async def ensure(self, wanted: Stage, namespace: Namespace) -> Front:
        """What the volume is to be used through, led to the namespace, which was just connected.

        A map that nobody uses is made anew, so that nothing of an earlier one counts. One that is
        used stays as it is. Raises :class:`NotReady` where this node cannot make maps,
        :class:`Unavailable` where the map in use leads elsewhere, :class:`VolumeInUse` where a
        former generation's is still used.
        """
        nqn, volume = wanted.target.nqn, wanted.volume
        bare = Front.bare(namespace)
        if self._uses.of([bare]):
            return bare  # staged before there were maps; it gets one when it is staged next
        identity = self._volumes.map_identity(nqn, volume)
        await self._uses.unmap(volume, but=identity.uuid)
        found = self._maps.find(volume, identity.generation)
        if found is not None and self._uses.of([Front.of_map(found)]):
            front = Front.of_map(found)
            await self.led(front, namespace, volume=volume)
            return front
        if found is not None:
            found = await self._cleared(nqn, found, namespace)
        if found is None and not wanted.path_layer:
            return bare
        device = self._volumes.device(nqn, bare)
        if not wanted.read_only:
            # A read-only publish without a map may have left it so.
            await self._devices.set_read_only(device, False, volume=volume)
        made = await self._maps.create(identity, namespace.size, device)
        if found is not None and not (await self._maps.table(made)).waits:
            await self._maps.queue(made)
        return Front.of_map(made)

    async def _cleared(self, nqn: str, found: Map, namespace: Namespace) -> Map | None:
        """Remove a map that is mounted nowhere; what it is now, where something has it open.

        That is a program of an earlier call, or a mount that is not seen from here. What of it
        waits goes on: to the device of the same volume and generation, which is proven.
        """
        try:
            await self._maps.remove(found)
        except VolumeInUse:
            leads = await self._leads(Front.of_map(found), namespace)
            if leads and found.size == namespace.size:
                return found
            device = self._volumes.device(nqn, Front.bare(namespace))
            return await self._maps.reload(found, device, namespace.size // SECTOR)
        return None

    def any(self, volume: str) -> bool:
        """Whether the volume has a map here, of whichever generation."""
        return bool(self._maps.of(volume))

    async def stands(self, wanted: Stage, front: Front, namespace: Namespace | None) -> bool:
        """Whether a raw block volume that is staged needs nothing done for its map."""
        if front.map is not None:
            return await self._leads(front, namespace)
        return not wanted.path_layer or bool(self._uses.of([front]))

    async def led(self, front: Front, namespace: Namespace | None, *, volume: str) -> Namespace:
        """The namespace, if the front leads to it and nothing else; else :class:`Unavailable`."""
        if namespace is None or not await self._leads(front, namespace):
            raise _waiting(front, volume)
        return namespace

    async def _leads(self, front: Front, namespace: Namespace | None) -> bool:
        """Whether it is the namespace, or its map's table in use leads there and nowhere else.

        sysfs alone does not tell: it shows the devices of a table, too, that somebody who was
        killed has loaded and not swapped in.
        """
        if namespace is None or not front.leads_to(namespace):
            return False
        if front.map is None:
            return True
        return (await self._maps.table(front.map)).paths == (namespace.devno,)

    async def require_ending(self, mounted: Sequence[Mount], *, volume: str) -> None:
        """Raise :class:`Unavailable` where an unmount would wait for a device without end.

        It would for a map without a path, unless that was told to let I/O fail.
        """
        for found in self._maps.of(volume):
            if not any(mount.devno == found.devno for mount in mounted):
                continue
            works = bool(found.paths) and (await self._maps.status(found)).works(found.paths)
            if not works and (await self._maps.table(found)).waits:
                raise _waiting(Front.of_map(found), volume)

    async def widened(self, nqn: str, front: Front, namespace: Namespace, *, volume: str) -> Front:
        """The front at the size that the namespace has by now."""
        if front.map is None:
            return Front.bare(namespace)
        if namespace.size <= front.size:
            return front
        await self.led(front, namespace, volume=volume)
        device = self._volumes.device(nqn, Front.bare(namespace))
        log.info("widening a map", volume=volume, size=namespace.size, was=front.size)
        wide = await self._maps.reload(front.map, device, namespace.size // SECTOR)
        return Front.of_map(wide)


def _waiting(front: Front, volume: str) -> Unavailable:
    if front.map is None:
        return Unavailable(f"{front.device} is not its device any more", volume=volume)
    return Unavailable(
        f"its I/O waits: the kernel gave its device up, and its map {front.device} leads to none",
        volume=volume,
        advice="it is brought back by itself when its RDS answers; nothing was changed. If that is "
        f"gone for good: `rds-csi release {volume} --yes` in the node plugin ends the waiting with "
        "I/O errors, and what was not written yet is lost",
    )
