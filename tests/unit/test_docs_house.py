"""What the pages tell of the house is the house: rooms, layers, sessions, and the simulator."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.unit.test_docs_names import names

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rds_csi"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
FIDELITY = (ROOT / "docs" / "fidelity.md").read_text()
NOT_TESTED = "\N{EN DASH}"
NOXFILE = ast.parse((ROOT / "noxfile.py").read_text())


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the tables under the heading, by row."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def rooms() -> Iterator[str]:
    """Every folder of the package, and every module that stands in none."""
    for path in PACKAGE.rglob("__init__.py"):
        room = path.parent.relative_to(PACKAGE).as_posix()
        if room != "." and not room.startswith("csi/"):
            yield f"{room}/"
    yield from (path.name for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


def sessions() -> dict[str, ast.FunctionDef]:
    """Each session of nox, and what it runs."""
    found = {}
    for node in NOXFILE.body:
        match node:
            case ast.FunctionDef(decorator_list=[ast.Attribute(attr="session")]):
                found[node.name] = node
            case ast.FunctionDef(
                decorator_list=[ast.Call(keywords=[ast.keyword(value=ast.Constant(value=name))])]
            ):
                found[str(name)] = node
            case _:
                pass
    return found


def everything() -> list[str]:
    """The sessions that nox runs when it is told none, in order."""
    (value,) = [
        node.value
        for node in NOXFILE.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "nox.options.sessions"
    ]
    constants = [node for node in ast.walk(value) if isinstance(node, ast.Constant)]
    constants.sort(key=lambda node: (node.lineno, node.col_offset))
    return [str(node.value) for node in constants]


def test_each_room_stands_in_the_table_and_no_other() -> None:
    table = rows(ARCHITECTURE, "Rooms")[1:]
    told = [name for cells in table for name in re.findall(r"`([^`]+)`", cells[0])]
    assert sorted(told) == sorted(rooms())
    for cells in table:
        assert len(cells[1]) > 20, f"what is {cells[0]} for?"


def test_the_layers_are_those_that_are_held() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = [
        contract
        for contract in configuration["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == ["rds_csi"]
    ]
    told = re.findall(r"`([^`]+ > [^`]+)`", CONTRIBUTING)
    assert [" ".join(text.split()) for text in told] == [" > ".join(contract["layers"])]
    (outside,) = re.findall(r"outside of them stand ([^.]+)\.", CONTRIBUTING)
    assert re.findall(r"`(\w+)`", outside) == contract["exhaustive_ignores"]


def test_each_session_is_told_of() -> None:
    table = rows(CONTRIBUTING, "Sessions")
    always = [cells[0].strip("`") for cells in table if len(cells) == 3][1:]
    demanded = [cells[0].removeprefix("`nox -s ").strip("`") for cells in table if len(cells) == 2]
    assert always == everything()
    assert sorted(demanded[1:]) == sorted(set(sessions()) - set(always))
    readme = (ROOT / "README.md").read_text()
    (listed,) = re.findall(r"The second runs everything: ([^.]+)\.", readme)
    told = [name.strip().replace("csi-sanity", "sanity") for name in listed.split(",")]
    assert told == everything()


def test_the_first_change_finds_what_it_is_sent_to() -> None:
    section = CONTRIBUTING.partition("## Your first change\n")[2].partition("\n## ")[0]
    stops = re.split(r"\n\d\. ", section)[1:]
    assert len(stops) == 7
    for stop in stops:
        told = re.findall(r"`([^`]+)`", stop)
        paths = [ROOT / name.partition("::")[0] for name in told if ".py" in name]
        found = {name for path in paths if path.exists() for name in names(path)}
        assert {name for name in told if re.fullmatch(r"[A-Za-z_]+", name)} <= found, stop


def fidelity() -> Iterator[tuple[str, str, str]]:
    """Behaviour, module and test of each row."""
    for line in FIDELITY.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0] != "Behaviour" and set(cells[0]) != {"-"}:
            yield cells[0], cells[2], cells[3]


def test_what_the_simulator_does_it_does_where_the_page_says() -> None:
    rows = list(fidelity())
    assert len(rows) > 60
    assert [
        (behaviour, name)
        for behaviour, where, _ in rows
        for name in where.split(", ")
        if not any((PACKAGE / "simulator").glob(f"**/{name}.py"))
        and not (PACKAGE / "simulator" / name).is_dir()
    ] == []


def test_what_the_simulator_does_is_proven_where_the_page_says() -> None:
    """``file, file: part of a name, part of a name``; ``same`` as the row above."""
    wrong, last = [], ""
    for behaviour, _, told in fidelity():
        if told == NOT_TESTED:
            continue
        last = last if told == "same" else told
        files, _, parts = last.partition(": ")
        paths = [ROOT / "tests" / "simulator" / f"{file}.py" for file in files.split(", ")]
        wrong += [(behaviour, path.stem) for path in paths if not path.exists()]
        found = [name for path in paths if path.exists() for name in names(path)]
        tests = " ".join(name for name in found if name.startswith("test_"))
        wrong += [(behaviour, part) for part in parts.split(", ") if part not in tests]
    assert wrong == []
