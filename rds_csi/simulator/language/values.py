"""The values of the RouterOS script language.

RouterOS strings are byte strings. They are held here as ``str`` with one character per byte
(Latin-1), so that lengths, picks and regular expressions count bytes as RouterOS does; only the
edges (SSH, files, the Python interface) convert.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final


class RuntimeFault(Exception):
    """A command failed while running; ``:onerror`` can catch it.

    ``argument`` names the parameter at fault, ``command`` the command, once it is known.
    """

    def __init__(self, message: str, *, argument: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.argument = argument
        self.command = ""

    @property
    def located(self) -> str:
        """The message with the place it came from: ``no such item (/disk/get; line 1)``."""
        if not self.command:
            return self.message
        argument = f" ({self.argument})" if self.argument else ""
        return f"{self.message} ({self.command}{argument}; line 1)"


@dataclass(frozen=True, slots=True)
class Nil:
    """The outcome of a failed conversion or search: nothing was found. See also ``None``."""


NIL: Final = Nil()


@dataclass(frozen=True, slots=True)
class Id:
    """An internal item id such as ``*2B``."""

    text: str


@dataclass(frozen=True, slots=True)
class Duration:
    """A time value."""

    milliseconds: int


@dataclass(slots=True)
class Array:
    """An array: positional ``items`` and named ``keys``; RouterOS keeps the named ones sorted."""

    items: list["Value"] = field(default_factory=list)
    keys: dict[str, "Value"] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items) + len(self.keys)

    def entries(self) -> Iterator[tuple["Value", "Value"]]:
        """Pairs of index or key and value, in the order ``:foreach`` visits them."""
        yield from enumerate(self.items)
        for key in sorted(self.keys):
            yield key, self.keys[key]

    def values(self) -> list["Value"]:
        """The values alone, in the same order."""
        return [value for _, value in self.entries()]


Value = str | int | bool | None | Nil | Id | Duration | Array
"""``None`` is what RouterOS calls nothing: no value was ever given."""

_DURATION: Final = re.compile(
    r"(?=\d)(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?"
)
_CLOCK: Final = re.compile(r"(\d+):(\d\d):(\d\d)")
_NUMBER: Final = re.compile(r"-?\d+|0x[0-9a-fA-F]+")
_ID: Final = re.compile(r"\*{1,2}[0-9A-Fa-f]+")


def parse_duration(text: str) -> Duration | None:
    """``1w2d3h4m5s`` or ``hh:mm:ss``; None when it is neither."""
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return Duration((hours * 3600 + minutes * 60 + seconds) * 1000)
    match = _DURATION.fullmatch(text)
    if not match or text.isdigit():
        return None
    weeks, days, hours, minutes, seconds, rest = (int(part or 0) for part in match.groups())
    total = ((weeks * 7 + days) * 24 + hours) * 3600 + minutes * 60 + seconds
    return Duration(total * 1000 + rest)


def word_value(text: str) -> Value:
    """What an unquoted word means where nothing says which type is wanted."""
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        return int(text, 0) if text.startswith("0x") else int(text)
    if _ID.fullmatch(text):
        return Id(text)
    duration = parse_duration(text)
    return text if duration is None else duration


def is_id(text: str) -> bool:
    """Whether an unquoted word is a well-formed item id."""
    return bool(_ID.fullmatch(text))


def duration_text(duration: Duration) -> str:
    """As ``:put`` shows it: ``1w2d03:04:05``, ``00:00:00.100``."""
    seconds, milliseconds = divmod(duration.milliseconds, 1000)
    days, rest = divmod(seconds, 86400)
    weeks, days = divmod(days, 7)
    prefix = (f"{weeks}w" if weeks else "") + (f"{days}d" if days else "")
    suffix = f".{milliseconds:03}" if milliseconds else ""
    return f"{prefix}{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}{suffix}"


def text_of(value: Value) -> str:
    """The value as text, as ``.`` and ``:put`` give it. Nothing is escaped in arrays."""
    match value:
        case None | Nil():
            return ""
        case bool():
            return "true" if value else "false"
        case Id():
            return value.text
        case Duration():
            return duration_text(value)
        case Array():
            named = (f"{key}={text_of(value.keys[key])}" for key in sorted(value.keys))
            return ";".join([*(text_of(item) for item in value.items), *named])
    return str(value)


def type_of(value: Value) -> str:  # noqa: PLR0911 (one branch per type)
    """The answer of ``:typeof``."""
    match value:
        case None:
            return "nothing"
        case Nil():
            return "nil"
        case bool():
            return "bool"
        case int():
            return "num"
        case Id():
            return "id"
        case Duration():
            return "time"
        case Array():
            return "array"
    return "str"


def number_of(value: Value) -> int | None:
    """The value as a number, or None when it is none (``:tonum``): whole numbers only."""
    match value:
        case bool():
            return None
        case int():
            return value
        case Duration():
            return value.milliseconds // 1000
        case str() if _NUMBER.fullmatch(value):
            return int(value, 0) if value.startswith("0x") else int(value)
    return None


def truth_of(value: Value) -> bool | None:
    """The value as a condition, or None when it cannot be one: text never can."""
    return value != 0 if isinstance(value, bool | int) else None


def array_of(value: Value) -> Array:
    """The value as an array (``:toarray``): text is split at commas."""
    match value:
        case Array():
            return value
        case None | Nil() | "":
            return Array()
        case str():
            return Array([word_value(part) for part in value.split(",")])
    return Array([value])


def array(values: Iterable[Value]) -> Array:
    """An array of positional values."""
    return Array(list(values))


def from_text(text: str) -> str:
    """A byte string out of real text, UTF-8 as the wire carries it."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def to_text(value: str) -> str:
    """Real text out of a byte string; bytes that are no UTF-8 become surrogates."""
    return value.encode("latin-1").decode("utf-8", "surrogateescape")
