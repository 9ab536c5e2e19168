"""The text ``print`` writes for people: legend, grouped numbers, wrapped lines.

No program should read it: values may be split in the middle at the end of a line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rds_csi.simulator.language.interpreter import Call, Row
from rds_csi.simulator.language.values import Array, Value, text_of

_NARROW: Final = 80
_NARROW_INDENT: Final = 15
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a menu's items are shown."""

    detail: tuple[str, ...]
    """The properties of ``print detail``, in order."""
    brief: tuple[str, ...]
    """The columns of plain ``print``, and of plain ``as-value``."""
    quoted: frozenset[str] = frozenset()
    grouped: frozenset[str] = frozenset()
    """Numbers with a space between thousands."""
    rounded: frozenset[str] = frozenset()
    """Byte counts shown rounded, such as ``50.0GiB``."""
    percent: frozenset[str] = frozenset()
    dashed: frozenset[str] = frozenset()
    """Shown as ``-`` when unset."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Letter to the boolean property it stands for, in order."""


def grouped(number: int) -> str:
    """``53 687 091 200``."""
    return f"{number:,}".replace(",", " ")


def rounded(size: int) -> str:
    """``50.0GiB``, ``1024.0MiB``: one decimal, the next unit only above 1024."""
    value, unit = float(size), 0
    while value > 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f}{_UNITS[unit]}" if unit else f"{size}B"


def quoted(text: str) -> str:
    """Within double quotes, as ``print`` and ``export`` escape."""
    for raw, escaped in (("\\", "\\\\"), ('"', '\\"'), ("$", "\\$"), ("\r", "\\r"), ("\n", "\\n")):
        text = text.replace(raw, escaped)
    return f'"{text}"'


def shown(  # noqa: PLR0911 (one branch per form)
    name: str, value: Value, layout: Layout
) -> str:
    """A value as ``print`` shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if name in layout.grouped:
            return grouped(value)
        if name in layout.rounded:
            return rounded(value)
        return f"{value}%" if name in layout.percent else str(value)
    if isinstance(value, Array):
        return ",".join(text_of(item) for item in value.values())
    text = text_of(value)
    if not text and name in layout.dashed:
        return "-"
    return quoted(text) if name in layout.quoted else text


def table(
    rows: Sequence[Row], layout: Layout, call: Call, proplist: Sequence[str] | None
) -> Iterator[str]:
    """The lines of a print."""
    width = call.interpreter.width
    if layout.flags and not call.flag("terse"):
        yield from _legend(rows, layout, width)
    letters = max((len(_letters(row, layout)) for row in rows), default=0)
    if call.flag("detail") or call.flag("terse") or call.flag("value-list"):
        names = proplist or layout.detail
        for number, row in enumerate(rows):
            prefix = f"{number:>2} {_letters(row, layout):<{letters}} "
            yield from _record(prefix, row, names, layout, 0 if call.flag("terse") else width)
            if not call.flag("terse"):
                yield ""
        return
    yield from _columns(rows, layout, proplist or layout.brief, letters)


def single(row: Row) -> Iterator[str]:
    """The lines of a menu that is one object: right-aligned names."""
    longest = max((len(name) for name in row), default=0)
    for name, value in row.items():
        yield f"{name:>{longest + 2}}: {text_of(value)}"


def _letters(row: Row, layout: Layout) -> str:
    return "".join(letter for letter, name in layout.flags.items() if row.get(name) is True)


def _legend(rows: Sequence[Row], layout: Layout, width: int) -> Iterator[str]:
    used = {letter for row in rows for letter in _letters(row, layout)}
    meanings = [
        f"{letter} - {name.upper()}" for letter, name in layout.flags.items() if letter in used
    ]
    line = "Flags: " + ("; ".join(meanings) or "X - disabled")
    if len(line) <= width:
        yield line
        return
    cut = line.rfind("; ", 0, width)
    yield line[: cut + 1]
    yield "       " + line[cut + 2 :]


def _record(
    prefix: str, row: Row, names: Sequence[str], layout: Layout, width: int
) -> Iterator[str]:
    """One item: its comment on a line of its own, then the properties, wrapped."""
    indent = " " * (len(prefix) if width > _NARROW else _NARROW_INDENT)
    if row.get("comment") and width:
        yield f"{prefix};;; {text_of(row['comment'])}"
        prefix = " " * len(prefix)
    tokens = [
        f"{name}={shown(name, row[name], layout)}"
        for name in names
        if row.get(name) is not None and (name != "comment" or not width)
    ]
    yield from _wrap(prefix, tokens, indent, width) if width else (prefix + " ".join(tokens),)


def _wrap(prefix: str, tokens: Sequence[str], indent: str, width: int) -> Iterator[str]:
    """Lines no longer than ``width``; a token longer than a line is split inside."""
    line = prefix
    fresh = True
    for token in tokens:
        rest = token
        if not fresh and len(line) + 1 + len(rest) > width:
            yield line
            line, fresh = indent, True
        while len(line) + len(rest) > width > len(line):
            yield line + rest[: width - len(line)]
            rest, line = rest[width - len(line) :], indent
        line += rest if fresh else " " + rest
        fresh = False
    yield line


def _columns(
    rows: Sequence[Row], layout: Layout, names: Sequence[str], letters: int
) -> Iterator[str]:
    """Plain ``print``: a table."""
    yield "Columns: " + ", ".join(name.upper() for name in names)
    cells = [[shown(name, row.get(name), layout) for name in names] for row in rows]
    widths = [
        max([len(name), *(len(line[column]) for line in cells)])
        for column, name in enumerate(names)
    ]
    head = "  ".join(name.upper().ljust(size) for name, size in zip(names, widths, strict=True))
    yield f"#  {'':<{letters}} {head}".rstrip()
    for number, (row, line) in enumerate(zip(rows, cells, strict=True)):
        body = "  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True))
        yield f"{number:<2} {_letters(row, layout):<{letters}} {body}".rstrip()
