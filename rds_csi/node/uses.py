"""What on this node uses a volume, and taking its map and connections down once nothing does."""

from collections.abc import Iterable

from rds_csi.errors import Internal, VolumeInUse
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mounts
from rds_csi.node.connected import Front, Volumes
from rds_csi.node.ports import Initiator
from rds_csi.pathlayer.maps import Maps


class Uses:
    """Asks the mount table and the kernel; remembers nothing."""

    def __init__(
        self,
        *,
        initiator: Initiator,
        volumes: Volumes,
        maps: Maps,
        mounts: Mounts,
        devices: BlockDevices,
    ) -> None:
        self._initiator = initiator
        self._volumes = volumes
        self._maps = maps
        self._mounts = mounts
        self._devices = devices

    def places(self, volume: str, nqns: Iterable[str] = ()) -> list[str]:
        """Where its present devices and maps are mounted or published, as far as is seen here.

        Its devices are those of its connections and of ``nqns``.
        """
        found = (self._initiator.find(nqn) for nqn in self._volumes.nqns(volume).union(nqns))
        bare = [Front.bare(namespace) for namespace in found if namespace is not None]
        return self.of([*bare, *map(Front.of_map, self._maps.of(volume))])

    def of(self, fronts: Iterable[Front]) -> list[str]:
        """Where these are mounted, as file systems or as device nodes; sorted."""
        table = self._mounts.look()
        points = set()
        for found in fronts:
            points |= {mount.point for mount in table.of_file_system(found.devno)}
            points |= {mount.point for mount in table.of_node(found.device)}
        return sorted(points)

    async def unmap(self, volume: str, *, but: str = "") -> None:
        """Remove its maps, except the one of the dm UUID ``but``, over whatever they are.

        Returns when they are proven gone. Raises as :meth:`disconnect` does.
        """
        for found in self._maps.of(volume):
            if found.identity.uuid == but:
                continue
            self._require_unused(Front.of_map(found), volume)
            await self._maps.remove(found)

    async def disconnect(self, volume: str, nqns: Iterable[str]) -> None:
        """Take its maps and these connections down; returns when they are proven gone.

        Raises :class:`VolumeInUse` where something here still shows a device, or the kernel says
        that something out of sight holds it.
        """
        names = sorted(nqns)
        await self.unmap(volume)
        for nqn in names:
            if (found := self._initiator.find(nqn)) is None:
                continue
            front = Front.bare(found)
            self._require_unused(front, volume)
            device = self._volumes.device(nqn, front)
            await self._devices.require_unclaimed(device, volume=volume)
        for nqn in names:
            await self._initiator.disconnect(nqn, volume=volume)
        left = self._volumes.nqns(volume).intersection(names)
        if left:
            raise Internal(f"still connected: {', '.join(sorted(left))}", volume=volume)

    def _require_unused(self, front: Front, volume: str) -> None:
        if places := self.of([front]):
            raise VolumeInUse(
                f"it is still mounted at {', '.join(places[:5])}",
                volume=volume,
                advice="unmount it there first",
            )
