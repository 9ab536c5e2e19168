"""What a reply says of one volume, and what it leaves open.

Whatever is wrong with a reply, its error names the volume: a person has nothing else to look for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rds_csi.errors import OPEN, DriverError, OutcomeUnknown, RouterOSError, VolumeNotFound
from rds_csi.routeros.disk import Disk
from rds_csi.routeros.failures import explain, size_unknown
from rds_csi.routeros.reply import Reply, as_items, as_text


@contextmanager
def about(volume: str) -> Iterator[None]:
    """Errors raised within are about this volume, where they name none."""
    try:
        yield
    except DriverError as error:
        error.volume = error.volume or volume
        raise


def succeeded(reply: Reply, volume: str) -> Reply:
    """The reply, if its line did not fail; else what ``failures.explain`` makes of it."""
    if reply.error is not None:
        raise explain(reply.error, volume=volume)
    return reply


def left_open(error: DriverError) -> DriverError:
    """The error itself, or as one that leaves open whether something was done."""
    if error.code in OPEN:
        return error
    return OutcomeUnknown(
        f"whether it was done is not known: {error.what}", volume=error.volume, advice=error.advice
    )


def shown(reply: Reply, slot: str) -> Disk | None:
    """The disk below "disk", if there is one.

    Raises :class:`RouterOSError` where there is more, another, or what is none.
    """
    with about(slot):
        disks = [Disk.parse(item) for item in reply.items("disk")]
        if len(disks) > 1 or any(disk.slot != slot for disk in disks):
            slots = [disk.slot for disk in disks]
            raise RouterOSError(f"asked for one disk, RouterOS shows {slots}")
        return disks[0] if disks else None


def existing(reply: Reply, slot: str) -> Disk:
    """:func:`shown`; :class:`VolumeNotFound` where the RDS says that there is none."""
    disk = shown(reply, slot)
    if disk is None:
        raise VolumeNotFound("the RDS has no such disk", volume=slot)
    return disk


def with_size(disk: Disk) -> Disk:
    """The disk; :class:`PoolAway` where it shows no size."""
    if disk.size <= 0:
        raise size_unknown(disk.slot)
    return disk


def legible(item: dict[str, Any]) -> Disk:
    """The disk in one item of a listing, with 0 for numbers that are none.

    So its holders are told all the same, and its health says that something is wrong with it.
    """
    try:
        return Disk.parse(item)
    except RouterOSError:
        return Disk.parse(item | {"size": 0, "nvme-tcp-server-port": 0})


def holders(reply: Reply) -> dict[str, str]:
    """Names for the refusals of a delete, from what stood there before it.

    It stands beside an error of RouterOS, so whatever is wrong here is passed over.
    """
    names = {"nodes": "a node", "files": "?"}
    try:
        disks = [legible(item) for item in reply.items("disk")]
        nodes = [entry.node for disk in disks if disk.record for entry in disk.record.nodes]
        names["nodes"] = ", ".join(nodes) or "a node"
        names["files"] = ", ".join(files(reply)) or "?"
    except RouterOSError:
        pass
    return names


def files(reply: Reply) -> list[str]:
    """The names of the files in the last list below "file"."""
    values = reply.values("file")
    return [as_text(item.get("name")) for item in as_items(values[-1])] if values else []
