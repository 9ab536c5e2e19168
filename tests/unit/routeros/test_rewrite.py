"""A text that replaces another: both come out whole, and what they share is said once."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import InvalidRequest
from rds_csi.model.access import AccessMode
from rds_csi.model.record import MAXIMUM_RECORD, Publication, Record
from rds_csi.routeros import commands, quoting
from rds_csi.routeros.rewrite import rewrite
from tests.unit.routeros.script import Script

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
NODES = [f"node-{number}.0123abcd" for number in range(40)]
HEAD = "rds-csi/2 owner=csi.rds-csi.io%2Ftest name=one created=1 access=block "


def meaning(expression: str, variables: dict[str, str]) -> str:
    """What RouterOS makes of it: constants and variables, joined by dots."""
    script = Script(expression)
    texts = iter(script.texts)
    assert re.fullmatch(r'\((""|\$csiSame[A-Z])( \. (""|\$csiSame[A-Z]))*\)', script.code)
    parts = script.code[1:-1].split(" . ")
    return "".join(next(texts) if part == '""' else variables[part[1:]] for part in parts)


def both(old: str, new: str) -> tuple[str, str, int]:
    """Both texts as RouterOS has them, and how many characters that took."""
    statements, was, becomes = rewrite(old, new)
    variables = {}
    for statement in statements:
        found = re.fullmatch(r":local (csiSame[A-Z]) (.*)", statement)
        assert found
        assert found[1] not in variables
        (variables[found[1]],) = Script(found[2]).texts
    length = sum(map(len, [*statements, was, becomes]))
    return meaning(was, variables), meaning(becomes, variables), length


@given(TEXT, TEXT, TEXT, TEXT)
def test_both_texts_come_out_whole(begin: str, one: str, other: str, end: str) -> None:
    for old, new in ((one, other), (begin + one + end, begin + other + end), ("", one), (one, "")):
        assert both(old, new)[:2] == (old, new)


@pytest.mark.parametrize("at", [0, 17, 39])
def test_striking_one_node_says_the_others_once(at: int) -> None:
    whole = HEAD + "formatted= nodes=" + ",".join(NODES)
    left = HEAD + "formatted= nodes=" + ",".join(node for node in NODES if node != NODES[at])
    assert both(whole, left)[:2] == (whole, left)
    assert both(whole, left)[2] < len(whole) + 250


def test_a_word_changed_before_the_nodes_costs_no_second_list() -> None:
    whole = HEAD + "formatted= nodes=" + ",".join(NODES)
    left = HEAD + "formatted=ext4 nodes=" + ",".join(NODES[:-1])
    assert both(whole, left)[2] < len(whole) + 300


def test_more_that_is_alike_than_there_are_variables() -> None:
    parts = ["x" * 60 + f"{number}," for number in range(40)]
    old, new = "a,".join(parts), "b,".join(parts)
    assert both(old, new)[:2] == (old, new)


def test_what_cannot_be_said_is_refused() -> None:
    for old, new in (("a\nb", "c"), ("c", "ü"), ("x" * 60 + "\n,a", "x" * 60 + "\n,b")):
        with pytest.raises(InvalidRequest):
            rewrite(old, new)


@pytest.mark.parametrize("name", ["%" * 128, "pvc-one"])
@pytest.mark.parametrize("node", [8, 60, 180])
def test_what_a_full_record_says_can_be_changed_in_a_line(name: str, node: int) -> None:
    """The first of many, the last, or all at once; of an older version, and formatted since."""
    full, number = Record(owner="csi.rds-csi.io/test", name=name, created=1, access="block"), 0
    while True:
        holder = Publication(f"{number:03}".ljust(node, "x"), AccessMode(5))
        if len(full.with_node(holder).encode()) > MAXIMUM_RECORD:
            break
        full, number = full.with_node(holder), number + 1
    assert number > 5
    plain = full.encode("rds-csi/1")
    for struck in (full.nodes[0].node, full.nodes[number // 2].node, full.nodes[-1].node, ""):
        for seen in ("", "ext4"):
            for before in (full.encode(), plain):
                after = full.without_node(struck).seen(seen)
                line = commands.change(
                    slot="pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8",
                    expected=before,
                    record=after,
                    exported=bool(after.nodes),
                    allowed_host=f"nqn.2014-08.org.nvmexpress:uuid:{'0' * 36}",
                    base_path="raid10/csi",
                )
                assert len(quoting.wrap(line, "0" * 16)) <= quoting.MAXIMUM_LINE
