"""What on this node uses a volume, and taking its connections down once nothing does."""

from collections.abc import Iterable

from rds_csi.errors import Internal, VolumeInUse
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mounts
from rds_csi.node.connected import Volumes
from rds_csi.node.ports import Initiator
from rds_csi.nvme.sysfs import Namespace


class Uses:
    """Asks the mount table and the kernel; remembers nothing."""

    def __init__(
        self, *, initiator: Initiator, volumes: Volumes, mounts: Mounts, devices: BlockDevices
    ) -> None:
        self._initiator = initiator
        self._volumes = volumes
        self._mounts = mounts
        self._devices = devices

    def places(self, volume: str) -> list[str]:
        """Where its present devices are mounted or published, as far as it can be seen here."""
        found = (self._initiator.find(nqn) for nqn in self._volumes.nqns(volume))
        return self.of(namespace for namespace in found if namespace is not None)

    def of(self, namespaces: Iterable[Namespace]) -> list[str]:
        """Where these devices are mounted, as file systems or as device nodes; sorted."""
        table = self._mounts.look()
        points = set()
        for found in namespaces:
            points |= {mount.point for mount in table.of_file_system(found.devno)}
            points |= {mount.point for mount in table.of_node(found.device)}
        return sorted(points)

    async def disconnect(self, volume: str, nqns: Iterable[str]) -> None:
        """Take the connections down; returns when they are proven gone.

        Raises :class:`VolumeInUse` where something here still shows a device, or the kernel says
        that something out of sight holds it.
        """
        names = sorted(nqns)
        for nqn in names:
            if (found := self._initiator.find(nqn)) is None:
                continue
            if places := self.of([found]):
                raise VolumeInUse(
                    f"it is still mounted at {', '.join(places[:5])}",
                    volume=volume,
                    advice="unmount it there first",
                )
            device = self._volumes.device(nqn, found)
            await self._devices.require_unclaimed(device, volume=volume)
        for nqn in names:
            await self._initiator.disconnect(nqn, volume=volume)
        left = self._volumes.nqns(volume).intersection(names)
        if left:
            raise Internal(f"still connected: {', '.join(sorted(left))}", volume=volume)
