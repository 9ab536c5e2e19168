"""One look at a volume: connections, namespace and mount table, read once and off the event loop.

The kubelet asks for every volume every minute. With 200 volumes and thousands of mounts even one
look takes some milliseconds, and dozens may be asked for at once: so they are taken in a thread,
one at a time, and everything else goes on meanwhile. What is decided by a look is only what to
answer, so the mount table may be the one of the last look while nothing was mounted or unmounted
since (:mod:`rds_csi.filesystem.kept`). Whoever acts on a device looks again.
"""

import asyncio
from dataclasses import dataclass

from rds_csi.filesystem.mounts import Mounts, MountTable
from rds_csi.node.connected import Front, Volumes
from rds_csi.nvme.sysfs import Controller, Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the kernel showed of a volume at one moment: this node's connections to it.

    ``front`` is what its mounts show: its map, wherever that leads, or else the namespace.
    """

    controllers: tuple[Controller, ...]
    namespace: Namespace | None
    front: Front | None
    mounts: MountTable


class Looks:
    """Takes them. Make it and use it on one event loop."""

    def __init__(self, volumes: Volumes, mounts: Mounts) -> None:
        self._volumes = volumes
        self._mounts = mounts
        self._one = asyncio.Lock()

    async def at(self, volume: str) -> Look:
        """A look that begins after this was called."""
        async with self._one:
            return await asyncio.to_thread(self._look, volume)

    async def all_controllers(self) -> list[Controller]:
        """The connections to volumes that this node made, in whatever state."""
        async with self._one:
            return await asyncio.to_thread(self._volumes.all_controllers)

    def _look(self, volume: str) -> Look:
        controllers = self._volumes.controllers(volume)
        nqn, namespace = self._volumes.namespace(controllers)
        return Look(
            controllers=tuple(controllers),
            namespace=namespace,
            front=self._volumes.front(nqn, namespace, volume=volume),
            mounts=self._mounts.lately(),
        )
