"""The command tree: which menus, verbs and parameters exist in which version of RouterOS.

Anything not in it is a parse error of the whole line, as on a device. The versions come from the
console trees published per release by the restraml project.

Proven in ``tests/simulator/menus/test_tree.py``, ``tests/simulator/language/test_parser.py``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

Version = tuple[int, int]
FIRST: Final[Version] = (7, 0)
LAST: Final[Version] = (99, 0)


class Kind(Enum):
    """What may stand behind a parameter."""

    VALUE = auto()
    FLAG = auto()
    """The bare word switches it on."""
    CODE = auto()
    """A block that the command runs."""
    NAME = auto()
    """The name of a variable, not its value."""
    CHOICES = auto()
    """Words out of a fixed list, checked when parsing."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, and the versions that have it (``until`` is the first without)."""

    name: str
    kind: Kind = Kind.VALUE
    since: Version = FIRST
    until: Version = LAST
    choices: tuple[tuple[str, Version], ...] = ()

    def in_version(self, version: Version) -> bool:
        """Whether that version knows it."""
        return self.since <= version < self.until


@dataclass(frozen=True, slots=True)
class Verb:
    """A command: its parameters, which of them may be given without a name, and filters."""

    name: str
    parameters: tuple[Parameter, ...] = ()
    unnamed: tuple[str, ...] = ()
    filters: bool = False
    """Whether ``where`` may follow."""
    required: tuple[str, ...] = ()
    """Without these the line is refused before anything runs."""
    bare_filter: bool = False
    """Whether conditions may follow without ``where`` (``find slot=x``)."""
    since: Version = FIRST
    until: Version = LAST

    def parameter(self, name: str, version: Version) -> Parameter | None:
        """The parameter of that name, if the version has it."""
        for parameter in self.parameters:
            if parameter.name == name and parameter.in_version(version):
                return parameter
        return None


@dataclass(frozen=True, slots=True)
class MenuNode:
    """A console path with its verbs and the paths below."""

    verbs: dict[str, Verb] = field(default_factory=dict)
    menus: dict[str, "MenuNode"] = field(default_factory=dict)
    properties: frozenset[str] = frozenset()
    """What a ``where`` may name."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The command tree of one version."""

    version: Version
    root: MenuNode
    language: dict[str, Verb]
    """The colon commands."""


def flags(*names: str) -> tuple[Parameter, ...]:
    """Several flags."""
    return tuple(Parameter(name, Kind.FLAG) for name in names)


def values(*names: str) -> tuple[Parameter, ...]:
    """Several plain parameters."""
    return tuple(Parameter(name) for name in names)


def code(*names: str) -> tuple[Parameter, ...]:
    """Several blocks."""
    return tuple(Parameter(name, Kind.CODE) for name in names)


def verbs(version: Version, members: Iterable[Verb]) -> dict[str, Verb]:
    """Those that the version has, by name."""
    return {verb.name: verb for verb in members if verb.since <= version < verb.until}


PRINT_PARAMETERS: Final = (
    *flags("detail", "brief", "terse", "value-list", "as-value", "count-only", "without-paging"),
    *flags("stats", "show-ids"),
    *values("proplist", "from"),
)
PRINT: Final = Verb("print", PRINT_PARAMETERS, unnamed=("from",), filters=True)
FIND: Final = Verb("find", filters=True, bare_filter=True)
GET: Final = Verb("get", values("numbers", "value-name"), unnamed=("numbers", "value-name"))
REMOVE: Final = Verb("remove", values("numbers"), unnamed=("numbers",))

_NAME_PARAMETER: Final = Parameter("name", Kind.NAME)
_LOOP: Final = Parameter("counter", Kind.NAME)
_JSON_OPTIONS: Final = Parameter(
    "options",
    Kind.CHOICES,
    choices=(("json.pretty", (7, 16)), ("json.no-string-conversion", (7, 17))),
)

LANGUAGE: Final = (
    Verb("put", values("message"), unnamed=("message",)),
    Verb("local", (_NAME_PARAMETER, *values("value"), *code("do")), unnamed=("name", "value")),
    Verb("global", (_NAME_PARAMETER, *values("value"), *code("do")), unnamed=("name", "value")),
    Verb("set", (_NAME_PARAMETER, *values("value"), *code("do")), unnamed=("name", "value")),
    Verb(
        "if",
        (*values("condition"), *code("do", "else")),
        unnamed=("condition",),
        required=("condition", "do"),
    ),
    Verb(
        "do",
        (*code("command", "on-error"), *values("while")),
        unnamed=("command",),
        required=("command",),
    ),
    Verb(
        "while",
        (*values("condition"), *code("do")),
        unnamed=("condition",),
        required=("condition", "do"),
    ),
    Verb(
        "for",
        (_LOOP, *values("from", "to", "step"), *code("do")),
        unnamed=("counter",),
        required=("counter", "from", "to", "do"),
    ),
    Verb(
        "foreach",
        (_LOOP, *values("in"), *code("do")),
        unnamed=("counter",),
        required=("counter", "in", "do"),
    ),
    Verb(
        "onerror",
        (_NAME_PARAMETER, *code("in", "do")),
        unnamed=("name", "in"),
        required=("name", "in", "do"),
        since=(7, 13),
    ),
    Verb(
        "retry",
        (*code("command", "on-error"), *values("delay", "max")),
        unnamed=("command",),
        required=("command", "max"),
        since=(7, 15),
    ),
    Verb("error", values("message"), unnamed=("message",)),
    Verb("return", values("value"), unnamed=("value",)),
    Verb("delay", values("delay-time"), unnamed=("delay-time",)),
    Verb("nothing"),
    Verb("log", values("topics", "message"), unnamed=("topics", "message")),
    Verb("len", values("value"), unnamed=("value",)),
    Verb("pick", values("value", "begin", "end"), unnamed=("value", "begin", "end")),
    Verb("find", values("value", "key", "start"), unnamed=("value", "key", "start")),
    Verb("typeof", values("value"), unnamed=("value",)),
    Verb("tostr", values("value"), unnamed=("value",)),
    Verb("tonum", values("value"), unnamed=("value",)),
    Verb("tobool", values("value"), unnamed=("value",)),
    Verb("toid", values("value"), unnamed=("value",)),
    Verb("totime", values("value"), unnamed=("value",)),
    Verb("toarray", values("value"), unnamed=("value",)),
    Verb(
        "serialize",
        (*values("to", "value"), _JSON_OPTIONS),
        unnamed=("value",),
        since=(7, 13),
    ),
    Verb(
        "deserialize",
        (*values("from", "value"), _JSON_OPTIONS),
        unnamed=("value",),
        since=(7, 13),
    ),
)
