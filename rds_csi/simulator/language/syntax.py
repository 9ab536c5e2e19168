"""The tree the parser builds and the interpreter walks.

Proven in ``tests/simulator/language/test_parser.py``.
"""

from dataclasses import dataclass, field

from rds_csi.simulator.language.values import Value


@dataclass(frozen=True, slots=True)
class Literal:
    """A value known when parsing."""

    value: Value


@dataclass(frozen=True, slots=True)
class Word:
    """An unquoted word: its type depends on who asks."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string with something to evaluate in it."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """``$name``."""

    name: str


@dataclass(frozen=True, slots=True)
class Property:
    """A property of the item at hand, in a ``where`` clause."""

    name: str


@dataclass(frozen=True, slots=True)
class Substitution:
    """``[commands]``: the value of the last one."""

    script: "Script"


@dataclass(frozen=True, slots=True)
class ArrayLiteral:
    """``{a; "k"=v}``: pairs of key or None, and value."""

    entries: tuple[tuple[str | None, "Node"], ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """A prefix operator."""

    operator: str
    operand: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """An infix operator."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Script:
    """Statements in order; also what stands in a block or as a code argument."""

    statements: tuple["Statement", ...]


@dataclass(frozen=True, slots=True)
class Command:
    """One command with its arguments, already checked against the command tree.

    ``path`` is empty for the language's own commands (``:put``).
    """

    path: tuple[str, ...]
    verb: str
    arguments: dict[str, "Node"] = field(default_factory=dict)
    where: "Node | None" = None

    @property
    def name(self) -> str:
        """``/disk/add`` or ``:put``."""
        return "/" + "/".join((*self.path, self.verb)) if self.path else ":" + self.verb


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """``$function 1 name=value``."""

    variable: str
    positional: tuple["Node", ...]
    named: dict[str, "Node"]


Node = (
    Literal
    | Word
    | Text
    | Variable
    | Property
    | Substitution
    | ArrayLiteral
    | Unary
    | Binary
    | Script
)
Statement = Command | FunctionCall | Script
