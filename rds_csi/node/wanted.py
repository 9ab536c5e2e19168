"""NodeStageVolume and NodePublishVolume as plain values, checked by the service."""

from dataclasses import dataclass, replace

from rds_csi.model.access import Capability
from rds_csi.model.contexts import Target, connection_context
from rds_csi.model.data_addresses import write_addresses
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.node.staging import StagedVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One NodeStageVolume. ``path`` is the staging path.

    ``size`` in bytes is what the volume had when it was attached, ``generation`` that of its
    hand-overs (:mod:`rds_csi.node.handover`), ``formatted`` the file system that the RDS is
    known to have seen on it; each is None or empty where the controller does not say.
    ``content_expected``: it was made from a snapshot or another volume. ``pinned``: its class names
    the address. ``path_layer``: a map is to stand over its device (:mod:`rds_csi.node.layer`).
    ``newest_features``: what is made on it need not be mounted by older kernels.
    """

    volume: str
    target: Target
    config: ConnectionConfig
    path: str
    capability: Capability
    read_only: bool
    size: int | None
    generation: int | None = None
    formatted: str = ""
    content_expected: bool = False
    pinned: bool = False
    path_layer: bool = False
    newest_features: bool = False

    def record(self, before: StagedVolume | None = None, *, uuid: str = "") -> StagedVolume:
        """What is kept of it once it is connected; the targets are those of ``before``.

        ``uuid`` is the file system's that was found or made; where none was looked for, it stays
        what ``before`` says.
        """
        record = replace(
            _record(self, self.path),
            connection=tuple(sorted(connection_context(self.config).items())),
            pinned=self.pinned,
            uuid=uuid,
        )
        if before is None:
            return record
        return replace(record, targets=before.targets, uuid=uuid or before.uuid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """One NodePublishVolume. ``path`` is the target; ``generation`` as for :class:`Stage`."""

    volume: str
    target: Target
    staging_path: str
    path: str
    capability: Capability
    read_only: bool
    generation: int | None = None

    @property
    def block(self) -> bool:
        """Whether the device itself is published."""
        return self.capability.access_type == "block"

    def record(self) -> StagedVolume:
        """What is kept of the volume where its own record was lost."""
        return _record(self, self.staging_path)


def _record(wanted: Stage | Publish, staging_path: str) -> StagedVolume:
    return StagedVolume(
        volume=wanted.volume,
        nqn=wanted.target.nqn,
        address=write_addresses(wanted.target.addresses),
        port=wanted.target.port,
        staging_path=staging_path,
        fs_type=wanted.capability.file_system,
        read_only=wanted.read_only,
        mount_flags=wanted.capability.mount_flags,
        generation=wanted.generation,
        exclusive=not wanted.capability.mode.multi_node,
    )
