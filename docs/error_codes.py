"""``docs/errors.md``: what can go wrong, which code it becomes, and what each caller makes of that.

The classes come from ``rds_csi/errors.py``, the consequences from ``errors-table.toml``, and the
places that raise a final code from the code itself: one that nobody has thought about, or that is
no more, is an error here.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rds_csi import errors
from rds_csi.errors import OPEN, Code, DriverError
from rds_csi.routeros import failures

KINDS: Final[Mapping[str, type[DriverError]]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, DriverError)
}
DOUBTFUL: Final = (Code.INTERNAL, Code.FAILED_PRECONDITION)
"""Final codes that say nothing of the request: each place has to know why it may be so sure."""
NOT_THE_DRIVER: Final = frozenset({"simulator", "demo", "lab", "csi", "doctor"})
_TABLES: Final = "failures.py"
_PAGE: Final = """\
<!-- Made by docs/generate.py from rds_csi/errors.py and docs/errors-table.toml; do not edit. -->

# Errors and what follows from them

Every call that failed is repeated. Its text says what is wrong
([Troubleshooting](troubleshooting.md)), its code what is believed meanwhile. After a **final** code
external-provisioner takes it for proven that no volume exists, and the kubelet that nothing is
staged; both forget it. So a final code is only given where that is so; whatever leaves it open is
one of {open}.

## What each caller does with a code

| code | {callers} |
|---|{rules}|
{codes}

{same}

An error that nobody foresaw is logged and counted as INTERNAL. Of a call that changes something the
caller is told UNAVAILABLE, for nobody knows what was done by then.

## What becomes which code

| class | cause | code |
|---|---|---|
{kinds}

## Where INTERNAL and FAILED_PRECONDITION come from, and why they may

| where | classes | why it may be final |
|---|---|---|
{raised}
"""


class Unexplained(Exception):
    """A class, code or place that the table does not know, or knows in vain; it lists them."""


def raised(package: Path) -> dict[str, set[str]]:
    """By file: the classes with a doubtful code that it makes errors of."""
    found: dict[str, set[str]] = {}
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        if NOT_THE_DRIVER & set(name.parts) or name.name == "errors.py":
            continue
        kinds = set(_made(ast.parse(file.read_text())))
        if name.name == _TABLES:
            meanings = [*failures.REFUSALS.values(), *(each for _, each in failures.TEXTS)]
            kinds |= {meaning.error.__name__ for meaning in meanings}
        doubtful = {kind for kind in kinds if KINDS[kind].code in DOUBTFUL}
        if doubtful:
            found[name.as_posix()] = doubtful
    return found


def _made(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in KINDS:
                yield name


def page(table: Mapping[str, Any], found: Mapping[str, set[str]]) -> str:
    """The document. Raises :class:`Unexplained`."""
    wrong = [*_wrong_codes(table), *_wrong_places(table, found)]
    if wrong:
        raise Unexplained("\n".join(wrong))
    callers = table["caller"]
    return _PAGE.format(
        open=", ".join(sorted(code.name for code in OPEN)),
        callers=" | ".join(f"{each['name']}<br>{each['calls']}" for each in callers),
        rules="|".join("---" for _ in callers),
        codes="\n".join(
            _row(_marked(name), *each["cells"]) for name, each in table["code"].items()
        ),
        same="\n".join(f"- {calls}: {text}" for calls, text in table["same"].items()),
        kinds="\n".join(
            _row(f"`{name}`", _cause(kind), Code(kind.code).name) for name, kind in KINDS.items()
        ),
        raised="\n".join(
            _row(
                f"`{each['where']}`",
                ", ".join(f"`{kind}`" for kind in sorted(each["kinds"])),
                each["why"],
            )
            for each in table["raised"]
        ),
    )


def _wrong_codes(table: Mapping[str, Any]) -> Iterator[str]:
    used = {Code(kind.code).name for kind in KINDS.values()}
    for name in sorted(used - set(table["code"])):
        yield f"{name}: nothing says what the callers do with it"
    for name, each in table["code"].items():
        if len(each["cells"]) != len(table["caller"]):
            yield f"{name} has {len(each['cells'])} cells for {len(table['caller'])} callers"
        told_open = each["cells"][0].startswith("open:")
        if told_open != (Code[name] in OPEN):
            yield f"{name} is {'' if told_open else 'not '}said to be open, against errors.OPEN"


def _wrong_places(table: Mapping[str, Any], found: Mapping[str, set[str]]) -> Iterator[str]:
    told: dict[str, set[str]] = {}
    for each in table["raised"]:
        told.setdefault(each["where"], set()).update(each["kinds"])
    for where in sorted(found.keys() | told.keys()):
        for kind in sorted(found.get(where, set()) - told.get(where, set())):
            yield f"{where} raises {kind}: why may it be final? (docs/errors-table.toml)"
        for kind in sorted(told.get(where, set()) - found.get(where, set())):
            yield f"{where} raises no {kind}, docs/errors-table.toml says"


def _marked(code: str) -> str:
    return f"{code} (open)" if Code[code] in OPEN else code


def _cause(kind: type[DriverError]) -> str:
    """The first paragraph of its docstring, without markup."""
    text = (kind.__doc__ or "").partition("\n\n")[0]
    return " ".join(text.split()).replace("``", "`")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
