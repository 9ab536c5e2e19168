"""What operators do to values: equality of types, order, arithmetic, patterns, addresses."""

import pytest

from rds_csi.simulator.language.operators import binary, unary
from rds_csi.simulator.language.values import NIL, Array, Duration, Id, RuntimeFault, Value

SMALLEST, LARGEST = -(2**63), 2**63 - 1


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("5", 5, True),
        ("05", 5, True),
        ("5 ", 5, False),
        (Id("*1"), "*1", False),
        (Id("*1"), Id("*1"), True),
        ("", None, False),
        (None, NIL, True),
        (0, None, False),
        (True, "yes", True),
        (True, "true", True),
        (False, "no", True),
        (True, 1, False),
        (False, "", False),
        (Duration(1000), "00:00:01", True),
        (Array([1, 2]), "1;2", True),
    ],
)
def test_what_equals_what(left: Value, right: Value, same: bool) -> None:
    assert binary("=", left, right) is same
    assert binary("=", right, left) is same
    assert binary("!=", left, right) is not same


@pytest.mark.parametrize(
    ("left", "right"), [(1, 2), ("1", 2), (Duration(1), Duration(2)), (None, 1), ("9", 10)]
)
def test_order(left: Value, right: Value) -> None:
    assert [binary(each, left, right) for each in ("<", "<=", ">", ">=")] == [
        True,
        True,
        False,
        False,
    ]
    assert [binary(each, right, right) for each in ("<", "<=", ">", ">=")] == [
        False,
        True,
        False,
        True,
    ]


def test_text_has_no_order() -> None:
    for operator in ("<", ">", "<=", ">="):
        with pytest.raises(RuntimeFault, match="cannot compare if string is less than string"):
            binary(operator, "9", "10")


@pytest.mark.parametrize(
    ("operator", "left", "right", "result"),
    [
        ("+", LARGEST, 1, SMALLEST),
        ("-", SMALLEST, 1, LARGEST),
        ("*", LARGEST, 2, -2),
        ("/", -7, 2, -3),
        ("/", 7, -2, -3),
        ("/", -7, -2, 3),
        ("/", SMALLEST, -1, SMALLEST),
        ("%", -7, 2, -1),
        ("%", 7, -2, 1),
        ("+", None, 4, 4),
        ("-", "0x10", 6, 10),
        ("+", Duration(5500), 1, 6),
    ],
)
def test_arithmetic_is_of_64_bits_and_cuts_towards_zero(
    operator: str, left: Value, right: Value, result: int
) -> None:
    assert binary(operator, left, right) == result


@pytest.mark.parametrize(
    ("operator", "left", "right", "text"),
    [
        ("/", 1, 0, "division by zero"),
        ("%", 1, 0, "division by zero"),
        ("+", True, 1, "cannot use bool as a number"),
        ("-", "x", 1, "cannot use str as a number"),
        ("*", Array(), 1, "cannot use array as a number"),
        ("and", True, "yes", "conditional is not boolean"),
        ("or", None, True, "conditional is not boolean"),
        ("~", "a", "(", "bad regexp"),
        ("in", "x", "10.0.0.0/8", "cannot test whether one value is in the other"),
    ],
)
def test_faults(operator: str, left: Value, right: Value, text: str) -> None:
    with pytest.raises(RuntimeFault, match=text):
        binary(operator, left, right)


def test_and_and_or_take_numbers_for_conditions() -> None:
    assert binary("and", 1, True) is True
    assert binary("and", 2, 0) is False
    assert binary("or", 0, 3) is True
    assert binary("or", False, 0) is False


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("pvc-12", "[[:digit:]]+$", True),
        ("pvc-", "[[:digit:]]", False),
        ("A", "^[[:lower:]]", False),
        ("a.img", "\\.img$", True),
        ("aximg", "\\.img$", False),
        ("x-y", "[[:punct:]]", True),
        ("xyz", "y", True),
    ],
)
def test_patterns_are_found_anywhere_and_know_the_classes_of_posix(
    text: str, pattern: str, found: bool
) -> None:
    assert binary("~", text, pattern) is found


@pytest.mark.parametrize(
    ("address", "prefix", "inside"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.0.0.0/16", "10.0.0.0/8", True),
        ("10.0.0.0/8", "10.0.0.0/16", False),
        ("fd00::1", "fd00::/8", True),
        ("fd00::1", "10.0.0.0/8", False),
    ],
)
def test_addresses_lie_in_prefixes(address: str, prefix: str, inside: bool) -> None:
    assert binary("in", address, prefix) is inside


def test_what_is_not_in_an_array_is_nil_by_number_and_nothing_by_name() -> None:
    array = Array(["a", "b"], {"k": 1, "1": "one"})
    assert binary("->", array, 1) == "b"
    assert binary("->", array, 2) == NIL
    assert binary("->", array, -1) == NIL
    assert binary("->", array, "k") == 1
    assert binary("->", array, "1") == "one"
    assert binary("->", array, "x") is None
    assert binary("->", "no array", 0) is None


def test_joining() -> None:
    assert binary(".", 1, True) == "1true"
    assert binary(".", None, NIL) == ""
    assert binary(",", Array([1], {"k": 2}), 3) == Array([1, 3], {"k": 2})
    assert binary(",", 1, Array([2])) == Array([1, 2])
    left = Array([1])
    binary(",", left, 2)
    assert left == Array([1]), "neither side is changed"


def test_prefixes() -> None:
    assert unary("!", 0) is True
    assert unary("-", "5") == -5
    assert unary("-", None) == 0
    with pytest.raises(RuntimeFault, match="conditional is not boolean"):
        unary("!", "true")
    assert [unary("set", value) for value in (True, False, "x", "", None, 0)] == [
        True,
        False,
        True,
        False,
        False,
        True,
    ]
