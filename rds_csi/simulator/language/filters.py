"""``where``: a condition made ready to be asked of many rows."""

from collections.abc import Callable

from rds_csi.simulator.language import operators
from rds_csi.simulator.language.interpreter import Interpreter, Row, Scope
from rds_csi.simulator.language.syntax import Binary, Node, Property, Unary
from rds_csi.simulator.language.values import Value

Term = Callable[[Row], Value]


async def term(node: Node, interpreter: Interpreter, scope: Scope) -> Term:
    """The part of a condition as a function of the row.

    What does not depend on the row (variables, nested commands) is evaluated once, here.
    """
    match node:
        case Property(name):
            return lambda row: row.get(name)
        case Unary(operator, operand):
            inner = await term(operand, interpreter, scope)
            return lambda row: operators.unary(operator, inner(row))
        case Binary(operator, left, right):
            first = await term(left, interpreter, scope)
            second = await term(right, interpreter, scope)
            return lambda row: operators.binary(operator, first(row), second(row))
    value = await interpreter.evaluate(node, scope)
    return lambda _: value


async def demanded(name: str, node: Node | None, interpreter: Interpreter, scope: Scope) -> Value:
    """The value a condition demands of a property (``name="x" and …``); None if it does not."""
    pending = [node]
    while pending:
        match pending.pop():
            case Binary("and", left, right):
                pending += [left, right]
            case Binary("=", Property(found), right) if found == name:
                return (await term(right, interpreter, scope))({})
    return None
