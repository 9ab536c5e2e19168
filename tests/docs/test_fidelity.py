"""``docs/fidelity.md`` leads to modules and tests that are there."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.docs.blocks import DOCS, ROOT

SIMULATOR = ROOT / "rds_csi" / "simulator"
TESTS = ROOT / "tests" / "simulator"


class Line(NamedTuple):
    """One behaviour: the modules that have it, and the tests that show it."""

    behaviour: str
    where: list[str]
    tests: str


def lines() -> Iterator[Line]:
    for line in (DOCS / "fidelity.md").read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0] != "Behaviour" and not cells[0].startswith("---"):
            yield Line(cells[0], cells[2].split(", "), cells[3])


LINES = list(lines())


def test_there_are_behaviours() -> None:
    assert len(LINES) > 70


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.behaviour[:40])
def test_a_behaviour_is_where_it_says(line: Line) -> None:
    for name in line.where:
        path = f"{name}.py" if "/" in name else f"**/{name}.py"
        assert any(SIMULATOR.glob(path)) or (SIMULATOR / name).is_dir(), name


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.behaviour[:40])
def test_a_behaviour_is_tested_where_it_says(line: Line) -> None:
    if line.tests in ("\N{EN DASH}", "same"):
        return
    files, _, names = line.tests.partition(": ")
    text = "".join((TESTS / f"{file}.py").read_text() for file in files.split(", "))
    for name in filter(None, names.split(", ")):
        assert re.search(rf"def test_\w*{name}", text), f"{files}: {name}"
