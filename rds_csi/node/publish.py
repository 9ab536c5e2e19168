"""Publish and unpublish: showing a staged volume at a pod's path, and taking it away.

A directory is bind-mounted from the staging path. For a raw block volume the device's node is
bind-mounted onto an empty file: so the mount table shows every published path, nobody has to be
trusted for it, and it works where the kubelet's file system is mounted ``nodev``, on which a
node made with ``mknod`` could not be opened. The kubelet only wants to see a block device there.

A read-only bind does not stop writes to a device. A raw block volume is therefore made read-only
in the kernel (``BLKROSET``), which holds for the whole node: it is published read-only
everywhere on a node, or nowhere.
"""

import structlog

from rds_csi.errors import (
    CommandStuck,
    DriverError,
    FailedPrecondition,
    Internal,
    VolumeInUse,
    VolumeMismatch,
)
from rds_csi.filesystem import paths
from rds_csi.filesystem.attach import DeviceMounts
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mount, Mounts
from rds_csi.model.access import AccessMode
from rds_csi.model.block_device import Device
from rds_csi.node.connected import Front, Volumes, not_undone
from rds_csi.node.handover import Handovers
from rds_csi.node.layer import Layer
from rds_csi.node.ports import Initiator
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.wanted import Publish

log = structlog.get_logger(__name__)

_SEVERAL_TARGETS = frozenset(
    {
        AccessMode.SINGLE_NODE_MULTI_WRITER,
        AccessMode.MULTI_NODE_READER_ONLY,
        AccessMode.MULTI_NODE_SINGLE_WRITER,
        AccessMode.MULTI_NODE_MULTI_WRITER,
    }
)
"""Modes that allow more than one target on a node (CSI spec, NodePublishVolume, second table)."""


class Publisher:
    """Publishes and unpublishes staged volumes."""

    def __init__(
        self,
        *,
        initiator: Initiator,
        volumes: Volumes,
        mounts: Mounts,
        devices: BlockDevices,
        handovers: Handovers,
        layer: Layer,
        store: StagingStore,
    ) -> None:
        self._initiator = initiator
        self._volumes = volumes
        self._mounts = mounts
        self._devices = devices
        self._handovers = handovers
        self._layer = layer
        self._attach = DeviceMounts(mounts, devices)
        self._store = store

    async def publish(self, wanted: Publish) -> None:
        """Show the volume at the target. Changes nothing where that is so already.

        Raises :class:`FailedPrecondition` where it is not staged here, was staged under another
        generation, or the mode allows no second target; :class:`VolumeMismatch` where the target
        shows something else; :class:`Unavailable` while its map leads to no device.
        """
        nqn = wanted.target.nqn
        found = await self._store.read(wanted.volume)
        namespace = self._initiator.find(nqn)
        front = self._volumes.front(nqn, namespace, volume=wanted.volume)
        if front is None:
            if self._volumes.nqns(wanted.volume) or self._layer.any(wanted.volume):
                # Connected by the name of an older hand-over, perhaps.
                await self._handovers.require(wanted.volume, wanted.generation, found)
            raise FailedPrecondition("it is not staged: not connected", volume=wanted.volume)
        await self._layer.led(front, namespace, volume=wanted.volume)
        device = self._volumes.device(nqn, front)
        if wanted.block:
            self._require_block(wanted, device)
        else:
            self._require_mounted(wanted, front)
        await self._handovers.require(wanted.volume, wanted.generation, found)
        record = found or wanted.record()
        if await self._is_published(wanted, record, device):
            if record.target(wanted.path) != wanted.read_only:
                await self._store.write(record.with_target(wanted.path, wanted.read_only))
            return
        others = [mount for mount in self._published(wanted, device) if mount.point != wanted.path]
        if others and wanted.capability.mode not in _SEVERAL_TARGETS:
            raise FailedPrecondition(
                f"it is published at {others[0].point}, and {wanted.capability.mode.name} allows "
                "one target",
                volume=wanted.volume,
            )
        if wanted.block:
            await self._set_writable(wanted, device, others)
        await self._store.write(record.with_target(wanted.path, wanted.read_only))
        await self._show(wanted, device)

    def _require_mounted(self, wanted: Publish, front: Front) -> None:
        staged = self._mounts.at(wanted.staging_path)
        if not staged or staged[-1].devno != front.devno:
            raise FailedPrecondition(
                f"it is not staged: {wanted.staging_path} is "
                f"{'not a mount' if not staged else 'a mount of another device'}",
                volume=wanted.volume,
                advice="it has to be staged again",
            )
        if wanted.read_only:
            return
        if staged[-1].read_only:
            raise FailedPrecondition(
                "it is staged read-only and asked for writable", volume=wanted.volume
            )
        if staged[-1].file_system_read_only:
            raise FailedPrecondition(
                "the kernel made its file system read-only after an error",
                volume=wanted.volume,
                advice="see the node's kernel log; stop the pods that use it and check it",
            )

    def _require_block(self, wanted: Publish, device: Device) -> None:
        mounted = self._mounts.of_file_system(device.devno)
        if mounted:
            raise FailedPrecondition(
                f"it is staged as a file system at {mounted[0].point}", volume=wanted.volume
            )
        found = self._devices.number_of(device.path)
        if found != device.devno:
            raise Internal(
                f"{device.path} is device {found}, not {device.number}",
                volume=wanted.volume,
                advice="the node plugin must see the host's own /dev",
            )

    def _published(self, wanted: Publish, device: Device) -> list[Mount]:
        """Every place where the volume is seen, but the staging path."""
        if wanted.block:
            return self._mounts.of_node(device.path)
        found = self._mounts.of_file_system(device.devno)
        return [mount for mount in found if mount.point != wanted.staging_path]

    async def _is_published(self, wanted: Publish, record: StagedVolume, device: Device) -> bool:
        """Whether the target shows the volume as asked; clears away what is left of a dead one."""
        mounted = self._mounts.at(wanted.path)
        if not mounted:
            return wanted.block and self._is_node(wanted, device)
        mount = mounted[-1]
        if mount not in self._published(wanted, device) or not (wanted.block or mount.root == "/"):
            self._volumes.require_own(mounted, wanted.volume)
            dead = mount.root.endswith("//deleted") or not (
                wanted.block or self._devices.exists(mount.devno)
            )
            if not dead:
                raise VolumeMismatch(
                    f"{mount.source} is mounted at {wanted.path}", volume=wanted.volume
                )
            log.warning("unmounting a device that is gone", volume=wanted.volume, path=wanted.path)
            await self._mounts.unmount(wanted.path, volume=wanted.volume)
            return False
        if mount.read_only == wanted.read_only:
            return True
        if wanted.read_only and record.target(wanted.path):
            # An earlier call was interrupted between the bind and its becoming read-only.
            await self._mounts.make_read_only(mount, volume=wanted.volume)
            return True
        raise VolumeMismatch(
            f"it is published {'read-only' if mount.read_only else 'writable'} at {wanted.path}",
            volume=wanted.volume,
        )

    def _is_node(self, wanted: Publish, device: Device) -> bool:
        """Whether the target is a device node as the Go driver made them, of this very device."""
        if paths.kind(wanted.path) != "block":
            return False
        if self._devices.number_of(wanted.path) == device.devno:
            return True
        # Left from before a reboot: the number means another device now.
        paths.remove(wanted.path, volume=wanted.volume)
        return False

    async def _set_writable(self, wanted: Publish, device: Device, others: list[Mount]) -> None:
        if self._devices.read_only(device.devno) == wanted.read_only:
            return
        if others:
            raise VolumeInUse(
                f"it is published {'writable' if wanted.read_only else 'read-only'} at "
                f"{others[0].point}, and a raw block volume is one or the other for a whole node",
                volume=wanted.volume,
            )
        await self._devices.set_read_only(device, wanted.read_only, volume=wanted.volume)

    async def _show(self, wanted: Publish, device: Device) -> None:
        make = paths.make_file if wanted.block else paths.make_directory
        made = make(wanted.path, volume=wanted.volume)
        try:
            if wanted.block:
                await self._attach.bind(
                    device, wanted.path, read_only=wanted.read_only, volume=wanted.volume
                )
            else:
                await self._bind_staged(wanted, device)
        except CommandStuck:
            raise  # the stuck program may still mount it
        except Exception as error:
            await self._undo(wanted, error, made=made)
            raise

    async def _bind_staged(self, wanted: Publish, device: Device) -> None:
        mount = await self._mounts.bind(
            wanted.staging_path, wanted.path, read_only=wanted.read_only, volume=wanted.volume
        )
        if mount not in self._published(wanted, device):
            raise Internal(f"{wanted.path} shows {mount}", volume=wanted.volume)
        self._devices.prove(device, volume=wanted.volume)

    async def _undo(self, wanted: Publish, failure: Exception, *, made: bool) -> None:
        """Take back what a failed publish did; raises :class:`NotUndone` where that fails too."""
        try:
            await self._mounts.unmount(wanted.path, volume=wanted.volume)
            if made:
                paths.remove(wanted.path, volume=wanted.volume)
            await self._forget(wanted.volume, wanted.path)
        except (DriverError, OSError) as error:
            log.warning("publish not undone in full", volume=wanted.volume, error=str(error))
            raise not_undone(failure, error, wanted.volume) from error

    async def unpublish(self, volume: str, path: str) -> None:
        """Unmount the target and remove it; none is fine.

        Only an empty directory, an empty file or a device node is removed, and only once the
        mount table shows nothing there. So whatever fails, no content is ever deleted.
        """
        self._volumes.require_own(self._mounts.at(path), volume)
        await self._mounts.unmount(path, volume=volume)
        paths.remove(path, volume=volume)
        await self._forget(volume, path)

    async def _forget(self, volume: str, path: str) -> None:
        record = await self._store.read(volume)
        if record is not None and record.target(path) is not None:
            await self._store.write(record.without_target(path))
