"""What the menus that list items have in common: print, find, get, set, remove, add."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rds_csi.simulator.device.texts import NO_SUCH_ITEM, bad_enum
from rds_csi.simulator.language.filters import demanded, term
from rds_csi.simulator.language.interpreter import Call, PromptSignal, Row
from rds_csi.simulator.language.operators import truth
from rds_csi.simulator.language.values import Array, Id, Nil, RuntimeFault, Value, array, text_of
from rds_csi.simulator.menus import printing


class Table:
    """A menu of items. Subclasses say which rows there are and how they change."""

    name_property: ClassVar[str] = "name"
    """By which property an item may be referred to."""
    layout: printing.Layout
    properties: frozenset[str]
    """All that ``get`` may ask for."""

    def rows(self, wanted_name: Value) -> Iterable[Row]:
        """The items that listings show, each with ``.id``.

        ``wanted_name`` is a name the filter demands, if any: others may be left out.
        """
        raise NotImplementedError

    def row_of(self, reference: Value) -> Row:
        """The item with that id or name. Raises "no such item"."""
        name = None if isinstance(reference, Id) else reference
        for row in self.rows(name):
            if reference in (row[".id"], row.get(self.name_property)):
                return row
        raise RuntimeFault(NO_SUCH_ITEM)

    def shown(self, row: Row, names: Sequence[str] | None) -> dict[str, Value]:
        """What ``as-value`` gives of a row: the properties of these names, or all."""
        return {key: row[key] for key in names or row if row.get(key) is not None}

    async def matching(self, call: Call) -> list[Row]:
        """The rows that pass the filter."""
        where, interpreter, scope = call.command.where, call.interpreter, call.scope
        if where is None:
            return list(self.rows(None))
        wanted = await demanded(self.name_property, where, interpreter, scope)
        condition = await term(where, interpreter, scope)
        return [row for row in self.rows(wanted) if truth(condition(row))]

    async def execute(self, call: Call) -> Value:
        """Run a command of this menu."""
        handler = getattr(self, "do_" + call.command.verb.replace("-", "_"))
        result: Value = await handler(call)
        return result

    async def do_print(self, call: Call) -> Value:
        """Text for people; with ``as-value`` an array and no text; ``count-only`` both."""
        rows = await self.matching(call)
        if "from" in call.arguments:
            listed = {row[".id"] for row in references(self, call.arguments["from"])}
            rows = [row for row in rows if row[".id"] in listed]
        if call.flag("count-only"):
            if not call.flag("as-value"):
                call.write(str(len(rows)))
            return len(rows)
        proplist = _proplist(call)
        if call.flag("as-value"):
            names = (".id", *self.layout.brief) if proplist is None else (".id", *proplist)
            chosen = None if call.flag("detail") and proplist is None else names
            return array(Array(keys=self.shown(row, chosen)) for row in rows)
        for line in printing.table(rows, self.layout, call, proplist):
            call.write(line)
        return None

    async def do_find(self, call: Call) -> Value:
        """The ids of the matching items."""
        return array(row[".id"] for row in await self.matching(call))

    async def do_get(self, call: Call) -> Value:
        """One property of an item, or all of them."""
        if "numbers" not in call.arguments:
            raise PromptSignal("numbers: ")
        found = references(self, call.arguments["numbers"])
        if len(found) != 1:
            raise RuntimeFault(NO_SUCH_ITEM)
        if "value-name" not in call.arguments:
            return Array(keys=self.shown(found[0], None))
        name = text_of(call.arguments["value-name"])
        if name not in self.properties:
            raise RuntimeFault(bad_enum("value-name"), argument="value-name")
        return found[0].get(name)


def references(table: Table, value: Value) -> list[Row]:
    """The items a ``numbers`` argument names: ids or names, one or several; none is fine."""
    if isinstance(value, Array):
        return [row for item in value.values() for row in references(table, item)]
    if value is None or isinstance(value, Nil):
        return []
    if isinstance(value, str) and "," in value:
        return [table.row_of(part) for part in value.split(",")]
    return [table.row_of(value)]


def _proplist(call: Call) -> Sequence[str] | None:
    given = call.arguments.get("proplist")
    if given is None:
        return None
    if isinstance(given, Array):
        return [text_of(item) for item in given.values()]
    return text_of(given).split(",")
