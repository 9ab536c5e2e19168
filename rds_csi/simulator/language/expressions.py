"""Expressions: what stands in parentheses and after ``where``.

Precedence from loose to tight: or, and, comparison, ``,``, ``.``, ``+ -``, ``* / %``, the prefix
operators, ``->``. In a ``where`` clause an unquoted word is a property of the item, except to the
right of a comparison, and ``$name`` means the property before it means the variable.
"""

import re
from collections.abc import Callable
from typing import Final

from rds_csi.simulator.language.scanner import Scanner
from rds_csi.simulator.language.syntax import Binary, Literal, Node, Property, Unary, Word

_COMPARISON: Final = re.compile(r"(<=|>=|!=|=|<(?!<)|>(?!>)|~|in\b)")
_OR: Final = re.compile(r"(\|\||or\b)")
_AND: Final = re.compile(r"(&&|and\b)")
_COMMA: Final = re.compile(r"(,)")
_CONCATENATION: Final = re.compile(r"(\.)")
_WHERE_CONCATENATION: Final = re.compile(r"(\.(?![a-z]))")
_SUM: Final = re.compile(r"(\+|-(?!>))")
_PRODUCT: Final = re.compile(r"(\*|/|%)")
_PREFIX: Final = re.compile(r"(!(?!=)|not\b|-(?=[\d$(\[]))")
_WORD: Final = re.compile(
    r"\*{1,2}[0-9A-Fa-f]+|\d+(?:[.:]\d+)*(?:/\d+)?[A-Za-z0-9]*"
    r"|[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*"
)
_WHERE_WORD: Final = re.compile(r"\*{1,2}[0-9A-Fa-f]+|[A-Za-z0-9._-]+")
_PROPERTY: Final = re.compile(r"\.?[A-Za-z][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)*")

SYNONYMS: Final = {"||": "or", "&&": "and", "not": "!"}


class ExpressionParser(Scanner):
    """The expression part of the language."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self._properties: frozenset[str] | None = None

    def expression(self, end: str) -> Node:
        """An expression up to ``end``, which is consumed. An empty one is nothing."""
        self.deeper()
        self.skip_blanks()
        if self.take(end):
            self.shallower()
            return Literal(None)
        node = self._or()
        self.skip_blanks()
        self.expect(end)
        self.shallower()
        return node

    def where(self, properties: frozenset[str], ends: str) -> Node | None:
        """A filter up to one of ``ends`` or the end of the line; conditions in a row mean "and".

        None when nothing stands there, which every item passes.
        """
        outer, self._properties = self._properties, properties
        node: Node | None = None
        self.skip_blanks()
        while self.peek() and self.peek() not in ends:
            condition = self._or()
            node = condition if node is None else Binary("and", node, condition)
            self.skip_blanks()
        self._properties = outer
        return node

    def outside_where(self) -> frozenset[str] | None:
        """Leave the ``where`` for a nested command; give the result back to ``inside_where``."""
        outer, self._properties = self._properties, None
        return outer

    def inside_where(self, outer: frozenset[str] | None) -> None:
        """Return to the ``where`` a nested command stood in."""
        self._properties = outer

    def _chain(self, operators: re.Pattern[str], operand: Callable[[], Node]) -> Node:
        """Left-associative operators of one precedence."""
        node = operand()
        while True:
            start = self.position
            self.skip_blanks()
            operator = self.match(operators)
            if not operator:
                self.position = start
                return node
            self.skip_blanks()
            name = operator.group(1)
            node = Binary(SYNONYMS.get(name, name), node, operand())

    def _or(self) -> Node:
        return self._chain(_OR, self._and)

    def _and(self) -> Node:
        return self._chain(_AND, self._comparison)

    def _comparison(self) -> Node:
        node = self._comma()
        while True:
            start = self.position
            self.skip_blanks()
            operator = self.match(_COMPARISON)
            if not operator:
                self.position = start
                return self._condition(node)
            self.skip_blanks()
            right = self._where_literal() or self._comma()
            node = Binary(operator.group(1), node, right)

    @staticmethod
    def _condition(node: Node) -> Node:
        """A property that is compared with nothing asks whether it is set."""
        return Unary("set", node) if isinstance(node, Property) else node

    def _comma(self) -> Node:
        return self._chain(_COMMA, self._concatenation)

    def _concatenation(self) -> Node:
        # In a filter ".id" begins the next condition.
        operators = _CONCATENATION if self._properties is None else _WHERE_CONCATENATION
        return self._chain(operators, self._sum)

    def _sum(self) -> Node:
        return self._chain(_SUM, self._product)

    def _product(self) -> Node:
        return self._chain(_PRODUCT, self._prefix)

    def _prefix(self) -> Node:
        if operator := self.match(_PREFIX):
            self.skip_blanks()
            self.deeper()
            operand = self._prefix()
            self.shallower()
            name = SYNONYMS.get(operator.group(1), operator.group(1))
            return Unary(name, self._condition(operand) if name == "!" else operand)
        return self._indexed()

    def _indexed(self) -> Node:
        node = self._operand()
        while True:
            start = self.position
            self.skip_blanks()
            if not self.take("->"):
                self.position = start
                return node
            self.skip_blanks()
            node = Binary("->", node, self._operand())

    def _operand(self) -> Node:
        if self.peek() == "$":
            variable = self.variable()
            if self._properties and variable.name in self._properties:
                return Property(variable.name)
            return variable
        if self.peek() and self.peek() in '"[({':
            return self.value()
        if self._properties is not None:
            return self._property()
        word = self.match(_WORD)
        if not word:
            raise self.fault()
        return Word(word.group())

    def _property(self) -> Node:
        """An unquoted word in a ``where``: a property, or a literal if it cannot be one."""
        start = self.position
        properties = self._properties or frozenset()
        name = self.match(_PROPERTY)
        if name and name.group() in properties:
            return Property(name.group())
        self.position = start
        if name and name.group() not in ("true", "false", "yes", "no"):
            raise self.fault("expected end of command", start)
        word = self.match(_WHERE_WORD)
        if not word:
            raise self.fault()
        return Word(word.group())

    def _where_literal(self) -> Node | None:
        """The unquoted word to the right of a comparison in a ``where``."""
        if self._properties is None:
            return None
        word = self.match(_WHERE_WORD)
        return Word(word.group()) if word else None
