"""Measuring and growing a volume that is staged or published on this node."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import structlog

from rds_csi.errors import (
    CommandFailed,
    CommandStuck,
    CommandTimeout,
    DriverError,
    FailedPrecondition,
    Internal,
    NotGrown,
    PathNotFound,
    SizeOutOfRange,
    Unavailable,
)
from rds_csi.filesystem import paths
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.grow import Grower
from rds_csi.filesystem.mounts import Mount, Mounts, MountTable
from rds_csi.filesystem.usage import Usage, usage
from rds_csi.model.block_device import Device
from rds_csi.model.volume import CapacityRange
from rds_csi.node.connected import Front, Volumes
from rds_csi.node.handover import RESTART
from rds_csi.node.layer import Layer
from rds_csi.node.look import Look
from rds_csi.node.ports import Initiator
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.nvme.sysfs import Namespace
from rds_csi.runtime.causes import noting
from rds_csi.runtime.process import Runner

log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 20
_PAUSE: Final = 1.0
"""Seconds between two looks at a size that has to grow; each look asks the target again."""
_RETURN: Final = 30
"""Seconds for a volume to be exported anew, and to be back under its map."""


class Inspector:
    """Answers how full a volume is, and makes it as large as its device."""

    def __init__(
        self,
        *,
        runner: Runner,
        initiator: Initiator,
        volumes: Volumes,
        mounts: Mounts,
        devices: BlockDevices,
        grower: Grower,
        layer: Layer,
        store: StagingStore,
        mend: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._runner = runner
        self._initiator = initiator
        self._volumes = volumes
        self._mounts = mounts
        self._devices = devices
        self._grower = grower
        self._layer = layer
        self._store = store
        self._mend = mend

    async def stats(self, look: Look, volume: str, path: str) -> Usage | int:
        """The usage of the file system at ``path``, or the size in bytes of the device there.

        Raises :class:`PathNotFound` where the volume is not at that path, :class:`Unavailable`
        where it was, but its device is gone. Never waits for a device for more than a few
        seconds.
        """
        if look.front is None:
            mounted = look.mounts.at(path)
            if mounted and not self._devices.exists(mounted[-1].devno):
                raise Unavailable(
                    f"the device mounted at {path} is gone",
                    volume=volume,
                    advice="the kernel gave the connection up; restart the pods that use it",
                )
            raise PathNotFound(f"it is not at {path}: not connected", volume=volume)
        shown = self.shown(look.mounts, path, look.front)
        if shown == "file system":
            return await usage(self._runner, path, volume=volume)
        if shown == "device":
            return look.front.size
        raise PathNotFound(f"it is not at {path}", volume=volume)

    async def expand(self, volume: str, path: str, capacity: CapacityRange, *, block: bool) -> int:
        """Bring the device, and a file system on it, to the size the volume has on the RDS.

        Returns the size of the device in bytes. ``block``: the caller says that the volume has
        no file system; the kubelet then names a directory of its own as the path. Raises
        :class:`PathNotFound`, :class:`NotGrown` where the volume keeps its old size for now,
        :class:`Unavailable` where its device is gone, :class:`SizeOutOfRange` where it is larger
        than the range allows, and :class:`FailedPrecondition` where it is known to be staged under
        an older generation.
        """
        nqn, namespace, front = self._found(volume)
        self._require_here(volume, path, front, block=block)
        record = await self._store.read(volume)
        _require_current(record, volume)
        if front is not None and front.map is not None:
            await self._returned(volume, capacity.required)
            nqn, namespace, front = self._found(volume)
        if front is None:
            raise NotGrown("it went away meanwhile", volume=volume)
        namespace = await self._led(front, namespace, volume)
        before = namespace.devno
        try:
            namespace = await self._grown(nqn, capacity.required, volume)
        except Unavailable as error:
            if front.map is None:
                raise
            raise NotGrown(error.what, volume=volume, advice=error.advice) from error
        if namespace.devno != before:
            raise Unavailable(
                "its device was given up and came back under another number",
                volume=volume,
                advice="restart the pods that use it; they still have the former one mounted",
            )
        front = await self._layer.widened(nqn, front, namespace, volume=volume)
        in_use = self._mounts.of_file_system(front.devno)
        if capacity.limit and front.size > capacity.limit:
            raise SizeOutOfRange(
                f"it has {front.size} bytes, above limit_bytes {capacity.limit}", volume=volume
            )
        writable = [
            mount for mount in in_use if not mount.read_only and not mount.file_system_read_only
        ]
        device = self._volumes.device(nqn, front)
        if writable:
            # Through the staging mount, if that is one: a published one may be of a directory.
            await self._grow_file_system(device, writable[0], record, volume)
        self._devices.prove(device, volume=volume)
        return front.size

    def _require_here(self, volume: str, path: str, front: Front | None, *, block: bool) -> None:
        if front is None:
            raise PathNotFound("it is not connected to this node", volume=volume)
        table = self._mounts.look()
        mounts = table.of_file_system(front.devno)
        unmounted = block and not mounts and paths.kind(path) != "absent"
        if not self.shown(table, path, front) and not unmounted:
            raise PathNotFound(f"it is not at {path}", volume=volume)

    def _found(self, volume: str) -> tuple[str, Namespace | None, Front | None]:
        nqn, namespace = self._volumes.find(volume) or ("", None)
        return nqn, namespace, self._volumes.front(nqn, namespace, volume=volume)

    async def _returned(self, volume: str, required: int) -> None:
        """Wait for the volume to be exported anew, larger, and under its map again.

        That is how a target grows a volume in use whose exports never change their size. Whatever
        does not come of it in time, what follows finds; its I/O waits meanwhile.
        """
        for attempt in range(_RETURN):
            if attempt:
                with noting(f"it was not back with {required} bytes"):
                    await asyncio.sleep(1)
            try:
                await self._mend(volume)
                nqn, namespace, _ = self._found(volume)
                if namespace is not None:
                    await self._initiator.rescan(nqn, volume=volume)
            except CommandStuck:
                raise
            except FailedPrecondition as error:
                raise NotGrown(error.what, volume=volume, advice=error.advice) from error
            except DriverError as error:
                log.info("not back yet", volume=volume, error=error.what)
                continue
            _, namespace, front = self._found(volume)
            if (
                namespace is not None
                and front is not None
                and front.leads_to(namespace)
                and namespace.size >= required
            ):
                return

    async def _led(self, front: Front, namespace: Namespace | None, volume: str) -> Namespace:
        """The namespace; :class:`NotGrown` while the volume's map does not lead to it."""
        try:
            return await self._layer.led(front, namespace, volume=volume)
        except Unavailable as error:
            raise NotGrown(error.what, volume=volume, advice=error.advice) from error

    async def _grow_file_system(
        self, device: Device, mount: Mount, record: StagedVolume | None, volume: str
    ) -> None:
        """Grow it, and keep in the record why it could not be: that is what health tells."""
        failure: Internal | CommandTimeout | None = None
        try:
            await self._grower.grow(device, mount, volume=volume)
        except (Internal, CommandTimeout) as error:
            failure = error
        ungrown = failure.what if failure is not None else ""
        if record is not None and record.ungrown != ungrown:
            await self._store.write(replace(record, ungrown=ungrown))
        if failure is not None:
            raise NotGrown(failure.what, volume=volume, advice=failure.advice) from failure

    def shown(self, table: MountTable, path: str, front: Front) -> str:
        """What of the volume is at the path: ``file system``, ``device``, or nothing."""
        mounted = table.at(path)
        if mounted and mounted[-1].devno == front.devno:
            return "file system"
        if mounted and mounted[-1] in table.of_node(front.device):
            return "device"
        if (
            not mounted
            and paths.kind(path) == "block"
            and self._devices.number_of(path) == front.devno
        ):
            return "device"
        return ""

    async def _grown(self, nqn: str, required: int, volume: str) -> Namespace:
        """The namespace once it has the size required; :class:`NotGrown` if it stays as it is.

        Linux's target before 5.8 fixes a namespace's size when it is exported: then this
        connection never sees the new one, and the next stage after an unstage does.
        """
        size, problem = 0, ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                with noting(f"its device still had {size} bytes instead of {required}"):
                    await asyncio.sleep(_PAUSE)
            try:
                await self._initiator.rescan(nqn, volume=volume)
            except (CommandFailed, CommandTimeout) as error:
                problem = f": {error.what}"
            namespace = self._initiator.find(nqn)
            if namespace is None:
                raise Unavailable("its device is gone", volume=volume)
            size = namespace.size
            if size >= required:
                return namespace
            if problem:
                break
        raise NotGrown(
            f"its device still has {size} bytes instead of {required}{problem}",
            volume=volume,
            advice="it works at its old size; the new one is seen when its pods have been stopped "
            "and it is connected anew",
        )


def _require_current(record: StagedVolume | None, volume: str) -> None:
    if record is not None and record.superseded is not None:
        raise FailedPrecondition(
            f"it is not grown: it is mounted since generation {record.generation} of its "
            f"hand-overs, and at {record.superseded} now",
            volume=volume,
            advice=RESTART,
        )
