"""The values of the language: what a word means, and what a value becomes as text or number."""

import pytest

from rds_csi.simulator.language.values import (
    NIL,
    Array,
    Duration,
    Id,
    RuntimeFault,
    Value,
    array_of,
    duration_text,
    from_text,
    is_id,
    number_of,
    parse_duration,
    text_of,
    to_text,
    truth_of,
    type_of,
    word_value,
)

HOUR = 3600 * 1000
NAMED = Array([1, True], {"b": "y", "a": Id("*2B")})


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("true", True),
        ("false", False),
        ("yes", "yes"),
        ("-12", -12),
        ("0x1F", 31),
        ("0x", "0x"),
        ("1.5", "1.5"),
        ("*2B", Id("*2B")),
        ("**2B", Id("**2B")),
        ("***2B", "***2B"),
        ("*2G", "*2G"),
        ("1h30m", Duration(HOUR * 3 // 2)),
        ("01:00:01", Duration(HOUR + 1000)),
        ("raid10", "raid10"),
    ],
)
def test_what_a_word_means(word: str, value: Value) -> None:
    assert word_value(word) == value
    assert type(word_value(word)) is type(value)
    assert is_id(word) is isinstance(value, Id)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1w2d3h4m5s6ms", ((9 * 24 + 3) * 3600 + 4 * 60 + 5) * 1000 + 6),
        ("5m", 300_000),
        ("5ms", 5),
        ("100:00:00", 100 * HOUR),
    ],
)
def test_a_duration(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == Duration(milliseconds)


@pytest.mark.parametrize("text", ["", "5", "5m1h", "1:2:3", "s", "1d ", "-5s"])
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "00:00:00"),
        (100, "00:00:00.100"),
        (26 * HOUR, "1d02:00:00"),
        (7 * 24 * HOUR, "1w00:00:00"),
        ((8 * 24 + 1) * HOUR + 61_000, "1w1d01:01:01"),
    ],
)
def test_a_duration_as_text(milliseconds: int, text: str) -> None:
    assert duration_text(Duration(milliseconds)) == text


@pytest.mark.parametrize(
    ("value", "text", "kind"),
    [
        (None, "", "nothing"),
        (NIL, "", "nil"),
        (True, "true", "bool"),
        (7, "7", "num"),
        (Id("*1"), "*1", "id"),
        (Duration(1000), "00:00:01", "time"),
        ("a;b", "a;b", "str"),
        (NAMED, "1;true;a=*2B;b=y", "array"),
    ],
)
def test_a_value_as_text_and_its_type(value: Value, text: str, kind: str) -> None:
    assert text_of(value) == text
    assert type_of(value) == kind


@pytest.mark.parametrize(
    ("value", "number", "truth"),
    [
        (True, None, True),
        (0, 0, False),
        (-3, -3, True),
        ("0x10", 16, None),
        (" 5", None, None),
        ("1.5", None, None),
        ("true", None, None),
        (Duration(1999), 1, None),
        (None, None, None),
        (NIL, None, None),
        (Array([1]), None, None),
    ],
)
def test_a_value_as_number_and_as_condition(
    value: Value, number: int | None, truth: bool | None
) -> None:
    assert number_of(value) == number
    assert truth_of(value) is truth


def test_an_array_shows_positions_first_and_names_in_order() -> None:
    assert len(NAMED) == 4
    assert list(NAMED.entries()) == [(0, 1), (1, True), ("a", Id("*2B")), ("b", "y")]
    assert NAMED.values() == [1, True, Id("*2B"), "y"]


@pytest.mark.parametrize(
    ("value", "items"),
    [("1,x,2m", [1, "x", Duration(120_000)]), ("", []), (None, []), (NIL, []), (5, [5])],
)
def test_what_becomes_an_array(value: Value, items: list[Value]) -> None:
    assert array_of(value) == Array(items)
    assert array_of(NAMED) is NAMED


def test_bytes_are_characters_and_none_is_lost() -> None:
    assert from_text("é") == "\xc3\xa9"
    assert to_text("\xc3\xa9") == "é"
    broken = "\xff\xc3"
    assert from_text(to_text(broken)) == broken


def test_a_fault_says_where_it_came_from_once_that_is_known() -> None:
    fault = RuntimeFault("no such item")
    assert fault.located == "no such item"
    fault.command = "/disk/get"
    assert fault.located == "no such item (/disk/get; line 1)"
    typed = RuntimeFault("bad", argument="type")
    typed.command = "/disk/add"
    assert typed.located == "bad (/disk/add (type); line 1)"
