"""Parsing a whole line into a script, checked against the command tree.

Abbreviated command names, which a device accepts, are refused: a program should not send them.
"""

import re
from typing import Final

from rds_csi.simulator.language.expressions import ExpressionParser
from rds_csi.simulator.language.grammar import Grammar, Kind, MenuNode, Parameter, Verb, Version
from rds_csi.simulator.language.scanner import ParseFault
from rds_csi.simulator.language.syntax import (
    Command,
    FunctionCall,
    Literal,
    Node,
    Script,
    Statement,
    Word,
)

_WORD: Final = re.compile(r"[a-z0-9-]+")
_ARGUMENT: Final = re.compile(r"([A-Za-z.][A-Za-z0-9.-]*)(=?)")
_VARIABLES: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:,[A-Za-z][A-Za-z0-9]*)?")
_DECLARING: Final = frozenset({"local", "global"})
_BLOCK_VARIABLES: Final = frozenset({"for", "foreach", "onerror"})
_MONITOR_FLAGS: Final = frozenset({"once", "follow", "append", "interval", "duration"})


def parse(line: str, grammar: Grammar) -> Script:
    """The script in ``line``. Raises :class:`ParseFault`; has no effect on anything."""
    return CommandParser(line, grammar).script("")


class CommandParser(ExpressionParser):
    """Commands, their paths and arguments."""

    def __init__(self, line: str, grammar: Grammar) -> None:
        super().__init__(line)
        self._grammar = grammar
        self._menu: tuple[tuple[str, ...], MenuNode] = ((), grammar.root)
        self._declared: list[set[str]] = []

    @property
    def _version(self) -> Version:
        return self._grammar.version

    def script(self, end: str) -> Script:
        """Statements up to ``end`` (or the end of the line, if empty), which is consumed."""
        self.deeper()
        filter_outside, menu_outside = self.outside_where(), self._menu
        statements: list[Statement] = []
        self._declared.append(set())
        while not self._script_ends(end):
            statement = self._statement()
            if statement is not None:
                statements.append(statement)
            self.skip_blanks()
            if self.peek() not in (";", end) and self.peek():
                raise self.fault("expected end of command")
        self._declared.pop()
        self.inside_where(filter_outside)
        self._menu = menu_outside
        self.shallower()
        return Script(tuple(statements))

    def _script_ends(self, end: str) -> bool:
        """Skip separators; whether the script is over, its end consumed."""
        self.skip_blanks()
        while self.take(";"):
            self.skip_blanks()
        if self.peek() == "#":
            self.position = len(self.line)
        if not self.peek():
            if end:
                raise self.fault()
            return True
        return bool(end) and self.take(end)

    def _statement(self) -> Statement | None:
        """One statement; None for a mere change of menu."""
        match self.peek():
            case "{":
                self.position += 1
                return self.script("}")
            case "$":
                return self._function_call()
            case ":":
                self.position += 1
                return self._language_command()
            case "/":
                self.position += 1
                return self._menu_command((), self._grammar.root)
        return self._menu_command(*self._menu)

    def _function_call(self) -> FunctionCall:
        name = self.variable().name
        positional: list[Node] = []
        named: dict[str, Node] = {}
        self.skip_blanks()
        while not self._arguments_end():
            start = self.position
            argument = self.match(_ARGUMENT)
            if argument and argument.group(2):
                named[argument.group(1)] = self.value()
            else:
                self.position = start
                positional.append(self.value())
            self.skip_blanks()
        return FunctionCall(name, tuple(positional), named)

    def _language_command(self) -> Command:
        start = self.position
        word = self.match(_WORD)
        verb = self._grammar.language.get(word.group()) if word else None
        if verb is None:
            raise self._bad_name(start, word)
        return self._language_verb(verb)

    def _language_verb(self, verb: Verb) -> Command:
        """A language command; what it declares is known from there on, or in its blocks."""
        if verb.name not in _BLOCK_VARIABLES:
            return self._command((), verb, frozenset())
        self._declared.append(set())
        command = self._command((), verb, frozenset())
        self._declared.pop()
        return command

    def _menu_command(self, path: tuple[str, ...], menu: MenuNode) -> Statement | None:
        """The command at the end of a path given with slashes or blanks."""
        while True:
            self.skip_blanks()
            start = self.position
            word = self.match(_WORD)
            name = word.group() if word else ""
            if name in menu.menus:
                path, menu = (*path, name), menu.menus[name]
                if self.take("/"):
                    continue
                self.skip_blanks()
                if self._arguments_end() or self.peek() == "{":
                    return self._enter(path, menu)
                continue
            if not path and name in self._grammar.language:
                return self._language_verb(self._grammar.language[name])
            if name not in menu.verbs:
                raise self._bad_name(start, word)
            # Within its arguments, "[find …]" means this menu's find.
            outside, self._menu = self._menu, (path, menu)
            command = self._command(path, menu.verbs[name], menu.properties)
            self._menu = outside
            return command

    def _enter(self, path: tuple[str, ...], menu: MenuNode) -> Statement | None:
        """A path without a command: for the rest of the block, or for the block that follows."""
        outside, self._menu = self._menu, (path, menu)
        if not self.take("{"):
            return None
        block = self.script("}")
        self._menu = outside
        return block

    def _bad_name(self, start: int, word: re.Match[str] | None) -> ParseFault:
        if not word:
            return self.fault("syntax error", start)
        return self.fault(f"bad command name {word.group()}", start)

    def _arguments_end(self) -> bool:
        return self.peek() in ("", ";", "]", "}", ")")

    def _command(self, path: tuple[str, ...], verb: Verb, properties: frozenset[str]) -> Command:
        """The arguments of a command, and the command."""
        arguments: dict[str, Node] = {}
        where: Node | None = None
        self.skip_blanks()
        if verb.bare_filter:
            self._take_where()
            where = self.where(properties, ";]})")
        while not verb.bare_filter and not self._arguments_end():
            if verb.filters and self._take_where():
                where = self.where(properties, ";]})")
                break
            name, value = self._argument(verb, arguments)
            arguments[name] = value
            self.skip_blanks()
        missing = [name for name in verb.required if name not in arguments]
        if missing:
            raise self.fault(f"missing value(s) of argument(s) {' '.join(missing)}")
        return Command(path, verb.name, arguments, where)

    def _take_where(self) -> bool:
        start = self.position
        word = self.match(_WORD)
        if word and word.group() == "where" and self.peek() != "=":
            return True
        self.position = start
        return False

    def _argument(self, verb: Verb, given: dict[str, Node]) -> tuple[str, Node]:
        """The next argument: ``name=value``, a flag, or an unnamed value."""
        start = self.position
        match = self.match(_ARGUMENT)
        if match:
            parameter = verb.parameter(match.group(1), self._version)
            if parameter and match.group(2):
                if parameter.kind is Kind.FLAG:
                    raise self.fault("expected end of command", self.position - 1)
                return parameter.name, self._parameter_value(parameter, verb)
            if parameter and parameter.kind is Kind.FLAG:
                return parameter.name, Literal(value=True)
            if match.group(2):
                raise self.fault("expected end of command", start)
        self.position = start
        for name in verb.unnamed:
            unnamed = verb.parameter(name, self._version)
            if name in given or not unnamed:
                continue
            if unnamed.kind is not Kind.CODE or self.peek() == "{":
                return name, self._parameter_value(unnamed, verb)
        if match and match.group(1) in _MONITOR_FLAGS:
            raise self.fault(f"bad parameter {match.group(1)}", start)
        raise self.fault("expected end of command", start)

    def _parameter_value(self, parameter: Parameter, verb: Verb) -> Node:
        match parameter.kind:
            case Kind.CODE:
                return self._code(verb)
            case Kind.NAME:
                return self._variable_name(verb)
            case Kind.CHOICES:
                return self._choices(parameter)
        return self.value()

    def _code(self, verb: Verb) -> Script:
        """A block. That of a function sees no variables from outside."""
        self.skip_blanks()
        self.expect("{")
        outside = self._declared
        if verb.name in _DECLARING or verb.name == "set":
            self._declared = []
        script = self.script("}")
        self._declared = outside
        return script

    def _variable_name(self, verb: Verb) -> Node:
        """The name of a variable, or ``($array->"key")`` to set an entry of one."""
        start = self.position
        if self.peek() and self.peek() in '"(':
            node = self.value()
        else:
            self.take("$")
            match = self.match(_VARIABLES)
            if not match:
                raise self.fault("expected variable name")
            if self.peek() in ("_", "-", ","):
                raise self.fault()
            node = Literal(match.group())
        if isinstance(node, Literal) and isinstance(node.value, str):
            if verb.name != "set":
                self._declared[-1].update(node.value.split(","))
            elif not any(node.value in names for names in self._declared):
                raise self.fault("syntax error", start)
        return node

    def _choices(self, parameter: Parameter) -> Node:
        """Words out of a list; one the version does not know kills the line."""
        start = self.position
        node = self.value()
        text = node.text if isinstance(node, Word) else None
        if isinstance(node, Literal) and isinstance(node.value, str):
            text = node.value
        known = {name for name, since in parameter.choices if since <= self._version}
        if text is not None and not known.issuperset(text.split(",")):
            raise self.fault("syntax error", start)
        return node
