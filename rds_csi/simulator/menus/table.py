"""What the menus that list items have in common: print, find, get, set, remove, add."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import ClassVar

from rds_csi.simulator import printing
from rds_csi.simulator.interpreter import Call, PromptSignal, Row
from rds_csi.simulator.texts import NO_SUCH_ITEM, bad_enum
from rds_csi.simulator.values import Array, Id, Nil, RuntimeFault, Value, array, text_of


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

    def shown(self, row: Row, *, detail: bool) -> dict[str, Value]:
        """What ``as-value`` gives of a row."""
        keys = row if detail else (".id", *self.layout.brief)
        return {key: row[key] for key in keys if row.get(key) is not None}

    async def matching(self, call: Call) -> AsyncIterator[Row]:
        """The rows that pass the filter."""
        wanted = await call.wanted(self.name_property)
        for row in self.rows(wanted):
            if await call.matches(row):
                yield row

    async def execute(self, call: Call) -> Value:
        """Run a command of this menu."""
        handler = getattr(self, "do_" + call.command.verb.replace("-", "_"))
        result: Value = await handler(call)
        return result

    async def do_print(self, call: Call) -> Value:
        """Text for people; with ``as-value`` an array and no text; ``count-only`` both."""
        rows = [row async for row in self.matching(call)]
        if "from" in call.arguments:
            chosen = {row[".id"] for row in references(self, call.arguments["from"])}
            rows = [row for row in rows if row[".id"] in chosen]
        if call.flag("count-only"):
            if not call.flag("as-value"):
                call.write(str(len(rows)))
            return len(rows)
        proplist = _proplist(call)
        if call.flag("as-value"):
            detail = call.flag("detail") or proplist is not None
            shown = [self.shown(row, detail=detail) for row in rows]
            return array(Array(keys=_only(row, proplist)) for row in shown)
        for line in printing.table(rows, self.layout, call, proplist):
            call.write(line)
        return None

    async def do_find(self, call: Call) -> Value:
        """The ids of the matching items."""
        return array([row[".id"] async for row in self.matching(call)])

    async def do_get(self, call: Call) -> Value:
        """One property of an item, or all of them."""
        if "numbers" not in call.arguments:
            raise PromptSignal("numbers: ")
        found = references(self, call.arguments["numbers"])
        if len(found) != 1:
            raise RuntimeFault(NO_SUCH_ITEM)
        shown = self.shown(found[0], detail=True)
        if "value-name" not in call.arguments:
            return Array(keys=shown)
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


def _only(row: dict[str, Value], proplist: Sequence[str] | None) -> dict[str, Value]:
    if proplist is None:
        return row
    return {key: value for key, value in row.items() if key == ".id" or key in proplist}
