"""What has no owner is told, with lines for a person; what has one is not."""

from dataclasses import replace

from rds_csi.cli.orphans import Orphan, find
from rds_csi.kubernetes.objects import Cluster, PersistentVolume
from rds_csi.model.access import AccessMode
from rds_csi.model.node_id import make_node_id
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import GIB, volume_id
from rds_csi.routeros import Disk, by_hand

A, B = volume_id("a"), volume_id("b")
NODE = make_node_id("prod", "worker-1")


def disk(slot: str = A, *nodes: str, size: int = GIB) -> Disk:
    record = Record(
        owner="csi.rds-csi.io/prod",
        name="a",
        created=1,
        access="ext4",
        nodes=tuple(Publication(node, AccessMode.SINGLE_NODE_WRITER) for node in nodes),
    )
    return Disk(
        slot=slot,
        size=size,
        file_path=f"raid10/csi/{slot}-0a0a0a0a.img",
        comment=record.encode(),
        record=record,
        nqn=f"nqn.2000-02.com.mikrotik:{slot}",
        port=4420,
        exported=bool(nodes),
        allowed_host="",
    )


def cluster(*volumes: str, nodes: frozenset[str] | None = frozenset({NODE})) -> Cluster:
    return Cluster(
        {each: PersistentVolume(f"pv-{each}", each, "shop/data", "Bound") for each in volumes},
        nodes,
    )


def only(found: list[Orphan]) -> Orphan:
    [orphan] = found
    return orphan


def test_what_has_an_owner_is_no_orphan() -> None:
    assert find([disk(A, NODE)], [], "prod", cluster(A)) == []
    assert find([disk(A, NODE)], [], "prod", None) == []


def test_a_volume_that_no_persistent_volume_names() -> None:
    orphan = only(find([disk()], [], "prod", cluster()))
    assert orphan.what == A
    assert "no PersistentVolume names it" in orphan.why
    assert orphan.mend[1:] == (
        by_hand.remove_disk(disk()),
        by_hand.remove_file(disk().file_path),
    )
    assert "claim" not in orphan.why


def test_a_volume_that_was_kept_says_whose_it_was() -> None:
    left = disk()
    assert left.record is not None
    named = replace(left, record=left.record.made_for("shop", "data-0"))
    assert "made for the claim shop/data-0" in only(find([named], [], "prod", cluster())).why


def test_no_line_removes_what_a_node_has() -> None:
    orphan = only(find([disk(A, NODE)], [], "prod", cluster()))
    assert "and yet a node has it" in orphan.why
    assert orphan.mend == ()


def test_a_disk_without_a_file() -> None:
    orphan = only(find([disk(size=0)], [], "prod", cluster(A)))
    assert "shows no size" in orphan.why
    assert not any("remove" in line for line in orphan.mend), "its pool may come back"


def test_a_file_without_a_disk() -> None:
    orphan = only(find([], ["raid10/csi/x-0a0a0a0a.img"], "prod", cluster()))
    assert orphan.what == "raid10/csi/x-0a0a0a0a.img"
    assert orphan.mend[-1] == by_hand.remove_file("raid10/csi/x-0a0a0a0a.img")


def test_a_holder_that_is_no_node() -> None:
    gone = make_node_id("prod", "worker-9")
    orphan = only(find([disk(A, gone)], [], "prod", cluster(A)))
    assert f"published to {gone}, and no CSINode has that id" in orphan.why
    assert find([disk(A, gone)], [], "prod", cluster(A, nodes=None)) == [], "nothing is known"


def test_a_holder_of_another_cluster_is_told_without_any_cluster() -> None:
    orphan = only(find([disk(A, "worker-1.00000000")], [], "prod", None))
    assert "no node of cluster id 'prod'" in orphan.why


def test_a_persistent_volume_whose_volume_is_not_there() -> None:
    orphan = only(find([disk(A)], [], "prod", cluster(A, B)))
    assert orphan.what == f"PersistentVolume pv-{B}"
    assert orphan.why == f"its volume {B} is not on the RDS; claim shop/data"
