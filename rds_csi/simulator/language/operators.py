"""What the operators of an expression do to values."""

import functools
import ipaddress
import re
from typing import Final

from rds_csi.simulator.language.values import (
    NIL,
    Array,
    Duration,
    Id,
    Nil,
    RuntimeFault,
    Value,
    number_of,
    text_of,
    truth_of,
    type_of,
)

_CLASSES: Final = {
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:alnum:]": "A-Za-z0-9",
    "[:upper:]": "A-Z",
    "[:lower:]": "a-z",
    "[:space:]": r"\s",
    "[:xdigit:]": "0-9A-Fa-f",
    "[:punct:]": r"!-/:-@\[-`{-~",
}


def equal(left: Value, right: Value) -> bool:
    """Equality. An id equals no text and nothing equals no text; other types meet as text."""
    if isinstance(left, Id) != isinstance(right, Id) or _unset(left) != _unset(right):
        return False
    if isinstance(left, bool) or isinstance(right, bool):
        return _switch(left) is not None and _switch(left) == _switch(right)
    if isinstance(left, int) or isinstance(right, int):
        first, second = number_of(left), number_of(right)
        return first is not None and first == second
    return text_of(left) == text_of(right)


def _unset(value: Value) -> bool:
    return value is None or isinstance(value, Nil)


def _switch(value: Value) -> bool | None:
    """Yes or no, as a property's value may be given; a number is neither."""
    if isinstance(value, bool):
        return value
    return {"yes": True, "true": True, "no": False, "false": False}.get(
        value if isinstance(value, str) else ""
    )


def less(left: Value, right: Value) -> bool:
    """Order of numbers and times; text has none."""
    if isinstance(left, Duration) and isinstance(right, Duration):
        return left.milliseconds < right.milliseconds
    if isinstance(left, str) and isinstance(right, str):
        raise RuntimeFault("cannot compare if string is less than string")
    return number(left) < number(right)


def number(value: Value) -> int:
    """The number a value is, or a fault. Nothing counts as 0."""
    result = 0 if _unset(value) else number_of(value)
    if result is None:
        raise RuntimeFault(f"cannot use {type_of(value)} as a number")
    return result


def truth(value: Value) -> bool:
    """The condition a value is, or a fault."""
    result = truth_of(value)
    if result is None:
        raise RuntimeFault("conditional is not boolean")
    return result


def matches(text: Value, pattern: Value) -> bool:
    """``~``: whether the regular expression is found anywhere in the text."""
    return _compiled(text_of(pattern)).search(text_of(text)) is not None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A POSIX expression as Python's: the classes have other names."""
    for name, members in _CLASSES.items():
        pattern = pattern.replace(name, members)
    try:
        return re.compile(pattern)
    except re.error as error:
        raise RuntimeFault(f"bad regexp: {error}") from error


def index(container: Value, key: Value) -> Value:
    """``->``: an entry of an array, nothing when there is none."""
    if not isinstance(container, Array):
        return None
    if isinstance(key, int) and not isinstance(key, bool):
        return container.items[key] if 0 <= key < len(container.items) else NIL
    return container.keys.get(text_of(key))


def concatenate(left: Value, right: Value) -> Value:
    """``,``: one array of both."""
    joined = Array()
    for side in (left, right):
        if isinstance(side, Array):
            joined.items.extend(side.items)
            joined.keys.update(side.keys)
        else:
            joined.items.append(side)
    return joined


def within(address: Value, prefix: Value) -> bool:
    """``in``: whether an address lies in a prefix."""
    try:
        inner = ipaddress.ip_network(text_of(address), strict=False)
        outer = ipaddress.ip_network(text_of(prefix), strict=False)
    except ValueError as error:
        raise RuntimeFault("cannot test whether one value is in the other") from error
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise RuntimeFault("division by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _arithmetic(operator: str, left: int, right: int) -> int:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return _divide(left, right)
    return left - _divide(left, right) * right


def _compare(operator: str, left: Value, right: Value) -> bool:
    match operator:
        case "=":
            return equal(left, right)
        case "!=":
            return not equal(left, right)
        case "<":
            return less(left, right)
        case ">":
            return less(right, left)
        case "<=":
            return not less(right, left)
    return not less(left, right)


def unary(operator: str, value: Value) -> Value:
    """The result of a prefix operator; "set" is what a property alone asks in a filter."""
    match operator:
        case "!":
            return not truth(value)
        case "set":
            return value if isinstance(value, bool) else value not in (None, "")
    return -number(value)


def binary(  # noqa: PLR0911 (one branch per operator)
    operator: str, left: Value, right: Value
) -> Value:
    """The result of an infix operator. Both sides are known: RouterOS always looks at both."""
    match operator:
        case "and" | "or":
            first, second = truth(left), truth(right)
            return first and second if operator == "and" else first or second
        case "=" | "!=" | "<" | ">" | "<=" | ">=":
            return _compare(operator, left, right)
        case "~":
            return matches(left, right)
        case "in":
            return within(left, right)
        case "->":
            return index(left, right)
        case ".":
            return text_of(left) + text_of(right)
        case ",":
            return concatenate(left, right)
    result = _arithmetic(operator, number(left), number(right))
    return (result + 2**63) % 2**64 - 2**63
