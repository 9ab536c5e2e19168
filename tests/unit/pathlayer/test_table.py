"""Tables and status lines, as Linux 6.1 showed them, and as nobody should have made them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.pathlayer.table import PathStatus, Status, Table, UnknownMap

SEEN = (
    "0 131072 multipath 4 queue_if_no_path retain_attached_hw_handler queue_mode bio 0 "
    "1 1 round-robin 0 1 1 7:0 1 "
)
NUMBERS = st.tuples(st.integers(0, 2**20 - 1), st.integers(0, 2**20 - 1))
TABLES = st.builds(
    Table,
    sectors=st.integers(1, 2**40),
    paths=st.lists(NUMBERS, max_size=4, unique=True).map(tuple),
    waits=st.booleans(),
)


def as_shown(table: Table) -> str:
    """How the kernel shows a table that was loaded: with a feature more."""
    words = table.encode().split()
    count, at = int(words[3]), 4 + table.waits
    return " ".join(
        [*words[:3], str(count + 1), *words[4:at], "retain_attached_hw_handler", *words[at:]]
    )


def test_the_line_that_makes_a_map() -> None:
    table = Table(sectors=131072, paths=((259, 1),))
    assert table.encode() == (
        "0 131072 multipath 3 queue_if_no_path queue_mode bio 0 1 1 round-robin 0 1 1 259:1 1"
    )
    assert table.size == 64 * 1024**2


def test_a_map_without_a_path_has_no_group() -> None:
    assert Table(sectors=8).encode().endswith("bio 0 0 0")


def test_what_the_kernel_shows_is_read() -> None:
    assert Table.parse(SEEN) == Table(sectors=131072, paths=((7, 0),))
    failing = SEEN.replace("4 queue_if_no_path", "3")
    assert Table.parse(failing) == Table(sectors=131072, paths=((7, 0),), waits=False)
    empty = "0 131072 multipath 4 queue_if_no_path retain_attached_hw_handler queue_mode bio 0 0 0 "
    assert Table.parse(empty) == Table(sectors=131072)


@given(TABLES)
def test_every_table_is_read_back_as_it_was_made(table: Table) -> None:
    assert Table.parse(table.encode()) == table
    assert Table.parse(as_shown(table)) == table


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 131072 linear 7:0 0",
        SEEN.replace("multipath", "crypt"),
        SEEN.replace("0 131072", "8 131072", 1),
        SEEN.replace("0 131072", "0 0", 1),
        SEEN.replace("queue_mode bio", "queue_mode mq"),
        SEEN.replace("bio 0", "bio 1 alua"),
        SEEN.replace("round-robin", "service-time"),
        SEEN.replace("1 1 round-robin", "2 1 round-robin"),
        SEEN.replace("0 1 1 7:0 1", "0 2 1 7:0 1 7:0 1"),
        SEEN.replace("7:0", "/dev/nvme0n1"),
        SEEN + "1",
        SEEN[:-4],
    ],
)
def test_any_other_table_is_nobodys(text: str) -> None:
    with pytest.raises(UnknownMap):
        Table.parse(text)


@given(TABLES, st.data())
def test_a_changed_word_never_reads_as_the_same_table(table: Table, data: st.DataObject) -> None:
    words = table.encode().split()
    at = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(st.sampled_from(["0", "1", "2", "99", "7:7", "bio", "A", "-1", "x"]))
    if words[at] == other:
        return
    words[at] = other
    try:
        found = Table.parse(" ".join(words))
    except UnknownMap:
        return
    assert found != table


def test_no_table_is_made_that_the_kernel_would_take_for_another() -> None:
    with pytest.raises(ValueError, match="0 sectors"):
        Table(sectors=0)
    with pytest.raises(ValueError, match="twice"):
        Table(sectors=8, paths=((259, 1), (259, 1)))


def test_the_status_tells_which_path_works() -> None:
    working = Status.parse("0 131072 multipath 2 1 0 0 1 1 E 0 1 0 7:0 A 1 ")
    assert working.works([(7, 0)])
    assert not working.works([(7, 1)])
    assert not working.works([])
    assert working.paths == (PathStatus(device=(7, 0), active=True, failures=1),)
    failed = Status.parse("0 131072 multipath 2 1 0 0 1 1 E 0 1 0 7:0 F 1 ")
    assert not failed.works([(7, 0)])
    assert not Status.parse("0 131072 multipath 2 1 0 0 0 0 ").works([(7, 0)])


def test_one_of_two_paths_is_enough() -> None:
    found = Status.parse("0 8 multipath 2 0 0 0 1 1 A 0 2 0 259:1 F 3 259:4 A 0 ")
    assert found.works([(259, 4)])
    assert not found.works([(259, 1)])
    assert [path.active for path in found.paths] == [False, True]


@given(st.text(alphabet="0123456789 :AFEDmultipah-", max_size=80))
def test_garbage_is_no_status(text: str) -> None:
    with pytest.raises(UnknownMap):
        Status.parse(f"0 8 linear {text}")
    with contextlib.suppress(UnknownMap):
        Status.parse(text)
