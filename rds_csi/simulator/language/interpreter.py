"""Running a parsed script: scopes, expressions, statements.

Commands of menus are handed to the menus; the language's own commands live in ``builtins.py``.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rds_csi.simulator.language import operators
from rds_csi.simulator.language.syntax import (
    ArrayLiteral,
    Binary,
    Command,
    FunctionCall,
    Literal,
    Node,
    Script,
    Substitution,
    Text,
    Unary,
    Variable,
    Word,
)
from rds_csi.simulator.language.values import (
    NIL,
    Array,
    Id,
    RuntimeFault,
    Value,
    is_id,
    text_of,
    word_value,
)

Row = Mapping[str, Value]
NEWLINE = "\r\n"


class ReturnSignal(Exception):
    """``:return``: leaves the script or function with a value."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


class PromptSignal(Exception):
    """The console asks for something and waits for ever: nobody types on an exec channel."""

    def __init__(self, prompt: str) -> None:
        super().__init__(prompt)
        self.prompt = prompt


@dataclass(frozen=True, slots=True)
class Function:
    """Code held by a variable."""

    script: Script


@dataclass(frozen=True, slots=True)
class _Global(Function):
    """What a scope holds for a name declared with ``:global``."""


@dataclass(slots=True)
class Scope:
    """The variables of a block, and the block around it."""

    outer: "Scope | None" = None
    variables: dict[str, Value | Function] = field(default_factory=dict)

    def find(self, name: str) -> "dict[str, Value | Function] | None":
        """Where the nearest declaration of the name keeps its value."""
        scope: Scope | None = self
        while scope is not None and name not in scope.variables:
            scope = scope.outer
        return scope.variables if scope else None


class Menus(Protocol):
    """The menus of a device."""

    async def execute(self, call: "Call") -> Value:
        """Run a command of a menu; its value."""


@dataclass(slots=True)
class Call:
    """A command about to run: its evaluated arguments, and a way to filter and to print."""

    command: Command
    arguments: dict[str, Value]
    interpreter: "Interpreter"
    scope: Scope

    def write(self, text: str) -> None:
        """Print ``text`` and a line end."""
        self.interpreter.write(text)

    def flag(self, name: str) -> bool:
        """Whether a flag is given."""
        return self.arguments.get(name) is True


class Interpreter:
    """One run of one line."""

    def __init__(
        self,
        menus: Menus,
        language: "Language",
        globals_: dict[str, Value | Function],
        output: list[str],
        *,
        width: int,
        error_location: str,
    ) -> None:
        self._menus = menus
        self._language = language
        self._globals = globals_
        self.width = width
        self._output = output
        self._error_location = error_location

    def write(self, text: str) -> None:
        """Print ``text`` and a line end."""
        self._output.append(text + NEWLINE)

    def caught(self, fault: RuntimeFault) -> str:
        """The text ``:onerror`` sees."""
        with_place = self._error_location == "always" or (
            self._error_location == "seen" and fault.command == ":error"
        )
        return fault.located if with_place else fault.message

    async def run(self, script: Script, scope: Scope | None = None) -> Value:
        """Run the statements; the value of the last one."""
        scope = Scope(outer=scope)
        result: Value = None
        for statement in script.statements:
            match statement:
                case Script():
                    result = await self.run(statement, scope)
                case FunctionCall():
                    result = await self._call_function(statement, scope)
                case Command():
                    result = await self._command(statement, scope)
        return result

    async def _command(self, command: Command, scope: Scope) -> Value:
        try:
            if not command.path:
                return await self._language(self, command, scope)
            arguments = {
                name: await self.argument(node, scope) for name, node in command.arguments.items()
            }
            return await self._menus.execute(Call(command, arguments, self, scope))
        except RuntimeFault as fault:
            fault.command = fault.command or command.name
            raise

    async def argument(self, node: Node, scope: Scope) -> Value:
        """The value of a menu command's argument: words stay text, but for item ids."""
        if isinstance(node, Word):
            return Id(node.text) if is_id(node.text) else node.text
        return await self.evaluate(node, scope)

    async def call(self, function: Function, arguments: Mapping[str, Value]) -> Value:
        """Run a function with its arguments as variables; what it returns."""
        scope = Scope(variables=dict(arguments))
        try:
            return await self.run(function.script, scope)
        except ReturnSignal as signal:
            return signal.value

    async def _call_function(self, call: FunctionCall, scope: Scope) -> Value:
        function = self._lookup(call.variable, scope)
        if not isinstance(function, Function):
            # "$x" alone as a statement has a value and no effect.
            return function
        arguments = {
            str(number): await self.evaluate(node, scope)
            for number, node in enumerate(call.positional, start=1)
        }
        for name, node in call.named.items():
            arguments[name] = await self.evaluate(node, scope)
        return await self.call(function, arguments)

    # Variables

    def _lookup(self, name: str, scope: Scope) -> Value | Function:
        found = scope.find(name)
        if found is None:
            return None
        held = found[name]
        return self._globals.get(name) if isinstance(held, _Global) else held

    def declare(self, name: str, value: Value | Function, scope: Scope) -> None:
        """``:local``."""
        scope.variables[name] = value

    def declare_global(self, name: str, value: Value | Function, scope: Scope) -> None:
        """``:global``: with a value it is set, without one the old value stays."""
        scope.variables[name] = _Global(Script(()))
        if value is not None or name not in self._globals:
            self._globals[name] = value

    def assign(self, name: str, value: Value | Function, scope: Scope) -> None:
        """``:set`` of a declared variable."""
        found = scope.find(name)
        if found is None:
            raise RuntimeFault(f"variable {name} is not declared")
        if isinstance(found[name], _Global):
            self._globals[name] = value
        else:
            found[name] = value

    # Expressions

    async def evaluate(  # noqa: PLR0911 (one branch per kind of node)
        self, node: Node, scope: Scope
    ) -> Value:
        """The value of an expression. What depends on an item is none: see ``filters.py``."""
        match node:
            case Literal(value):
                return value
            case Word(text):
                return word_value(text)
            case Variable(name):
                held = self._lookup(name, scope)
                return Array(["(code)"]) if isinstance(held, Function) else held
            case Text(parts):
                return "".join([text_of(await self.evaluate(p, scope)) for p in parts])
            case Substitution(script):
                return await self._substitute(script, scope)
            case ArrayLiteral(entries):
                return await self._array(entries, scope)
            case Unary(operator, operand):
                return operators.unary(operator, await self.evaluate(operand, scope))
            case Binary(operator, left, right):
                first = await self.evaluate(left, scope)
                return operators.binary(operator, first, await self.evaluate(right, scope))
        raise RuntimeFault("cannot evaluate code here")

    async def _substitute(self, script: Script, scope: Scope) -> Value:
        """``[commands]``; ``:return`` inside, outside of a function, gives the value."""
        if not script.statements:
            return NIL
        try:
            return await self.run(script, scope)
        except ReturnSignal as signal:
            return signal.value

    async def _array(self, entries: tuple[tuple[str | None, Node], ...], scope: Scope) -> Array:
        array = Array()
        for key, node in entries:
            value = await self.evaluate(node, scope)
            if key is None:
                array.items.append(value)
            else:
                array.keys[key] = value
        return array


Language = Callable[[Interpreter, Command, Scope], Awaitable[Value]]
"""Runs a command of the language itself."""
