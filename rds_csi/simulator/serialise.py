"""``:serialize to=json`` and back, with the habits of RouterOS."""

import json
import re
from typing import Any, Final

from rds_csi.simulator.values import Array, Duration, Id, RuntimeFault, Value, text_of

_NUMERIC: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_ESCAPED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


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
        case None:
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
    quoted = []
    for char in text:
        if char in '"\\':
            quoted.append("\\" + char)
        elif char < " ":
            quoted.append(_ESCAPED.get(char, f"\\u{ord(char):04x}"))
        else:
            quoted.append(char)
    return '"' + "".join(quoted) + '"'


def from_json(text: str) -> Value:
    """The value of a JSON text (``:deserialize from=json``)."""
    try:
        return _value(json.loads(text.encode("latin-1")))
    except ValueError as error:
        raise RuntimeFault("bad json") from error


def _value(parsed: Any) -> Value:
    match parsed:
        case dict():
            return Array(keys={str(key): _value(item) for key, item in parsed.items()})
        case list():
            return Array([_value(item) for item in parsed])
        case float():
            return str(parsed)
        case str():
            return parsed.encode("utf-8", "surrogatepass").decode("latin-1")
        case None | bool() | int():
            return parsed
    raise RuntimeFault("bad json")
