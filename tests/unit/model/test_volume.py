"""The rules of ids, sizes and the ownership record."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import InvalidRequest, SizeOutOfRange
from rds_csi.model.access import AccessMode, Capability
from rds_csi.model.record import Publication, Record, owner_prefixes, owner_tag
from rds_csi.model.volume import (
    GIB,
    MAXIMUM_SIZE,
    MIB,
    MINIMUM_SIZE,
    MINIMUM_XFS,
    CapacityRange,
    check_name,
    check_nqn,
    is_legacy_id,
    is_volume_id,
    volume_id,
)

VERSIONS = ("rds-csi/1", "rds-csi/2")
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
    nodes=st.lists(publications, max_size=4, unique_by=lambda entry: entry.node).map(
        lambda found: tuple(sorted(found))
    ),
)


def test_an_id_is_as_long_as_a_slot_may_be() -> None:
    assert re.fullmatch(r"pvc-[0-9a-f]{28}", volume_id("pvc-a"))
    assert len(volume_id("x" * 128)) == 32
    assert volume_id("a") == volume_id("a") != volume_id("A")
    assert is_volume_id(volume_id("a"))


def test_ids_of_the_go_driver_are_volumes_too() -> None:
    legacy = "pvc-ccdecfad-a8bf-572e-9120-464c4d99f12f"
    assert is_volume_id(legacy)
    assert is_legacy_id(legacy)
    assert not is_legacy_id(volume_id("a"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pvc-",
        "root",
        "pvc-" + "0" * 27,
        "pvc-" + "0" * 29,
        "pvc-" + "G" * 28,
        volume_id("a") + "\n",
        "x" + volume_id("a"),
        volume_id("a").upper(),
        "a:" + volume_id("a"),
    ],
)
def test_nothing_else_is_a_volume(text: str) -> None:
    assert not is_volume_id(text)


@pytest.mark.parametrize("name", ["", "a\n", "a\x00", "a\x7f", "a\x9f", "n" * 129, "é" * 65])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_name(name)


def test_a_name_of_128_bytes_is_fine() -> None:
    assert check_name("é" * 64) == "é" * 64


@pytest.mark.parametrize(
    "nqn",
    [
        "",
        "nqn.x:y",
        "nqn.2000-02.com.mikrotik",
        "nqn.2000-02.com.mikrotik:",
        "iqn.2000-02.com:a",
        "nqn.2000-02.com.mikrotik:a b",
        "nqn.2000-02.com.mikrotik:a;b",
        "nqn.2000-02..com:a",
        "nqn.2000-02.com.mikrotik:a\n",
        "nqn.2000-02.com.mikrotik:" + "a" * 200,
    ],
)
def test_bad_nqns_are_refused(nqn: str) -> None:
    with pytest.raises(InvalidRequest):
        check_nqn(nqn)


def test_good_nqns_pass() -> None:
    for nqn in (
        f"nqn.2000-02.com.mikrotik:{volume_id('a')}",
        "nqn.2014-08.org.nvmexpress:uuid:12345678-1234-1234-1234-123456789abc",
    ):
        assert check_nqn(nqn) == nqn


@pytest.mark.parametrize(
    ("required", "limit", "size"),
    [
        (0, 0, GIB),
        (1, 0, MINIMUM_SIZE),
        (int(1.5 * GIB), 0, int(1.5 * GIB)),
        (int(10.1 * GIB), 0, 10343 * MIB),
        (1025 * GIB, 0, 1025 * GIB),
        (GIB + 1, GIB + MIB, GIB + MIB),
        (0, 100 * MIB, 100 * MIB),
        (0, 100 * MIB + 5, 100 * MIB),
        (MAXIMUM_SIZE, 0, MAXIMUM_SIZE),
    ],
)
def test_sizes_are_rounded_up_to_a_mebibyte(required: int, limit: int, size: int) -> None:
    assert CapacityRange(required, limit).size() == size


@pytest.mark.parametrize(
    ("required", "limit"),
    [(2, 1), (GIB + 1, GIB + 2), (MAXIMUM_SIZE + 1, 0), (0, MINIMUM_SIZE - 1), (0, 1)],
)
def test_impossible_ranges(required: int, limit: int) -> None:
    with pytest.raises(SizeOutOfRange):
        CapacityRange(required, limit).size()


def test_a_file_system_may_need_more() -> None:
    assert CapacityRange(MIB).size(MINIMUM_XFS) == MINIMUM_XFS
    assert CapacityRange(GIB).size(MINIMUM_XFS) == GIB
    with pytest.raises(SizeOutOfRange):
        CapacityRange(MIB, 200 * MIB).size(MINIMUM_XFS)


@pytest.mark.parametrize(("required", "limit"), [(-1, 0), (0, -1)])
def test_negative_ranges(required: int, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        CapacityRange(required, limit).size()


@given(required=st.integers(0, MAXIMUM_SIZE), slack=st.integers(0, 4 * MIB))
def test_a_size_always_satisfies_its_range(required: int, slack: int) -> None:
    wanted = CapacityRange(required, required + slack if required else 0)
    try:
        size = wanted.size()
    except SizeOutOfRange:
        assert slack < MIB or required + slack < MINIMUM_SIZE
    else:
        assert wanted.allows(size)
        assert size % MIB == 0


def test_allows() -> None:
    assert CapacityRange(10, 20).allows(10)
    assert CapacityRange(10, 20).allows(20)
    assert not CapacityRange(10, 20).allows(9)
    assert not CapacityRange(10, 20).allows(21)
    assert CapacityRange(0, 0).allows(1)


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
    assert old == replace(record, generation=0, formatted="")
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
        "rds-csi/3 owner= name= created=1 access= fencing=0 source= generation=0 formatted= nodes=",
        "rds-csi/1 owner= name= created=1 access= fencing=0 source= generation=0 formatted= nodes=",
        "rds-csi/2 owner= name= created=1 access= fencing=0 source= generation=x formatted= nodes=",
        "rds-csi/2 owner= name= created=1 access= fencing=0 source= generation= formatted= nodes=",
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


def test_the_tag_of_a_file_tells_owners_apart() -> None:
    assert re.fullmatch("[0-9a-f]{8}", owner_tag("d/c"))
    assert owner_tag("d/c") != owner_tag("d/d")


@pytest.mark.parametrize("mode", AccessMode)
def test_block_takes_every_mode(mode: AccessMode) -> None:
    assert Capability(access_type="block", mode=mode).unsupported() == ""


@pytest.mark.parametrize("mode", AccessMode)
def test_a_file_system_is_never_written_from_two_nodes(mode: AccessMode) -> None:
    refused = mode in (AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_SINGLE_WRITER)
    why = Capability(access_type="mount", mode=mode, fs_type="xfs").unsupported()
    assert bool(why) == refused
    assert not refused or "volumeMode: Block" in why


def test_other_file_systems_are_refused_by_name() -> None:
    wanted = Capability(access_type="mount", mode=AccessMode.SINGLE_NODE_WRITER, fs_type="btrfs")
    assert "btrfs" in wanted.unsupported()
    assert Capability(access_type="mount", mode=AccessMode(1)).file_system == "ext4"
    assert Capability(access_type="block", mode=AccessMode(1)).file_system == ""
