"""One exec: parse the line, run it, collect what it prints."""

import re
from collections.abc import Iterator
from typing import Final

import asyncssh

from rds_csi.simulator.device.access import Rights, rights_of
from rds_csi.simulator.device.device import Device
from rds_csi.simulator.device.faults import Fault
from rds_csi.simulator.journal import Exec
from rds_csi.simulator.language.builtins import run_language_command
from rds_csi.simulator.language.grammar import Grammar
from rds_csi.simulator.language.interpreter import Interpreter, PromptSignal, ReturnSignal
from rds_csi.simulator.language.parser import parse
from rds_csi.simulator.language.scanner import ParseFault
from rds_csi.simulator.language.syntax import (
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
from rds_csi.simulator.language.values import RuntimeFault
from rds_csi.simulator.menus.administration import KINDS, stored_items
from rds_csi.simulator.menus.tree import MenuTree, grammar

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_ERROR_END: Final = "\n"
"""Error texts end with a bare LF, ``:put`` with CRLF (seen on 7.24.4)."""


class Console:
    """Runs lines on a device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        for kind in KINDS:
            stored_items(device, kind)  # a new device has a user, too
        self._grammar: Grammar | None = None
        self._grammar_settings: object = None

    @property
    def grammar(self) -> Grammar:
        """The command tree of the device as it is now."""
        if self._grammar is None or self._grammar_settings is not self._device.settings:
            self._grammar = grammar(self._device)
            self._grammar_settings = self._device.settings
        return self._grammar

    def rights_of(self, user: str, key: asyncssh.SSHKey, peer: str) -> Rights | None:
        """What the user may do who shows this key from that address; None: not log in."""
        return rights_of(self._device.store, user, key, peer)

    async def run(
        self,
        line: str,
        record: Exec,
        *,
        width: int,
        failing: Fault | None = None,
        rights: Rights | None = None,
    ) -> str:
        """Run ``line`` (bytes as characters); what it prints. ``record`` learns how it went.

        ``failing`` is a runtime error that one of its commands is to meet, ``rights`` what the
        user may do (None: everything).

        Raises PromptSignal when the console would wait for input.
        """
        menus = MenuTree(self._device, record, failing, rights)
        output: list[str] = []
        try:
            # Each line of text is a command line of its own: a line end ends a command.
            for command_line in _LINE_END.split(line):
                await self._run_line(command_line, record, menus, output, width)
        except PromptSignal as signal:
            record.outcome = "waiting-for-input"
            raise PromptSignal("".join(output) + signal.prompt) from None
        finally:
            self._device.store.save()
        return "".join(output)

    async def _run_line(
        self, line: str, record: Exec, menus: MenuTree, output: list[str], width: int
    ) -> None:
        """Parse and run one line; ``output`` grows by what it prints."""
        try:
            script = parse(line, self.grammar)
            record.parsed += [command.name for command in commands(script)]
        except ParseFault as fault:
            record.outcome = "parse-error"
            output.append(fault.message + _ERROR_END)
            return
        except RecursionError:
            record.outcome = "parse-error"
            output.append("syntax error (line 1 column 1)" + _ERROR_END)
            return
        quirks, globals_ = self._device.quirks, self._device.globals
        interpreter = Interpreter(
            menus,
            run_language_command,
            globals_,
            output,
            width=width,
            error_location=quirks.error_location,
        )
        record.outcome = "ok"
        try:
            await interpreter.run(script)
        except ReturnSignal:
            return
        except RuntimeFault as fault:
            record.outcome = "runtime-error"
            never = quirks.error_location == "never"
            output.append((fault.message if never else fault.located) + _ERROR_END)
        except RecursionError:
            record.outcome = "runtime-error"
            output.append("maximum recursion depth reached" + _ERROR_END)


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
