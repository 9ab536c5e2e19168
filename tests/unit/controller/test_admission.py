"""Who may have a volume."""

from contextlib import suppress
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.controller.admission import admit, dedicate
from rds_csi.errors import Code, MadeForOther, RecordFull, VolumeInUse, VolumeMismatch
from rds_csi.model.access import AccessMode, Capability
from rds_csi.model.record import MAXIMUM_RECORD, Publication, Record

RECORD = Record(owner="d/c", name="v", created=1, access="block")


def block(mode: AccessMode) -> Capability:
    return Capability(access_type="block", mode=mode)


def test_the_same_node_again_changes_nothing() -> None:
    held = admit(RECORD, "a", block(AccessMode(1)), readonly=False, volume="v")
    assert admit(held, "a", block(AccessMode(1)), readonly=False, volume="v") == held


def test_a_record_that_is_full_takes_no_more_nodes_and_keeps_those_it_has() -> None:
    """RESOURCE_EXHAUSTED as the CSI specification has it; who has it is told so again."""
    mode = block(AccessMode.MULTI_NODE_MULTI_WRITER)
    held, number = RECORD, 0
    with suppress(RecordFull):
        for number in range(1000):
            held = admit(held, f"worker-{number}", mode, readonly=False, volume="v")
    with pytest.raises(
        RecordFull, match=r"v: \d+ nodes have it, .* room for node worker"
    ) as caught:
        admit(held, f"worker-{number}", mode, readonly=False, volume="v")
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    assert caught.value.volume == "v"
    assert len(held.encode()) <= MAXIMUM_RECORD < len(held.encode()) + len(f"worker-{number}:5w,")
    assert number > 50
    assert admit(held, "worker-0", mode, readonly=False, volume="v") == held
    # One that an older version wrote longer still is no reason to refuse who has it.
    longer = replace(held, nodes=(*held.nodes, Publication("x" * 99, mode.mode)))
    assert admit(longer, "worker-0", mode, readonly=False, volume="v") == longer
    freed = held.without_node("worker-0")
    assert admit(freed, "worker-9", mode, readonly=False, volume="v") == freed


def test_what_a_node_is_told_of_maps_is_no_other_way_of_having_it() -> None:
    held = admit(RECORD, "a", block(AccessMode(1)), readonly=False, volume="v", mapped=True)
    assert held.mapped
    again = admit(held, "a", block(AccessMode(1)), readonly=False, volume="v", mapped=False)
    assert again == replace(held, mapped=False)


@pytest.mark.parametrize(("mode", "readonly"), [(2, False), (1, True), (5, False)])
def test_the_same_node_in_another_way(mode: int, readonly: bool) -> None:
    held = admit(RECORD, "a", block(AccessMode(1)), readonly=False, volume="v")
    with pytest.raises(VolumeMismatch, match="SINGLE_NODE_WRITER"):
        admit(held, "a", block(AccessMode(mode)), readonly=readonly, volume="v")


@pytest.mark.parametrize(("one", "two"), list(product(AccessMode, AccessMode)))
def test_two_nodes_share_only_where_both_modes_say_so(one: AccessMode, two: AccessMode) -> None:
    held = admit(RECORD, "a", block(one), readonly=False, volume="v")
    allowed = {
        (AccessMode.MULTI_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY),
        (AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER),
    }
    if (one, two) in allowed:
        both = admit(held, "b", block(two), readonly=False, volume="v")
        assert [entry.node for entry in both.nodes] == ["a", "b"]
    else:
        with pytest.raises(VolumeInUse, match=r"published to a \("):
            admit(held, "b", block(two), readonly=False, volume="v")


def test_one_writer_among_readers() -> None:
    mode = block(AccessMode.MULTI_NODE_SINGLE_WRITER)
    writer = admit(RECORD, "a", mode, readonly=False, volume="v")
    both = admit(writer, "b", mode, readonly=True, volume="v")
    with pytest.raises(VolumeInUse, match="a "):
        admit(both, "c", mode, readonly=False, volume="v")


def test_every_holder_in_the_way_is_named() -> None:
    mode = block(AccessMode.MULTI_NODE_MULTI_WRITER)
    held = admit(RECORD, "a", mode, readonly=False, volume="v")
    held = admit(held, "b", mode, readonly=False, volume="v")
    with pytest.raises(VolumeInUse, match=r"a .*b "):
        admit(held, "c", block(AccessMode(1)), readonly=False, volume="v")


STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["a", "b", "c", ""]), st.sampled_from(AccessMode)),
    max_size=30,
)


@given(STEPS, st.integers(0, 2**40))
def test_the_generation_grows_over_hand_overs_and_never_else(
    steps: list[tuple[bool, str, AccessMode]], begin: int
) -> None:
    """Whatever nodes publish and unpublish: held without a gap means one generation."""
    record = replace(RECORD, generation=begin)
    for publish, node, mode in steps:
        before = record
        if publish and node:
            with suppress(VolumeInUse, VolumeMismatch):
                record = admit(record, node, block(mode), readonly=False, volume="v")
        else:
            record = record.without_node(node)
        taken = not before.nodes and bool(record.nodes)
        assert record.generation == before.generation + taken
        assert Record.parse(record.encode()) == record


@given(STEPS)
def test_no_two_tenures_of_a_node_share_a_generation(
    steps: list[tuple[bool, str, AccessMode]],
) -> None:
    """What a node kept from one tenure is told from the next, if it was alone in between.

    A node that leaves and comes back while others hold the volume finds it in the same
    generation: it was never handed over.
    """
    record = RECORD
    ended: set[tuple[str, int]] = set()
    for publish, node, mode in steps:
        held = {entry.node for entry in record.nodes}
        if publish and node:
            with suppress(VolumeInUse, VolumeMismatch):
                record = admit(record, node, block(mode), readonly=False, volume="v")
            if not held and record.nodes:
                assert (node, record.generation) not in ended
        else:
            record = record.without_node(node)
            if not record.nodes:
                ended |= {(each, record.generation) for each in ("a", "b", "c")}


def test_the_second_holder_shares_the_generation_of_the_first() -> None:
    mode = block(AccessMode.MULTI_NODE_MULTI_WRITER)
    one = admit(RECORD, "a", mode, readonly=False, volume="v")
    both = admit(one, "b", mode, readonly=False, volume="v")
    assert (RECORD.generation, one.generation, both.generation) == (0, 1, 1)
    rest = both.without_node("a")
    assert admit(rest, "a", mode, readonly=False, volume="v").generation == 1


def test_what_was_published_before_there_were_generations_keeps_its_own() -> None:
    """An upgrade under a mounted volume is no hand-over; the next one is."""
    holder = Publication("a", AccessMode(1))
    old = Record.parse(replace(RECORD, nodes=(holder,)).encode("rds-csi/1"))
    assert old is not None
    again = admit(old, "a", block(AccessMode(1)), readonly=False, volume="v")
    assert again.generation == 0
    taken = admit(again.without_node("a"), "b", block(AccessMode(1)), readonly=False, volume="v")
    assert taken.generation == 1


def mount(fs_type: str) -> Capability:
    return Capability(access_type="mount", mode=AccessMode(1), fs_type=fs_type)


@pytest.mark.parametrize("made", ["block", "ext4", "xfs"])
@pytest.mark.parametrize("wanted", [block(AccessMode(1)), mount(""), mount("ext4"), mount("xfs")])
def test_a_volume_is_dedicated_to_one_use(made: str, wanted: Capability) -> None:
    record = replace(RECORD, access=made)
    if wanted.use == made:
        assert dedicate(record, wanted, volume="v") == record
    else:
        with pytest.raises(MadeForOther, match=f"made for {made}, and is asked for as"):
            dedicate(record, wanted, volume="v")
        with pytest.raises(MadeForOther):
            admit(record, "a", wanted, readonly=False, volume="v")


@pytest.mark.parametrize("wanted", [block(AccessMode(1)), mount(""), mount("xfs")])
def test_the_first_use_of_a_volume_of_which_nobody_said_is_its_use(wanted: Capability) -> None:
    record = replace(RECORD, access="")
    assert dedicate(record, wanted, volume="v").access == wanted.use


def test_a_file_system_that_was_seen_counts_until_somebody_says_block() -> None:
    """What is in a raw volume is its user's affair; what is mounted must be what is there."""
    seen = replace(RECORD, access="", formatted="xfs")
    assert dedicate(seen, mount("xfs"), volume="v").access == "xfs"
    assert dedicate(seen, block(AccessMode(1)), volume="v").access == "block"
    with pytest.raises(MadeForOther, match="made for xfs"):
        dedicate(seen, mount("ext4"), volume="v")
