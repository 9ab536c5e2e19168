"""Troubleshooting quotes the driver's own words, all of them, and no others."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from rds_csi import errors
from rds_csi.config import ConfigurationError
from rds_csi.errors import Code, DriverError
from rds_csi.routeros import failures
from tests.docs.blocks import DOCS, ROOT

PAGE = (DOCS / "troubleshooting.md").read_text()
PACKAGE = ROOT / "rds_csi"
NOT_THE_DRIVER = {"simulator", "demo", "lab", "csi", "doctor"}
"""Rooms that speak for themselves, on a terminal."""
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, DriverError)
}
CALLERS_FAULT = "InvalidRequest"
"""What no sidecar and no kubelet sends; the page says so once, and not text by text."""


@dataclass(frozen=True, slots=True)
class Said:
    """One place that raises an error: its class, and the literal parts of what it says.

    ``own`` is the length of what it says without its advice.
    """

    place: str
    kind: str
    parts: tuple[str, ...]
    own: int

    def has(self, quoted: str) -> bool:
        """Whether a quotation is of this: ``…`` stands for what differs from case to case."""
        text = "\0".join(self.parts)
        return all(piece in text for piece in pieces(quoted))

    def is_told_by(self, quoted: str) -> bool:
        """Whether a quotation is of this, and of more than a word that many have."""
        return self.has(quoted) and len("".join(pieces(quoted))) >= min(12, self.own // 2)


def pieces(quoted: str) -> list[str]:
    return [piece.strip() for piece in quoted.split("…") if piece.strip()]


def literals(node: ast.AST) -> Iterator[str]:
    """The texts in an expression, from left to right."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


@cache
def everything() -> tuple[Said, ...]:
    """Every place where the driver makes an error with a text of its own."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        relative = file.relative_to(PACKAGE)
        if NOT_THE_DRIVER & set(relative.parts):
            continue
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (kind := kind_of(node)):
                what = [*node.args[:1], *(each.value for each in node.keywords)]
                parts = tuple(part for each in what for part in literals(each))
                own = "".join(literals(node.args[0])) if node.args else ""
                if own.strip(" -:"):
                    found.append(Said(f"{relative}:{node.lineno}", kind, parts, len(own)))
    for reason, meaning in failures.REFUSALS.items():
        gaps = tuple(re.split(r"\{\w+\}", meaning.what))
        place = f"routeros/failures.py: {reason}"
        found.append(Said(place, meaning.error.__name__, gaps, len("".join(gaps))))
    return tuple(found)


def kind_of(call: ast.Call) -> str:
    name = ast.unparse(call.func).rpartition(".")[2]
    return name if name in KINDS or name == ConfigurationError.__name__ else ""


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in it, headings left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines]


def quotations() -> list[str]:
    """What stands in quotes in the first column of the tables of texts."""
    told = PAGE.partition("\n## Kinds of errors\n")[0]
    return [text for cells in rows(told) for text in re.findall(r"`([^`]+)`", cells[0])]


def test_the_collector_sees_what_is_raised() -> None:
    said = everything()
    assert len(said) > 180
    assert {each.kind for each in said} >= {"NotBlank", "VolumeInUse", "NotReady", "PoolFull"}
    [gone] = [each for each in said if each.has("the device mounted at … is gone")]
    assert gone.place.startswith("node/sizes.py")


def test_every_quotation_is_the_drivers() -> None:
    constants = "\0".join(
        text
        for file in PACKAGE.rglob("*.py")
        if not NOT_THE_DRIVER & set(file.relative_to(PACKAGE).parts)
        for text in literals(ast.parse(file.read_text()))
    )
    templates = "\0".join(
        file.read_text() for file in (ROOT / "charts/rds-csi/templates").rglob("*.*")
    )
    quoted = quotations()
    assert len(quoted) > 100
    missing = [
        text
        for text in quoted
        if not any(each.has(text) for each in everything())
        and not all(piece in constants for piece in pieces(text))
        and not all(piece in templates for piece in pieces(text))
        and not any(re.search(pattern, text) for pattern, _ in failures.TEXTS)
    ]
    assert missing == []


def test_every_text_is_explained() -> None:
    quoted = quotations()
    missing = [
        f"{each.place}: {each.kind}: {'…'.join(each.parts)}"
        for each in everything()
        if each.kind != CALLERS_FAULT and not any(each.is_told_by(text) for text in quoted)
    ]
    assert missing == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_every_kind_is_there_with_its_code(kind: type[DriverError]) -> None:
    told = {cells[0].strip("`"): cells[1] for cells in rows(section("Kinds of errors"))}
    assert told[kind.__name__] == Code(kind.code).name


def test_every_text_of_routeros_is_there() -> None:
    told = " ".join(quotations())
    for pattern, meaning in failures.TEXTS:
        assert re.search(pattern, told, re.IGNORECASE), pattern
        assert meaning.advice in PAGE
