"""The record of who owns a volume and who has it: written, read, and nothing else taken for it."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.model.access import AccessMode
from rds_csi.model.record import MAPPED, Publication, Record, owner_prefixes, owner_tag

VERSIONS = ("rds-csi/1", "rds-csi/2", "rds-csi/3")
HEAD = "owner= name= created=1 access= fencing=0 source="
THIRD = "rds-csi/3 owner= name= namespace= claim= created=1 access= fencing=0 source= generation=0"
texts = st.text(max_size=40)
publications = st.builds(
    Publication, st.text(min_size=1, max_size=20), st.sampled_from(AccessMode), st.booleans()
)
records = st.builds(
    Record,
    owner=texts,
    name=texts,
    created=st.integers(0, 2**40),
    access=st.sampled_from(["block", "ext4", "xfs", ""]),
    fencing=st.booleans(),
    source=texts,
    generation=st.integers(0, 2**40),
    formatted=st.sampled_from(["ext4", "xfs", ""]),
    namespace=texts,
    claim=texts,
    mapped=st.booleans(),
    nodes=st.lists(publications, max_size=4, unique_by=lambda entry: entry.node).map(
        lambda found: tuple(sorted(found))
    ),
)


@given(records)
def test_a_record_survives_its_comment(record: Record) -> None:
    text = record.encode()
    assert Record.parse(text) == record
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set('"$\\;[]{}\n')


@given(records)
def test_ownership_is_a_prefix_and_unpublished_a_suffix(record: Record) -> None:
    for version in VERSIONS:
        text = record.encode(version)
        assert text.startswith(owner_prefixes(record.owner))
        assert not text.startswith(owner_prefixes(record.owner + "x"))
        assert text.endswith(" nodes=") == (not record.nodes)


@given(texts)
def test_the_beginnings_of_all_versions_are_equally_long(owner: str) -> None:
    """One ``:pick`` on the RDS serves them all."""
    prefixes = owner_prefixes(owner)
    assert len({len(prefix) for prefix in prefixes}) == 1
    assert [prefix.split(" ")[0] for prefix in prefixes] == list(VERSIONS)


@given(records)
def test_a_record_of_the_first_version_is_read_and_written_as_the_second(record: Record) -> None:
    old = Record.parse(record.encode("rds-csi/1"))
    assert old == replace(record, generation=0, formatted="", mapped=False, namespace="", claim="")
    assert old.encode().startswith("rds-csi/2 ")
    assert Record.parse(old.encode()) == old


@given(st.text(max_size=200))
def test_any_other_comment_is_no_record(text: str) -> None:
    found = Record.parse(text)
    assert found is None or found.encode() == text


@given(records, st.integers(0, 200), st.characters())
def test_a_damaged_record_is_none_or_says_something_else(
    record: Record, place: int, letter: str
) -> None:
    text = record.encode()
    place = min(place, len(text) - 1)
    damaged = text[:place] + letter + text[place + 1 :]
    assert damaged == text or Record.parse(damaged) != record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my disk",
        "rds-csi/0 owner=a name=b created=1 access=ext4 fencing=0 source= nodes=",
        "rds-csi/2 owner=a name=b created=1 access=ext4 fencing=0 source= nodes=",
        f"rds-csi/3 {HEAD} generation=0 formatted= nodes=",
        f"rds-csi/4 {HEAD} generation=0 formatted= nodes=",
        f"rds-csi/2 {HEAD} generation=0 formatted= namespace=a claim=b nodes=",
        f"rds-csi/1 {HEAD} generation=0 formatted= nodes=",
        f"rds-csi/2 {HEAD} generation=x formatted= nodes=",
        f"rds-csi/2 {HEAD} generation= formatted= nodes=",
        f"rds-csi/2 {HEAD} generation=0 formatted= mapped=1 nodes=",
        f"{THIRD} formatted= mapped= nodes=",
        f"{THIRD} formatted= mapped=0 nodes=",
        f"{THIRD} mapped=1 formatted= nodes=",
        f"{THIRD} formatted= mapped=1 mapped=1 nodes=",
        f"rds-csi/1 {HEAD} mapped=1 nodes=",
        "rds-csi/1 owner=a name=b created=1 access=ext4 fencing=0 source=",
        "rds-csi/1 name=b owner=a created=1 access=ext4 fencing=0 source= nodes=",
        "rds-csi/1 owner=a name=b created=01 access=ext4 fencing=0 source= nodes=",
        "rds-csi/1 owner=a name=b created=x access=ext4 fencing=0 source= nodes=",
        "rds-csi/1 owner=a name=b created=1 access=ext4 fencing=2 source= nodes=",
        "rds-csi/1 owner=a name=b created=1 access=ext4 fencing=0 source= nodes=n",
        "rds-csi/1 owner=a name=b created=1 access=ext4 fencing=0 source= nodes=n:9w",
        "rds-csi/1 owner=a name=b created=1 access=ext4 fencing=0 source= nodes=n:1x",
        "rds-csi/1 owner=%ff name=b created=1 access=ext4 fencing=0 source= nodes=",
        "rds-csi/1 owner=a name=b created=1 access=ext4 fencing=0 source= nodes= ",
    ],
)
def test_what_is_not_exactly_ours_is_foreign(text: str) -> None:
    assert Record.parse(text) is None


def test_nodes_come_and_go() -> None:
    record = Record(owner="d/c", name="v", created=1, access="ext4")
    one = Publication("one", AccessMode.MULTI_NODE_MULTI_WRITER)
    two = Publication("two", AccessMode.MULTI_NODE_MULTI_WRITER)
    both = record.with_node(two).with_node(one)
    assert both.nodes == (one, two)
    assert both.generation == 1
    assert both.with_node(one) == both
    assert both.publication("two") == two
    assert both.publication("three") is None
    assert both.without_node("one").nodes == (two,)
    assert both.without_node("three") == both
    assert both.without_node("").nodes == ()


def test_a_claim_is_readable_and_only_what_has_one_needs_the_third_version() -> None:
    """A driver of the version before goes on with every volume that it can know."""
    record = Record(owner="d/c", name="pvc-1", created=1, access="ext4")
    text = record.made_for("shop", "data-postgres-0").encode()
    assert text == (
        "rds-csi/3 owner=d%2Fc name=pvc-1 namespace=shop claim=data-postgres-0 created=1 "
        "access=ext4 fencing=0 source= generation=0 formatted= nodes="
    )
    assert record.encode().startswith("rds-csi/2 ")
    nameless = Record.parse(record.encode("rds-csi/3"))
    assert nameless == record
    assert nameless.encode().startswith("rds-csi/2 ")


@pytest.mark.parametrize(
    ("namespace", "claim"),
    [("", ""), ("shop", ""), ("", "data"), ("Shop", "data"), ("shop", "da ta"), ("shop", "$x")],
)
def test_what_is_no_name_of_kubernetes_is_left_out(namespace: str, claim: str) -> None:
    record = Record(owner="d/c", name="v", created=1, access="ext4")
    assert record.made_for(namespace, claim) == record


def test_the_longest_names_of_kubernetes_have_room_and_no_name_costs_a_volume() -> None:
    longest = "n" * 63, "c" * 253
    usual = Record(
        owner="csi.rds-csi.io/" + "c" * 64, name="pvc-" + "0" * 36, created=10**10, access=""
    )
    assert usual.made_for(*longest).claim == longest[1]
    odd = replace(usual, name="%" * 128)
    assert odd.made_for(*longest) == odd
    assert odd.made_for("a", "b").claim == "b"
    assert usual.made_for("a", "c" * 254) == usual


def test_it_is_mapped_while_every_holder_was_told_so_from_the_first() -> None:
    free = Record(owner="d/c", name="v", created=1, access="block")
    one, two = (Publication(name, AccessMode.MULTI_NODE_MULTI_WRITER) for name in ("one", "two"))
    mapped = free.with_node(one, mapped=True)
    assert mapped.mapped
    assert mapped.with_node(two, mapped=True).mapped
    assert not mapped.with_node(two).mapped
    assert not free.with_node(one).with_node(two, mapped=True).mapped
    # The same node, told otherwise: it may have done the one or the other.
    assert not mapped.with_node(one).mapped
    assert not free.with_node(one).with_node(one, mapped=True).mapped
    # Whoever leaves leaves the others as they are; the next first holder begins anew.
    assert mapped.with_node(two, mapped=True).without_node("one").mapped
    assert not mapped.with_node(two).without_node("two").mapped
    assert not mapped.without_node("").mapped
    assert mapped.without_node("").with_node(one, mapped=True).mapped


@given(records)
def test_the_rds_sees_it_in_the_text(record: Record) -> None:
    assert (MAPPED in record.encode()) == record.mapped


def test_the_tag_of_a_file_tells_owners_apart() -> None:
    assert re.fullmatch("[0-9a-f]{8}", owner_tag("d/c"))
    assert owner_tag("d/c") != owner_tag("d/d")


@pytest.mark.parametrize("access", ["ext4", "xfs", ""])
def test_what_the_rds_shows_is_kept(access: str) -> None:
    record = Record(owner="d/c", name="v", created=1, access=access)
    assert record.seen("xfs") == replace(record, formatted="xfs")
    assert record.seen("xfs").seen("").formatted == "xfs", "nothing shown takes nothing back"


def test_what_a_raw_device_holds_is_its_users_affair() -> None:
    record = Record(owner="d/c", name="v", created=1, access="block")
    assert record.seen("ext4") == record


@pytest.mark.parametrize(("mode", "readonly"), [(1, True), (2, False), (3, False), (5, True)])
def test_a_node_reads_only_by_its_mode_or_by_its_word(mode: int, readonly: bool) -> None:
    assert Publication("a", AccessMode(mode), readonly).reads_only


@pytest.mark.parametrize("mode", [1, 4, 5, 6, 7])
def test_a_node_that_may_write_does_not_read_only(mode: int) -> None:
    assert not Publication("a", AccessMode(mode)).reads_only
