"""``:serialize to=json`` and back, with the habits of RouterOS."""

import json
import re
from typing import Any, Final

from rds_csi.simulator.language.values import (
    Array,
    Duration,
    Id,
    Nil,
    RuntimeFault,
    Value,
    text_of,
    word_value,
)

_NUMERIC: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_UNSAFE: Final = re.compile(r'["\\\x00-\x1f]')
_ESCAPED: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
}


def to_json(value: Value, options: frozenset[str]) -> str:
    """The value as JSON on one line.

    Keys are sorted. Text that looks like a number becomes one with six decimals unless
    ``json.no-string-conversion`` is given. Bytes beyond ASCII are passed through.
    """
    pretty = "json.pretty" in options
    return _json(value, convert="json.no-string-conversion" not in options, pretty=pretty, depth=0)


def _json(  # noqa: PLR0911 (one branch per type)
    value: Value, *, convert: bool, pretty: bool, depth: int
) -> str:
    match value:
        case None | Nil():
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Array():
            return _json_array(value, convert=convert, pretty=pretty, depth=depth)
        case Id() | Duration():
            return _json_string(text_of(value))
    if convert and _NUMERIC.fullmatch(value):
        return f"{float(value):.6f}"
    return _json_string(value)


def _json_array(value: Array, *, convert: bool, pretty: bool, depth: int) -> str:
    def inner(item: Value) -> str:
        return _json(item, convert=convert, pretty=pretty, depth=depth + 1)

    separator = ": " if pretty else ":"
    if value.keys:
        opening, closing = "{", "}"
        pairs = [(text_of(key), item) for key, item in value.entries()]
        members = [f"{_json_string(key)}{separator}{inner(item)}" for key, item in pairs]
    else:
        opening, closing = "[", "]"
        members = [inner(item) for item in value.items]
    if not pretty or not members:
        return opening + ",".join(members) + closing
    indent = "\r\n" + "    " * (depth + 1)
    return opening + indent + f",{indent}".join(members) + "\r\n" + "    " * depth + closing


def _json_string(text: str) -> str:
    return f'"{_UNSAFE.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    return _ESCAPED.get(char, f"\\u{ord(char):04x}")


def from_json(text: str, options: frozenset[str]) -> Value:
    """The value of a JSON text (``:deserialize from=json``).

    Text that looks like a number, time or id becomes one, unless ``json.no-string-conversion``
    is given.
    """
    try:
        parsed = json.loads(text.encode("latin-1"))
    except ValueError as error:
        raise RuntimeFault("failed to parse json") from error
    return _value(parsed, convert="json.no-string-conversion" not in options)


def _value(parsed: Any, *, convert: bool) -> Value:
    match parsed:
        case dict():
            items = {str(key): _value(item, convert=convert) for key, item in parsed.items()}
            return Array(keys=items)
        case list():
            return Array([_value(item, convert=convert) for item in parsed])
        case str():
            text = parsed.encode("utf-8", "surrogatepass").decode("latin-1")
            return word_value(text) if convert else text
        case None | bool() | int():
            return parsed
    return str(parsed)
