"""One exec: parse the line, run it, collect what it prints."""

from collections.abc import Iterator

from rds_csi.simulator.device import Device
from rds_csi.simulator.faults import Fault
from rds_csi.simulator.grammar import Grammar
from rds_csi.simulator.interpreter import NEWLINE, Interpreter, PromptSignal, ReturnSignal
from rds_csi.simulator.journal import Exec
from rds_csi.simulator.language import run_language_command
from rds_csi.simulator.menus.tree import MenuTree, grammar
from rds_csi.simulator.parser import parse
from rds_csi.simulator.scanner import ParseFault
from rds_csi.simulator.syntax import (
    ArrayLiteral,
    Binary,
    Command,
    FunctionCall,
    Node,
    Script,
    Statement,
    Substitution,
    Text,
    Unary,
)
from rds_csi.simulator.values import RuntimeFault


class Console:
    """Runs lines on a device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._grammar: Grammar | None = None
        self._grammar_settings: object = None

    @property
    def grammar(self) -> Grammar:
        """The command tree of the device as it is now."""
        if self._grammar is None or self._grammar_settings is not self._device.settings:
            self._grammar = grammar(self._device)
            self._grammar_settings = self._device.settings
        return self._grammar

    async def run(
        self, line: str, record: Exec, *, width: int, failing: Fault | None = None
    ) -> str:
        """Run ``line`` (bytes as characters); what it prints. ``record`` learns how it went.

        ``failing`` is a runtime error that one of its commands is to meet.

        Raises PromptSignal when the console would wait for input.
        """
        try:
            script = parse(line, self.grammar)
        except ParseFault as fault:
            record.outcome = "parse-error"
            return fault.message + NEWLINE
        except RecursionError:
            record.outcome = "parse-error"
            return "syntax error (line 1 column 1)" + NEWLINE
        record.parsed = [command.name for command in commands(script)]
        menus = MenuTree(self._device, record, failing)
        interpreter = Interpreter(menus, run_language_command, self._device.globals, width)
        record.outcome = "ok"
        try:
            await interpreter.run(script)
        except ReturnSignal:
            pass
        except RuntimeFault as fault:
            record.outcome = "runtime-error"
            interpreter.write(fault.message)
        except RecursionError:
            record.outcome = "runtime-error"
            interpreter.write("maximum recursion depth reached")
        except PromptSignal as signal:
            record.outcome = "waiting-for-input"
            raise PromptSignal("".join(interpreter.output) + signal.prompt) from None
        finally:
            self._device.store.save()
        return "".join(interpreter.output)


def commands(  # noqa: C901, PLR0912 (one branch per kind of node)
    node: Node | Statement | None,
) -> Iterator[Command]:
    """All commands in a tree, outer before inner."""
    match node:
        case Command():
            yield node
            for argument in node.arguments.values():
                yield from commands(argument)
            yield from commands(node.where)
        case FunctionCall():
            for argument in (*node.positional, *node.named.values()):
                yield from commands(argument)
        case Script():
            for statement in node.statements:
                yield from commands(statement)
        case Substitution(script):
            yield from commands(script)
        case Text(parts):
            for part in parts:
                yield from commands(part)
        case ArrayLiteral(entries):
            for _, value in entries:
                yield from commands(value)
        case Unary(_, operand):
            yield from commands(operand)
        case Binary(_, left, right):
            yield from commands(left)
            yield from commands(right)
