"""Stage and unstage: a volume's connection and its first mount on this node.

The order of the steps is what makes an interruption at any of them harmless. Stage: see that
nothing of an older hand-over is used, connect, map,
examine, mark, format, remove the mark, mount, grow. Unstage: see that nobody uses it, unmount,
remove the map, see that nothing holds the device, disconnect, forget. A repeated call finds in
the kernel what was done and goes on from there.

A raw block volume has nothing at its staging path: it is staged by being connected and mapped.
"""

from dataclasses import asdict, replace

import structlog

from rds_csi.errors import (
    CommandStuck,
    DriverError,
    FailedPrecondition,
    VolumeInUse,
    VolumeMismatch,
)
from rds_csi.filesystem.attach import DeviceMounts
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mount, Mounts
from rds_csi.filesystem.options import mount_options
from rds_csi.filesystem.paths import kind
from rds_csi.node.connected import Front, Volumes, belongs, not_undone
from rds_csi.node.contents import Contents
from rds_csi.node.handover import Handovers
from rds_csi.node.layer import Layer
from rds_csi.node.ports import Initiator
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.uses import Uses
from rds_csi.node.wanted import Stage
from rds_csi.nvme.sysfs import Namespace

log = structlog.get_logger(__name__)


class Stager:
    """Stages and unstages volumes."""

    def __init__(
        self,
        *,
        initiator: Initiator,
        volumes: Volumes,
        mounts: Mounts,
        devices: BlockDevices,
        contents: Contents,
        handovers: Handovers,
        uses: Uses,
        layer: Layer,
        store: StagingStore,
    ) -> None:
        self._initiator = initiator
        self._volumes = volumes
        self._mounts = mounts
        self._devices = devices
        self._contents = contents
        self._attach = DeviceMounts(mounts, devices)
        self._handovers = handovers
        self._uses = uses
        self._layer = layer
        self._store = store

    async def stage(self, wanted: Stage) -> None:
        """Connect the volume and, if it has a file system, mount it at the staging path.

        Changes nothing where that is so already. A failure undoes what this call did, and only
        that; a cancelled call leaves all as it is, for the repeated one to find.
        """
        before = await self._store.read(wanted.volume)
        await self._handovers.begin(wanted.volume, wanted.generation, before)
        namespace = self._initiator.find(wanted.target.nqn)
        front = self._front(wanted, namespace)
        if front is not None:
            self._require_same_use(wanted, before, front)
        if await self._is_staged(wanted, before, front, namespace):
            await self._remember(wanted, before)
            if len(wanted.target.addresses) > 1:
                await self._initiator.connect_missing(
                    wanted.target, wanted.config, volume=wanted.volume
                )
            await self._grow_again(wanted, before, front, namespace)
            return
        self._require_xfs_unmounted(wanted, before)
        was_connected = wanted.target.nqn in self._volumes.nqns(wanted.volume)
        was_mapped = self._layer.any(wanted.volume)
        log.info(
            "connecting", volume=wanted.volume, **asdict(wanted.target), **asdict(wanted.config)
        )
        try:
            connected = await self._initiator.connect_with_retry(
                wanted.target, wanted.config, volume=wanted.volume
            )
            connected = await self._sized(wanted, connected, was_connected=was_connected)
            front = await self._layer.ensure(wanted, connected)
            if wanted.capability.access_type == "mount":
                await self._mount(wanted, before, front)
            else:
                await self._write(wanted.record(before), before)
        except CommandStuck:
            raise  # something still works on the device: not ours to pull away
        except Exception as error:
            await self._undo(
                wanted, before, error, was_connected=was_connected, was_mapped=was_mapped
            )
            raise

    def _front(self, wanted: Stage, namespace: Namespace | None) -> Front | None:
        return self._volumes.front(wanted.target.nqn, namespace, volume=wanted.volume)

    def _require_same_use(self, wanted: Stage, before: StagedVolume | None, front: Front) -> None:
        """Raise :class:`VolumeMismatch` if the volume is in use here in another way."""
        block = wanted.capability.access_type == "block"
        others = (
            self._mounts.of_file_system(front.devno)
            if block
            else self._mounts.of_node(front.device)
        )
        if others:
            raise VolumeMismatch(
                f"it is in use as a {'file system' if block else 'raw block volume'} at "
                f"{others[0].point}",
                volume=wanted.volume,
            )
        if block or before is None or before.staging_path in ("", wanted.path):
            return
        if any(mount.devno == front.devno for mount in self._mounts.at(before.staging_path)):
            raise VolumeMismatch(f"it is staged at {before.staging_path}", volume=wanted.volume)

    async def _is_staged(
        self,
        wanted: Stage,
        before: StagedVolume | None,
        front: Front | None,
        namespace: Namespace | None,
    ) -> bool:
        if wanted.capability.access_type == "block":
            if front is None or before is None or not before.staged:
                return False
            if not await self._layer.stands(wanted, front, namespace):
                return False
            if before.targets and before.read_only != wanted.read_only:
                raise VolumeMismatch(
                    f"it is published {'read-only' if before.read_only else 'writable'} at "
                    f"{before.targets[0][0]}",
                    volume=wanted.volume,
                )
            return before.staging_path == wanted.path
        mounted = self._mounts.at(wanted.path)
        if not mounted:
            return False
        if front is not None and mounted[-1].devno == front.devno:
            _require_same_mount(wanted, before, mounted[-1])
            await self._layer.led(front, namespace, volume=wanted.volume)
            return True
        if self._devices.exists(mounted[-1].devno):
            raise VolumeMismatch(
                f"another device is mounted at {wanted.path}: {mounted[-1].source}",
                volume=wanted.volume,
            )
        # The kernel gave the device up; what is mounted here can only answer with errors.
        log.warning("unmounting a device that is gone", volume=wanted.volume, path=wanted.path)
        await self._mounts.unmount(wanted.path, volume=wanted.volume)
        return False

    def _require_xfs_unmounted(self, wanted: Stage, before: StagedVolume | None) -> None:
        """Raise :class:`VolumeInUse` while a pod still has the xfs mounted from a dead device.

        The kernel refuses a second mount of the same UUID (``xfs_uuid_mount``). The pod's own
        mount is not taken from under it: it would go on writing into the empty directory.
        """
        if before is None or wanted.capability.file_system != "xfs":
            return
        for path, _ in before.targets:
            mounted = self._mounts.at(path)
            if mounted and not self._devices.exists(mounted[-1].devno):
                raise VolumeInUse(
                    f"it is still mounted at {path} from a connection that the kernel gave up",
                    volume=wanted.volume,
                    advice="stop the pods that use it; it is mounted anew when they start again",
                )

    async def _sized(
        self, wanted: Stage, namespace: Namespace, *, was_connected: bool
    ) -> Namespace:
        """The namespace, if it is as large as the volume was when it was attached.

        A larger one has grown since: whose it is, its NQN proves. A smaller one is not what was
        made, and neither formatted nor used, whatever is on it.
        """
        if was_connected and wanted.size is not None and namespace.size < wanted.size:
            await self._initiator.rescan(wanted.target.nqn, volume=wanted.volume)
            namespace = self._initiator.find(wanted.target.nqn) or namespace
        if namespace.size <= 0 or (wanted.size is not None and namespace.size < wanted.size):
            raise FailedPrecondition(
                f"{namespace.device} has {namespace.size} bytes, the volume should have "
                f"{wanted.size or 'some'}",
                volume=wanted.volume,
                advice="the RDS exports something else under this name, or less than was made",
            )
        return namespace

    async def _mount(self, wanted: Stage, before: StagedVolume | None, front: Front) -> None:
        device = self._volumes.device(wanted.target.nqn, front)
        fs_type = wanted.capability.file_system
        if kind(wanted.path) != "directory":
            raise FailedPrecondition(
                f"the staging path {wanted.path} is no directory", volume=wanted.volume
            )
        if not wanted.read_only:
            await self._devices.set_read_only(device, False, volume=wanted.volume)
        uuid = await self._contents.ensure(wanted, before, device)
        # The mark of a format is gone for good before anybody can write a first byte. Written
        # always: "before" knows nothing of a mark that this call made.
        await self._store.write(wanted.record(before, uuid=uuid))
        mount = await self._attach.mount(
            device,
            wanted.path,
            fs_type=fs_type,
            options=mount_options(
                fs_type,
                wanted.capability.mount_flags,
                read_only=wanted.read_only,
                shared=wanted.capability.mode.multi_node,
            ),
            volume=wanted.volume,
        )
        if not wanted.read_only:
            await self._contents.grow(wanted, device, mount)

    async def _grow_again(
        self,
        wanted: Stage,
        before: StagedVolume | None,
        front: Front | None,
        namespace: Namespace | None,
    ) -> None:
        """Grow what an earlier stage could not."""
        if namespace is None or front is None or before is None:
            return
        if not before.ungrown or wanted.read_only:
            return
        nqn = wanted.target.nqn
        front = await self._layer.widened(nqn, front, namespace, volume=wanted.volume)
        device = self._volumes.device(nqn, front)
        await self._contents.grow(wanted, device, self._mounts.at(wanted.path)[-1])

    async def _remember(self, wanted: Stage, before: StagedVolume | None) -> None:
        """Write down what is staged already, where the record does not say so."""
        record = wanted.record(before)
        if before is not None:
            record = replace(record, ungrown=before.ungrown)
        if before is not None and wanted.generation is None:
            # Of an older controller: what it was connected under stays known.
            record = replace(record, generation=before.generation, superseded=before.superseded)
        await self._write(record, before)

    async def _write(self, record: StagedVolume, before: StagedVolume | None) -> None:
        if record != before:
            await self._store.write(record)

    async def _undo(
        self,
        wanted: Stage,
        before: StagedVolume | None,
        failure: Exception,
        *,
        was_connected: bool,
        was_mapped: bool,
    ) -> None:
        """Take back what a failed stage did.

        Raises :class:`NotUndone` where not all of it could be: after a final code the kubelet
        would never ask for an unstage of what is left.
        """
        try:
            front = self._front(wanted, self._initiator.find(wanted.target.nqn))
            if wanted.capability.access_type == "mount" and front is not None:
                mounted = self._mounts.at(wanted.path)
                if mounted and mounted[-1].devno == front.devno:
                    await self._unmount(wanted.path, mounted, wanted.volume)
            if not was_connected:
                await self._uses.disconnect(wanted.volume, {wanted.target.nqn})
            elif not was_mapped:
                await self._uses.unmap(wanted.volume)
            if before is None or not before.staged:
                await self._forget(wanted.volume)
        except (DriverError, OSError) as error:
            log.warning("stage not undone in full", volume=wanted.volume, error=str(error))
            raise not_undone(failure, error, wanted.volume) from error

    async def _unmount(self, path: str, mounted: list[Mount], volume: str) -> None:
        await self._layer.require_ending(mounted, volume=volume)
        await self._mounts.unmount(path, volume=volume)

    async def _forget(self, volume: str) -> None:
        """Delete the record, but never the mark of a format: it alone explains what is there.

        Nor that a file system was lost: else the next stage would format what is there now.
        """
        record = await self._store.read(volume)
        if record is not None and (record.formatting or record.lost):
            await self._store.write(record.unstaged())
        else:
            await self._store.delete(volume)

    async def unstage(self, volume: str, path: str) -> None:
        """Unmount, unmap and disconnect the volume; returns when each is proven.

        Raises :class:`VolumeInUse`, naming the place, while anything else still uses the device,
        and :class:`Unavailable` where the unmount would wait for a device without end.
        """
        record = await self._store.read(volume)
        nqns = self._volumes.nqns(volume)
        if record is not None and belongs(record.nqn, volume):
            nqns.add(record.nqn)
        staged = self._mounts.at(path)
        self._volumes.require_own(staged, volume)
        self._require_unpublished(staged, nqns, path, volume)
        await self._unmount(path, staged, volume)
        await self._uses.disconnect(volume, nqns)
        await self._forget(volume)

    def _require_unpublished(
        self, staged: list[Mount], nqns: set[str], path: str, volume: str
    ) -> None:
        devnos = {mount.devno for mount in staged}
        points = {mount.point for each in devnos for mount in self._mounts.of_file_system(each)}
        points |= set(self._uses.places(volume, nqns))
        others = sorted(points - {path})
        if others:
            raise VolumeInUse(
                f"it is still mounted at {', '.join(others[:5])}",
                volume=volume,
                advice="unmount it there first; nothing was changed",
            )


def _require_same_mount(wanted: Stage, before: StagedVolume | None, mount: Mount) -> None:
    differences = []
    if mount.fs_type != wanted.capability.file_system:
        differences.append(f"as {mount.fs_type} instead of {wanted.capability.file_system}")
    if mount.read_only != wanted.read_only:
        differences.append("read-only" if mount.read_only else "writable")
    if before is not None and before.staging_path == wanted.path:
        flags, asked = sorted(before.mount_flags), sorted(wanted.capability.mount_flags)
        if flags != asked:
            differences.append(f"with options {flags} instead of {asked}")
    if differences:
        raise VolumeMismatch(
            f"it is mounted at {mount.point} {' and '.join(differences)}", volume=wanted.volume
        )
    if mount.file_system_read_only and not wanted.read_only:
        raise FailedPrecondition(
            f"the kernel made the file system at {mount.point} read-only after an error",
            volume=wanted.volume,
            advice="see the node's kernel log; stop the pods that use the volume, so that it is "
            "unmounted, and check it with fsck.ext4 or xfs_repair",
        )
