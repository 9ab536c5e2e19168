"""Whether a volume that exists is the one a CreateVolume asks for.

The name alone decides which volume is meant; what else the request says has to be true of it.
"""

from rds_csi.errors import NotOurs, VolumeMismatch
from rds_csi.model.parameters import VolumeParameters
from rds_csi.model.record import Record
from rds_csi.model.volume import CapacityRange
from rds_csi.routeros import Disk


def require_same(
    disk: Disk, record: Record, parameters: VolumeParameters, capacity: CapacityRange
) -> None:
    """Raise :class:`VolumeMismatch` unless the disk is what this request would have made."""
    found = disk.record
    if found is None or found.owner != record.owner:
        raise NotOurs(
            f"slot {disk.slot} is taken by a disk that is not ours: {disk.comment[:200]!r}",
            volume=disk.slot,
        )
    differences = [
        f"{what} {has!r} instead of {wanted!r}"
        for what, has, wanted in (
            ("name", found.name, record.name),
            ("access", found.access, record.access),
            ("fencing", found.fencing, record.fencing),
            ("volumePath", disk.file_path.rpartition("/")[0], parameters.volume_path),
            ("nvmePort", disk.port, parameters.nvme_port),
        )
        if has != wanted
    ]
    if not capacity.allows(disk.size):
        differences.append(
            f"{disk.size} bytes, outside of {capacity.required} to {capacity.limit or 'any'}"
        )
    if differences:
        raise VolumeMismatch(
            f"a volume named {record.name!r} exists with {'; '.join(differences)}",
            volume=disk.slot,
        )
