"""Lines for a person to paste, each of which destroys something: built here, run by nobody of us.

A person pastes what a report of yesterday said. So each line looks by itself whether what it
removes still is what was reported, in the same step: a volume that a node has by then, and a file
that a disk uses, stay.
"""

from rds_csi.routeros.disk import Disk
from rds_csi.routeros.fragments import disks, when
from rds_csi.routeros.quoting import quote


def remove_disk(disk: Disk) -> str:
    """Remove the disk, if its record is the one that was read and it is not exported."""
    where = f"slot={quote(disk.slot)} comment={quote(disk.comment)} nvme-tcp-export=no"
    return f"/disk/remove [find where {where}]"


def remove_file(path: str) -> str:
    """Remove the file, ``path`` as ``/file`` spells it, if no disk uses it."""
    used = f"(file-path={quote(f'/{path}')} or file-path={quote(path)})"
    return when(f"{disks(used)} = 0", f"/file/remove [/file/find where name={quote(path)}]")
