"""What is wrong with a volume, as far as its entry on the RDS shows it."""

from rds_csi.model.health import Problem, Severity
from rds_csi.model.volume import read_nqn
from rds_csi.routeros.disk import Disk


def problems(disk: Disk) -> list[Problem]:
    """What is wrong with the volume; nothing, where its entry is as we left it."""
    found = []
    published = disk.record is not None and bool(disk.record.nodes)
    if published and not disk.exported:
        found.append(
            Problem(
                Severity.INACCESSIBLE,
                "NotExported",
                "published, but the RDS does not export it; somebody turned nvme-tcp-export off "
                f"(on the RDS: /disk/set {disk.slot} nvme-tcp-export=yes)",
            )
        )
    if disk.size <= 0:
        found.append(
            Problem(
                Severity.INACCESSIBLE,
                "BackingFileUnavailable",
                f"the RDS shows no size; is the pool of {disk.file_path} mounted, the file there?",
            )
        )
    if not _names_it(disk):
        found.append(
            Problem(
                Severity.INACCESSIBLE,
                "ExportRenamed",
                f"it is exported under the name {disk.nqn!r}, which no node looks for",
            )
        )
    return found


def _names_it(disk: Disk) -> bool:
    """Whether a node that has the volume may look for the name.

    It is that of the last hand-over; or an older one, the plain one too, where exports keep their
    names or kept them then. While nobody has it, a hand-over that was broken off may have left the
    next one's.
    """
    name = read_nqn(disk.nqn)
    if name is None or name.volume != disk.slot:
        return False
    return disk.record is None or not disk.record.nodes or name.generation <= disk.record.generation
