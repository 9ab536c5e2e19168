"""Reading a command line character by character: words, quoted strings, values.

A line is parsed as a whole before anything of it runs, so every fault here means that nothing
happened. Columns count from 1 and bytes, as RouterOS reports them.
"""

import re
from typing import Final

from rds_csi.simulator.language.syntax import (
    ArrayLiteral,
    Literal,
    Node,
    Script,
    Substitution,
    Text,
    Variable,
    Word,
)

_ESCAPES: Final = {
    '"': '"',
    "\\": "\\",
    "$": "$",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "_": " ",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}
_HEX: Final = re.compile(r"[0-9A-F]{2}")
_BLANKS: Final = re.compile(r"[ \t]*")
_NAME: Final = re.compile(r"[A-Za-z0-9]+")
_BARE: Final = re.compile(r"[A-Za-z0-9._:/,@*+%-]+")
_KEY: Final = re.compile(r"([A-Za-z0-9._-]+)[ \t]*=")
_MAXIMUM_DEPTH: Final = 40


class ParseFault(Exception):
    """The line cannot be parsed: none of it runs, and nothing in the line can catch it."""

    def __init__(self, what: str, position: int) -> None:
        self.message = f"{what} (line 1 column {position + 1})"
        super().__init__(self.message)


class Scanner:
    """A position in a line, and the values that may stand there."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.position = 0
        self._depth = 0

    def script(self, end: str) -> Script:
        """Statements up to ``end``, which is consumed; the command parser knows how."""
        raise NotImplementedError

    def expression(self, end: str) -> Node:
        """An expression up to ``end``, which is consumed; the expression parser knows how."""
        raise NotImplementedError

    # Characters

    def fault(self, what: str = "syntax error", at: int | None = None) -> ParseFault:
        """The fault to raise, at the present position unless told."""
        return ParseFault(what, self.position if at is None else at)

    def peek(self) -> str:
        """The next character, empty at the end."""
        return self.line[self.position : self.position + 1]

    def take(self, text: str) -> bool:
        """Consume ``text`` if it comes next."""
        if not self.line.startswith(text, self.position):
            return False
        self.position += len(text)
        return True

    def expect(self, text: str) -> None:
        """Consume ``text`` or raise."""
        if not self.take(text):
            raise self.fault()

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Consume what the pattern matches here, if it does."""
        match = pattern.match(self.line, self.position)
        if match:
            self.position = match.end()
        return match

    def skip_blanks(self) -> None:
        """Consume spaces and tabs."""
        self.match(_BLANKS)

    def deeper(self) -> None:
        """Count one level of nesting; too many are refused before Python refuses them."""
        self._depth += 1
        if self._depth > _MAXIMUM_DEPTH:
            raise self.fault()

    def shallower(self) -> None:
        """Leave a level of nesting."""
        self._depth -= 1

    # Values

    def value(self) -> Node:
        """An argument's value: quoted, variable, substitution, expression, array or word."""
        match self.peek():
            case '"':
                return self.quoted()
            case "$":
                return self.variable()
            case "[":
                return self.substitution()
            case "(":
                self.position += 1
                return self.expression(")")
            case "{":
                return self.array()
        return self.word()

    def word(self) -> Node:
        """An unquoted word."""
        start = self.position
        match = self.match(_BARE)
        if not match:
            raise self.fault()
        text = match.group()
        if text.startswith("*") and not re.fullmatch(r"\*{1,2}[0-9A-Fa-f]+", text):
            raise self.fault("expected item id", start)
        return Word(text)

    def substitution(self) -> Substitution:
        """``[commands]``."""
        self.expect("[")
        return Substitution(self.script("]"))

    def variable(self) -> Variable:
        """``$name`` or ``$"any name"``."""
        self.expect("$")
        if self.peek() == '"':
            name = self.quoted()
            if not isinstance(name, Literal) or not isinstance(name.value, str):
                raise self.fault()
            return Variable(name.value)
        match = self.match(_NAME)
        if not match:
            raise self.fault()
        return Variable(match.group())

    def array(self) -> Node:
        """``{a; b}`` or ``{"k"=v}``, mixed if need be."""
        self.expect("{")
        self.deeper()
        entries: list[tuple[str | None, Node]] = []
        self.skip_blanks()
        while not self.take("}"):
            entries.append((self._key(), self.value()))
            self.skip_blanks()
            if not self.take(";") and self.peek() != "}":
                raise self.fault()
            self.skip_blanks()
        self.shallower()
        return ArrayLiteral(tuple(entries))

    def _key(self) -> str | None:
        """The key before an array's entry, if one stands there."""
        if match := self.match(_KEY):
            self.skip_blanks()
            return match.group(1)
        start = self.position
        if self.peek() == '"':
            key = self.quoted()
            self.skip_blanks()
            if self.take("=") and isinstance(key, Literal) and isinstance(key.value, str):
                self.skip_blanks()
                return key.value
        self.position = start
        return None

    # Quoted strings

    def quoted(self) -> Node:
        """A quoted string: escapes resolved, variables and substitutions kept for later."""
        self.expect('"')
        parts: list[Node] = []
        text: list[str] = []
        while (char := self.peek()) != '"':
            if not char:
                raise self.fault()
            if char == "$":
                parts.append(Literal("".join(text)))
                text.clear()
                parts.append(self._evaluated())
            else:
                self.position += 1
                text.append(self._escape() if char == "\\" else char)
        self.position += 1
        if not parts:
            return Literal("".join(text))
        return Text((*parts, Literal("".join(text))))

    def _evaluated(self) -> Node:
        """What follows a ``$`` within quotes: a name, ``[commands]`` or ``(expression)``."""
        following = self.line[self.position + 1 : self.position + 2]
        if following == "[":
            self.position += 1
            return self.substitution()
        if following == "(":
            self.position += 2
            return self.expression(")")
        if following == '"':
            raise self.fault()
        return self.variable()

    def _escape(self) -> str:
        """The character an escape stands for; the backslash is consumed already."""
        if match := self.match(_HEX):
            return chr(int(match.group(), 16))
        char = self.peek()
        if char not in _ESCAPES or not char:
            raise self.fault()
        self.position += 1
        return _ESCAPES[char]
