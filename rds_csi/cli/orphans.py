"""What on the RDS has no owner in the cluster, and the lines that would mend it: pure.

Only a report. Each line is for a person who has looked first; a volume without a PersistentVolume
may be one that somebody kept on purpose (reclaim policy Retain).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rds_csi.errors import NodeNotFound
from rds_csi.kubernetes.objects import Cluster
from rds_csi.model.node_id import check_node
from rds_csi.model.record import Record
from rds_csi.routeros import Disk, by_hand
from rds_csi.routeros.quoting import quote


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something without an owner: what it is, why it counts as one, and what would mend it."""

    what: str
    why: str
    mend: tuple[str, ...] = ()


def find(
    disks: Iterable[Disk], files: Iterable[str], cluster_id: str, cluster: Cluster | None
) -> list[Orphan]:
    """The orphans among our ``disks``, and our ``files`` that no disk uses.

    Without the ``cluster`` only what the RDS shows by itself.
    """
    listed = list(disks)
    return [
        *(orphan for disk in listed for orphan in _of_disk(disk, cluster_id, cluster)),
        *(_file(path) for path in sorted(files)),
        *_missing(listed, cluster),
    ]


def _of_disk(disk: Disk, cluster_id: str, cluster: Cluster | None) -> Iterator[Orphan]:
    held = disk.record is not None and bool(disk.record.nodes)
    if cluster is not None and disk.slot not in cluster.volumes:
        yield Orphan(
            disk.slot,
            "no PersistentVolume names it"
            + (", and yet a node has it" if held else ": kept on purpose, or left behind")
            + made_for(disk.record, "; it was made for the claim {}"),
            () if held else _removal(disk),
        )
    if disk.size <= 0:
        yield Orphan(
            disk.slot,
            f"its disk shows no size: the pool of {disk.file_path} is not mounted, or the file is "
            "gone",
            ("/disk/print", f"/file/print where name={quote(disk.file_path)}"),
        )
    yield from _holders(disk, cluster_id, cluster)


def made_for(record: Record | None, sentence: str = "{}") -> str:
    """The claim that a volume was made for, in a sentence; empty where its record says of none."""
    return sentence.format(f"{record.namespace}/{record.claim}") if record and record.claim else ""


def _removal(disk: Disk) -> tuple[str, ...]:
    """Lines that destroy the volume, if it still is as it was read."""
    return (
        "# these destroy its data:",
        by_hand.remove_disk(disk),
        by_hand.remove_file(disk.file_path),
    )


def _holders(disk: Disk, cluster_id: str, cluster: Cluster | None) -> Iterator[Orphan]:
    for entry in disk.record.nodes if disk.record else ():
        try:
            check_node(cluster_id, entry.node)
        except NodeNotFound:
            why = f"it is published to {entry.node}, which is no node of cluster id {cluster_id!r}"
        else:
            if cluster is None or cluster.nodes is None or entry.node in cluster.nodes:
                continue
            why = f"it is published to {entry.node}, and no CSINode has that id"
        yield Orphan(
            disk.slot,
            why,
            ("kubectl get volumeattachments", "# deleting the one of this volume unpublishes it"),
        )


def _file(path: str) -> Orphan:
    return Orphan(
        path,
        "a file of ours that no disk uses: a delete was cut off, or somebody removed the disk",
        ("# this destroys its data:", by_hand.remove_file(path)),
    )


def _missing(disks: list[Disk], cluster: Cluster | None) -> Iterator[Orphan]:
    there = {disk.slot for disk in disks}
    for each in sorted((cluster.volumes if cluster else {}).values(), key=lambda one: one.name):
        if each.volume not in there:
            yield Orphan(
                f"PersistentVolume {each.name}",
                f"its volume {each.volume} is not on the RDS"
                + (f"; claim {each.claim}" if each.claim else ""),
                (f"kubectl describe pv {each.name}",),
            )
