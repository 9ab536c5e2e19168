import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import RouterOSError
from rds_csi.routeros.reply import (
    HEADINGS,
    Reply,
    as_boolean,
    as_integer,
    as_items,
    as_text,
    decode,
    excerpt,
    read,
)

N = "0123456789abcdef"


def test_success_is_the_marker_on_the_last_line_that_is_not_empty() -> None:
    assert read(f"disk\r\n[]\r\nCSI-OK-{N}\r\n\r\n", N) == Reply(("disk", "[]"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\r\n",
        "[]",
        "CSI-OK-fedcba9876543210\r\n",
        f"CSI-OK-{N}\r\nmore\r\n",
        f"CSI-OK-{N[:-1]}",
        f'"CSI-OK-{N}"',
        "expected end of command (line 1 column 7)",
    ],
)
def test_anything_else_is_no_reply(text: str) -> None:
    assert read(text, N) is None


def test_an_error_is_what_stands_behind_its_marker_with_all_its_lines() -> None:
    reply = read(f"disk\r\n[]\r\nCSI-ERR-{N} failure: a\r\nb (:error; line 1)\r\n", N)
    assert reply == Reply(("disk", "[]"), "failure: a\nb (:error; line 1)")


@given(st.binary())
def test_no_output_breaks_the_reader(output: bytes) -> None:
    read(decode(output), N)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans())))
def test_json_comes_back_whatever_is_in_it(items: list[dict[str, object]]) -> None:
    text = f"disks\r\n{json.dumps(items)}\r\nCSI-OK-{N}\r\n"
    reply = read(text, N)
    assert reply is not None
    assert reply.items("disks") == items


def test_json_that_a_console_wrapped_in_the_middle_of_a_value_is_joined() -> None:
    reply = Reply(("disk", '[{"file-path":"/storage-pool/metal-csi/pvc-xxx', '-yyy.img"}]'))
    assert reply.items("disk") == [{"file-path": "/storage-pool/metal-csi/pvc-xxx-yyy.img"}]


def test_several_answers_below_the_same_heading_keep_their_order() -> None:
    reply = Reply(("disk", '[{"a":1}]', "file", "[]", "disk", "[]"))
    assert reply.values("disk") == [[{"a": 1}], []]
    assert reply.items("disk") == []
    assert reply.has("file")
    assert not reply.has("created")


@pytest.mark.parametrize(
    "lines", [(), ("disk",), ("disk", "no json"), ("disk", "[1]"), ("disk", "3")]
)
def test_what_is_no_list_of_items_is_an_error_and_never_nothing(lines: tuple[str, ...]) -> None:
    with pytest.raises(RouterOSError):
        Reply(lines).items("disk")


def test_a_lone_object_is_a_list_of_one() -> None:
    assert as_items({"a": 1}) == [{"a": 1}]


def test_no_heading_looks_like_json() -> None:
    assert not any(heading[0] in '[{"' for heading in HEADINGS)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        (5.0, 5),
        ("5", 5),
        ("113 229", 113229),
        ("1 099 511 627 776", 1099511627776),
        ("2048.000000", 2048),
        ("0", 0),
        (" 7 ", 7),
    ],
)
def test_integers_in_every_shape(value: object, number: int) -> None:
    assert as_integer(value) == number


@pytest.mark.parametrize(
    "value", [None, True, "", "50.0GiB", "1.5", 1.5, "1 2", "12 3456", "x", [], "1e9", float("inf")]
)
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(RouterOSError):
        as_integer(value)


@given(st.integers(0, 2**63 - 1))
def test_grouped_digits_lose_nothing(number: int) -> None:
    assert as_integer(f"{number:,}".replace(",", " ")) == number


def test_booleans_and_text() -> None:
    assert [as_boolean(value) for value in (True, "true", "yes", "Yes")] == [True] * 4
    assert [as_boolean(value) for value in (False, "false", "no", "", None, 1, "1")] == [False] * 7
    assert [as_text(value) for value in (None, "a", 5, True, False)] == ["", "a", "5", "yes", "no"]


def test_long_output_is_cut_in_the_middle_of_a_message() -> None:
    assert excerpt("short") == "short"
    cut = excerpt("a" * 5000 + "b" * 5000)
    assert len(cut) < 2100
    assert cut.startswith("aaa")
    assert cut.endswith("bbb")


spaces = st.text(" \t\r", max_size=3)
shown = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=8))


@given(st.lists(st.tuples(shown, spaces, spaces), max_size=5), spaces, spaces, spaces)
def test_items_one_by_one_are_those_of_the_list(
    items: list[tuple[dict[str, object], str, str]], before: str, within: str, behind: str
) -> None:
    """However RouterOS pads them: the same as what parses it in one go."""
    inner = ",".join(f"{left}{json.dumps(item)}{right}" for item, left, right in items)
    text = f"{before}[{inner or within}]{behind}"
    assert json.loads(text) == [item for item, _, _ in items]
    assert list(Reply(("disks", text)).each("disks")) == [item for item, _, _ in items]


@pytest.mark.parametrize(
    "text",
    ["[", "[{}", "[{},", "[{},]", "[{} {}]", "[,]", "[{}]x", "[{}] [", "x", "[x]", '[{"a":1}'],
)
def test_a_list_that_is_cut_or_garbled_is_no_list(text: str) -> None:
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(RouterOSError, match="printed no JSON below 'disks'"):
        list(Reply(("disks", text)).each("disks"))
    with pytest.raises(RouterOSError, match="printed no JSON below 'disks'"):
        Reply(("disks", text)).items("disks")


@pytest.mark.parametrize("text", ["[1]", '["a"]', "[{}, null]", "5", "null", "[[{}]]"])
def test_a_list_of_anything_else_is_none_of_items(text: str) -> None:
    with pytest.raises(RouterOSError, match="no list of items"):
        Reply(("disks", text)).items("disks")


def test_json_that_is_too_deep_is_none() -> None:
    with pytest.raises(RouterOSError, match="no JSON"):
        Reply(("disks", "[" + '{"a":[' * 100_000)).items("disks")


def test_a_long_list_is_not_made_in_one_go() -> None:
    """The second item is looked at when it is come to."""
    reply = Reply(("disks", '[{"a":1},rubbish]'))
    assert next(reply.each("disks")) == {"a": 1}
