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
    """Whether a node would look for the name: the plain one, or that of the last hand-over."""
    name = read_nqn(disk.nqn)
    generation = disk.record.generation if disk.record is not None else 0
    return name is not None and name.volume == disk.slot and name.generation in (0, generation)
