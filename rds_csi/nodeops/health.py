"""Judges the health of volumes on this node from sysfs, the mount table and our records.

Nothing here touches a device, so nothing here can hang on a dead one.
"""

from collections.abc import Iterator

from rds_csi.errors import PathNotFound
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mounts
from rds_csi.health import Ailment, Severity, StorageAilment, StorageSeverity
from rds_csi.nodeops.inspect import Inspector
from rds_csi.nodeops.volumes import Initiator, Volumes
from rds_csi.nvme.sysfs import Controller, Namespace
from rds_csi.staging import StagedVolume, StagingStore

_RESTART = "stop the pods that use the volume; it is mounted anew when they start again"


class HealthCheck:
    """Answers what is wrong, and with nothing wrong, nothing."""

    def __init__(
        self,
        *,
        initiator: Initiator,
        volumes: Volumes,
        mounts: Mounts,
        devices: BlockDevices,
        inspector: Inspector,
        store: StagingStore,
    ) -> None:
        self._initiator = initiator
        self._volumes = volumes
        self._mounts = mounts
        self._devices = devices
        self._inspector = inspector
        self._store = store

    async def volume(self, volume: str, *paths: str) -> list[Ailment]:
        """What is wrong with the volume and with what is mounted at ``paths``.

        Raises :class:`PathNotFound` for a volume that this node does not have, and for a path
        that never was the volume's.
        """
        record = await self._store.read(volume)
        if record is not None and not record.staged:
            record = None
        controllers = self._volumes.controllers(volume)
        at_paths = [path for path in paths if path]
        if record is None and not controllers:
            raise PathNotFound("it is not on this node", volume=volume)
        namespace = self._namespace(controllers)
        found = [*_of_connection(controllers, namespace)]
        for path in at_paths:
            self._require_known(path, volume, namespace, record)
            found += self._at_path(path, namespace, record)
        unique = {(each.severity, each.reason): each for each in found}
        return list(unique.values())

    def storage(self) -> list[StorageAilment]:
        """What is wrong between this node and the targets its volumes are on."""
        by_target: dict[str, list[Controller]] = {}
        for controller in self._volumes.all_controllers():
            target = f"{controller.address}:{controller.port}"
            by_target.setdefault(target, []).append(controller)
        return [
            ailment
            for target, controllers in sorted(by_target.items())
            if (ailment := _of_target(target, controllers)) is not None
        ]

    def _namespace(self, controllers: list[Controller]) -> Namespace | None:
        for nqn in sorted({controller.nqn for controller in controllers}):
            namespace = self._initiator.find(nqn)
            if namespace is not None:
                return namespace
        return None

    def _require_known(
        self,
        path: str,
        volume: str,
        namespace: Namespace | None,
        record: StagedVolume | None,
    ) -> None:
        mounted = self._mounts.at(path)
        gone = bool(mounted) and not self._devices.exists(mounted[-1].devno)
        shown = namespace is not None and self._inspector.shown(mounted, path, namespace)
        if not (shown or gone or _expected(path, record)):
            raise PathNotFound(f"it is not at {path}", volume=volume)

    def _at_path(
        self, path: str, namespace: Namespace | None, record: StagedVolume | None
    ) -> Iterator[Ailment]:
        mounted = self._mounts.at(path)
        if not mounted:
            # A raw block volume that the Go driver published is a device node, not a mount.
            shown = namespace is not None and self._inspector.shown(mounted, path, namespace)
            if _expected(path, record) and not shown:
                yield Ailment(
                    Severity.INACCESSIBLE,
                    "MountLost",
                    f"nothing is mounted at {path} any more; {_RESTART}",
                )
            return
        if namespace is None or not self._inspector.shown(mounted, path, namespace):
            yield Ailment(
                Severity.INACCESSIBLE,
                "StaleMount",
                f"what is mounted at {path} is not the volume's present device; {_RESTART}",
            )
            return
        mount = mounted[-1]
        writable = record is not None and not record.read_only
        if writable and mount.devno == namespace.devno and mount.file_system_read_only:
            yield Ailment(
                Severity.DEGRADED,
                "FileSystemReadOnly",
                f"the kernel made the file system at {path} read-only after an error; see the "
                "node's kernel log, stop the pods, and check it with fsck.ext4 or xfs_repair",
            )


def _expected(path: str, record: StagedVolume | None) -> bool:
    if record is None:
        return False
    published = any(path == target for target, _ in record.targets)
    return published or (bool(record.fs_type) and path == record.staging_path)


def _of_connection(controllers: list[Controller], namespace: Namespace | None) -> Iterator[Ailment]:
    if not controllers:
        yield Ailment(
            Severity.INACCESSIBLE,
            "NotConnected",
            "the kernel gave the NVMe connection up: ctrlLossTmo was over or, on Linux 6.10 and "
            f"newer, the target said that it has no such export; {_RESTART}",
        )
    elif not any(controller.live for controller in controllers):
        states = ", ".join(
            f"{each.name} to {each.address}:{each.port} is {each.state}, "
            f"tried again every {each.reconnect_delay or '?'} s, given up after "
            f"{'no time' if each.ctrl_loss_tmo == 'off' else each.ctrl_loss_tmo + ' s'}"
            for each in controllers
        )
        yield Ailment(Severity.INACCESSIBLE, "Reconnecting", f"I/O waits: {states}")
    elif namespace is None:
        yield Ailment(
            Severity.INACCESSIBLE,
            "NamespaceMissing",
            "connected, but the RDS exports no disk under this name; look at /disk there",
        )


def _of_target(target: str, controllers: list[Controller]) -> StorageAilment | None:
    live = sum(controller.live for controller in controllers)
    if live == len(controllers):
        return None
    words = f"{live} of {len(controllers)} connections to {target} are live"
    if live:
        return StorageAilment(StorageSeverity.DEGRADED, "ConnectionsLost", words)
    return StorageAilment(
        StorageSeverity.UNREACHABLE,
        "TargetUnreachable",
        f"{words}; is the RDS up, and the network between?",
    )
