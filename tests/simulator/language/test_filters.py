"""``where`` made ready: asked once of what is outside, and of each row of what is in it."""

import pytest

from rds_csi.simulator.language.builtins import run_language_command
from rds_csi.simulator.language.filters import demanded, term
from rds_csi.simulator.language.interpreter import Call, Interpreter, Row, Scope
from rds_csi.simulator.language.syntax import (
    Binary,
    Command,
    Literal,
    Node,
    Property,
    Script,
    Substitution,
    Unary,
    Variable,
)
from rds_csi.simulator.language.values import Value


class Menus:
    """One command that counts how often it is run."""

    def __init__(self) -> None:
        self.calls = 0

    async def execute(self, call: Call) -> Value:
        self.calls += 1
        return "a"


@pytest.fixture
def menus() -> Menus:
    return Menus()


@pytest.fixture
def interpreter(menus: Menus) -> Interpreter:
    return Interpreter(menus, run_language_command, {}, [], width=80, error_location="seen")


ROWS: list[Row] = [{"slot": "a", "size": 1}, {"slot": "b", "size": 2}, {"size": 3}]
ASKED = Substitution(Script((Command(("x",), "get"),)))


def equals(name: str, right: Node) -> Binary:
    return Binary("=", Property(name), right)


@pytest.mark.parametrize(
    ("condition", "sizes"),
    [
        (equals("slot", Literal("a")), [1]),
        (equals("slot", Variable("wanted")), [2]),
        (equals("slot", ASKED), [1]),
        (Unary("!", equals("slot", Literal("a"))), [2, 3]),
        (Unary("set", Property("slot")), [1, 2]),
        (Binary(">", Property("size"), Literal(1)), [2, 3]),
        (Binary("or", equals("slot", Literal("b")), equals("size", Literal(3))), [2, 3]),
    ],
)
async def test_rows_are_chosen(interpreter: Interpreter, condition: Node, sizes: list[int]) -> None:
    scope = Scope(variables={"wanted": "b"})
    holds = await term(condition, interpreter, scope)
    assert [row["size"] for row in ROWS if holds(row) is True] == sizes


async def test_a_nested_command_is_run_once_for_all_rows(
    interpreter: Interpreter, menus: Menus
) -> None:
    holds = await term(equals("slot", ASKED), interpreter, Scope())
    for row in ROWS:
        holds(row)
    assert menus.calls == 1


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        (equals("slot", Literal("a")), "a"),
        (Binary("and", equals("size", Literal(1)), equals("slot", Literal("a"))), "a"),
        (Binary("or", equals("slot", Literal("a")), equals("size", Literal(1))), None),
        (Unary("!", equals("slot", Literal("a"))), None),
        (Binary("!=", Property("slot"), Literal("a")), None),
        (Binary("~", Property("slot"), Literal("a")), None),
        (None, None),
    ],
)
async def test_what_a_condition_demands_of_a_property(
    interpreter: Interpreter, condition: Node | None, value: Value
) -> None:
    """A look-up by name may stand for the whole search only where nothing else could match."""
    assert await demanded("slot", condition, interpreter, Scope()) == value
