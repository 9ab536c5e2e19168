import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import InvalidRequest
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import volume_id
from rds_csi.routeros import commands, quoting

NONCE = "0123456789abcdef"
LEGACY = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"
OWNER = "csi.rds-csi.io/test"


def unquote(quoted: str) -> str:
    """What RouterOS makes of a string constant (manual, "Constant Escape Sequences")."""
    assert quoted[0] == quoted[-1] == '"'
    inner = quoted[1:-1]
    assert not re.search(r'(?<!\\)(\\\\)*[$"]', inner), "a bare $ or quote"
    return re.sub(r"\\(.)", r"\1", inner)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ('a"b', r'"a\"b"'),
        ("a\\b", r'"a\\b"'),
        ("$x $[/system/reboot] $(1+1)", r'"\$x \$[/system/reboot] \$(1+1)"'),
        ('\\"$', r'"\\\"\$"'),
        ("[ ] { } ; # ~ ( ) ? '", '"[ ] { } ; # ~ ( ) ? \'"'),
    ],
)
def test_quote(text: str, quoted: str) -> None:
    assert quoting.quote(text) == quoted


@pytest.mark.parametrize(
    "text", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "é", "\u2028", "a\u202eb"]
)
def test_quote_refuses_what_cannot_be_carried(text: str) -> None:
    with pytest.raises(InvalidRequest):
        quoting.quote(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_quoted_text_comes_back_as_it_went(text: str) -> None:
    assert unquote(quoting.quote(text)) == text


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_quoted_pattern_matches_its_text_alone(text: str) -> None:
    pattern = quoting.quote_pattern(text)
    assert re.fullmatch(pattern, text)
    assert not re.fullmatch(pattern, text + "x")


@pytest.mark.parametrize("slot", [volume_id("a"), "snap-" + "0" * 27, "a", LEGACY])
def test_slots(slot: str) -> None:
    assert quoting.check_slot(slot) == slot


@pytest.mark.parametrize(
    "slot", ["", "-a", "A", "a b", 'a"', "a" * 33, LEGACY + "0", "a\n", "ä", "$x", "*2B"]
)
def test_no_slots(slot: str) -> None:
    with pytest.raises(InvalidRequest):
        quoting.check_slot(slot)


def test_paths() -> None:
    assert quoting.check_file_path("raid10/csi/a-1_b.img") == "raid10/csi/a-1_b.img"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "/a/b",
        "a/../b",
        "a/./b",
        "a//b",
        "a/b/",
        "a/b c",
        "a/$b",
        "a/b\n",
        "a/" + "b" * 250,
    ],
)
def test_no_paths(path: str) -> None:
    with pytest.raises(InvalidRequest):
        quoting.check_file_path(path)


def test_host_nqns() -> None:
    for nqn in ("", "nqn.2014-08.org.nvmexpress:uuid:4f1c"):
        assert quoting.check_host_nqn(nqn) == nqn
    for nqn in ("iqn.x", "nqn.", 'nqn."', "nqn.a b", "nqn." + "x" * 220):
        with pytest.raises(InvalidRequest):
            quoting.check_host_nqn(nqn)


@pytest.mark.parametrize("value", [-1, 2**63])
def test_numbers_outside_of_what_routeros_counts(value: int) -> None:
    with pytest.raises(InvalidRequest):
        quoting.number(value)


def test_wrap_is_the_marker_pattern() -> None:
    assert quoting.wrap("CMD", NONCE) == (
        ':onerror e in={ CMD; :put "CSI-OK-0123456789abcdef" } '
        'do={ :put ("CSI-ERR-0123456789abcdef " . $e) }'
    )


def test_wrap_takes_one_short_line_and_a_real_nonce() -> None:
    for command in ("a\nb", "a\rb", "ä", "x" * quoting.MAXIMUM_LINE):
        with pytest.raises(InvalidRequest):
            quoting.wrap(command, NONCE)
    with pytest.raises(ValueError):
        quoting.wrap("x", '" }')


def longest(nodes: int) -> dict[str, int]:
    """The length of every line with the longest legal names, all percent-encoded."""
    record = Record(
        owner="d" * 63 + "/" + "c" * 64,
        name="ü" * 64,
        created=10**10,
        access="block",
        source="snap-" + "0" * 27,
        nodes=tuple(
            Publication(f"{number}" + "ü" * 127, AccessMode.MULTI_NODE_MULTI_WRITER)
            for number in range(nodes)
        ),
    )
    slot, nqn = volume_id("x"), "nqn.2000-02.com.mikrotik:" + "n" * 190
    path, base = "p" * 100 + "/" + "d" * 149, "p" * 50 + "/" + "d" * 149
    lines = {
        "create": commands.create(
            slot=slot,
            size=2**44,
            file_path=path,
            nqn=nqn,
            port=65535,
            record=record.without_node(""),
            reserve=2**40,
        ),
        "create for a claim": commands.create(
            slot=slot,
            size=2**44,
            file_path=path,
            nqn=nqn,
            port=65535,
            record=Record(
                owner=record.owner, name="pvc-" + "0" * 36, created=10**10, access="block"
            ).made_for("n" * 63, "c" * 253),
            reserve=2**40,
        ),
        "change": commands.change(
            slot=slot,
            expected=record.encode(),
            record=record,
            exported=True,
            allowed_host="nqn." + "h" * 219,
            base_path=base,
            opens=True,
        ),
        "expand": commands.expand(
            slot=LEGACY,
            size=2**44,
            owner=record.owner,
            base_path=base,
            reserve=2**40,
            published=False,
        ),
        "delete": commands.delete(slot=LEGACY, owner=record.owner, base_path=base),
        "list": commands.listing(record.owner),
        "show": commands.show(slot),
        "capacity": commands.capacity("p" * 100),
    }
    return {name: len(quoting.wrap(line, NONCE)) for name, line in lines.items()}


def test_lines_stay_below_4_kb_with_the_longest_names() -> None:
    lengths = longest(nodes=1)
    assert max(lengths.values()) < quoting.MAXIMUM_LINE, lengths


def test_too_many_nodes_of_the_longest_names_are_a_clear_refusal() -> None:
    with pytest.raises(InvalidRequest, match="too long together"):
        longest(nodes=3)


def test_every_query_asks_for_text_as_text_and_nothing_runs_for_ever() -> None:
    for line in (commands.show("a"), commands.listing(OWNER), commands.capacity("p")):
        assert line.count(":serialize") == line.count("options=json.no-string-conversion")
        assert "interval" not in line
        assert "follow" not in line
