"""The house: everything stands where one looks for it.

Rules of the tree, not of the code: a module's tests carry its name and stand in its mirror place,
or its docstring says in one line where its rules are proven; a file that a person reads in one
go; a base name that says by itself which module is meant.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
LONGEST: Final = 400
"""Lines of a file, a module's or its tests'."""

TWICE: Final = {
    "access": "who may use a volume, and how; what a user of the simulator may do",
    "checks": "the two rooms of the doctor, each with its list of checks",
    "command": "what a subcommand of the command line does: doctor, demo, simulate",
    "disk": "what the driver read of a disk; the simulator's own /disk menu",
    "health": "what a problem is; how a node finds one",
    "options": "flags of the command line; mount options",
    "server": "the gRPC server; the simulator's SSH server",
    "service": "the two CSI services, named alike because they are alike",
    "table": "what a map of the device mapper is made of; a menu of the simulator that lists items",
}
"""Base names that stand more than once, and why each has to."""

ELSEWHERE: Final = {
    "tests/unit/fakes": "the fakes prove themselves",
    "tests/unit/csi": "of what is generated",
}
"""Folders below tests/unit that mirror no room of our own."""

_PROVEN: Final = re.compile(r"Proven in (``[^`]+``(?:, ``[^`]+``)*)\.")


class Module(NamedTuple):
    """A module of the package, or a file of tests: its path from the root, and its text."""

    path: str
    text: str

    @property
    def name(self) -> str:
        """Its base name."""
        return Path(self.path).stem

    @property
    def mirror(self) -> str:
        """The path of the tests of its name."""
        inside = Path(self.path).relative_to("rds_csi")
        below = "tests" if inside.parts[0] == "simulator" else "tests/unit"
        return str(Path(below) / inside.parent / f"test_{self.name}.py")

    @property
    def proofs(self) -> list[str]:
        """The files that a line of its docstring names."""
        docstring = ast.get_docstring(ast.parse(self.text)) or ""
        found = filter(None, map(_PROVEN.fullmatch, docstring.splitlines()))
        return [path for each in found for path in re.findall(r"``([^`]+)``", each[1])]


def read(folder: str, pattern: str) -> list[Module]:
    """The files below a folder that match."""
    found = sorted((ROOT / folder).rglob(pattern))
    return [Module(str(each.relative_to(ROOT)), each.read_text()) for each in found]


MODULES: Final = [
    each
    for each in read("rds_csi", "*.py")
    if not each.path.startswith("rds_csi/csi/") and each.name not in ("__init__", "__main__")
]
TESTS: Final = read("tests", "test_*.py")


def unproven(module: Module, exists: Callable[[str], bool]) -> str:
    """What is missing of the proof of a module's rules."""
    gone = [path for path in module.proofs if not exists(path)]
    if gone:
        return f"{module.path} is said to be proven in {', '.join(gone)}, which is not there"
    if not module.proofs and not exists(module.mirror):
        return (
            f"{module.path}: no {module.mirror}, and no line of its docstring "
            'says "Proven in ``tests/...``."'
        )
    return ""


def lost(test: Module, modules: list[Module]) -> str:
    """What is wrong with the place of a file of tests."""
    folder = str(Path(test.path).parent)
    subject = test.name.removeprefix("test_")
    mirrors = {each.mirror: each for each in modules}
    rooms = {str(Path(each).parent) for each in mirrors} | set(ELSEWHERE) | {"tests/unit"}
    if folder not in rooms:
        return f"{test.path}: there is no room of that name"
    homes = [each.mirror for each in modules if each.name == subject]
    if folder not in ELSEWHERE and homes and test.path not in homes:
        return f"{test.path}: the module of that name is proven in {' or '.join(homes)}"
    return ""


def of_rooms(tests: list[Module]) -> list[Module]:
    """The tests that mirror rooms."""
    return [each for each in tests if each.path.startswith(("tests/unit/", "tests/simulator/"))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path)
def test_a_modules_tests_carry_its_name_or_it_says_where_its_rules_are_proven(
    module: Module,
) -> None:
    problem = unproven(module, lambda path: (ROOT / path).is_file())
    assert not problem, problem


def test_no_tests_stand_where_no_module_or_room_is() -> None:
    assert [problem for each in of_rooms(TESTS) if (problem := lost(each, MODULES))] == []


def test_no_base_name_stands_twice_without_need() -> None:
    count = Counter(each.name for each in MODULES)
    assert sorted(name for name, times in count.items() if times > 1) == sorted(TWICE)


@pytest.mark.parametrize("file", MODULES + TESTS, ids=lambda file: file.path)
def test_no_file_is_longer_than_one_reads(file: Module) -> None:
    lines = len(file.text.splitlines())
    assert lines <= LONGEST, f"{file.path} has {lines} lines, more than {LONGEST}"


class TestOfTheRules:
    """The rules above can fail."""

    def test_a_module_without_tests_and_without_a_line(self) -> None:
        module = Module("rds_csi/nvme/new.py", '"""New."""\n')
        assert "no tests/unit/nvme/test_new.py" in unproven(module, lambda _path: False)
        assert not unproven(module, lambda path: path == "tests/unit/nvme/test_new.py")
        menu = Module("rds_csi/simulator/menus/new.py", '"""New."""\n')
        assert not unproven(menu, lambda path: path == "tests/simulator/menus/test_new.py")

    def test_a_line_counts_if_all_it_names_is_there(self) -> None:
        line = "Proven in ``tests/rds/test_a.py``, ``tests/rds/test_b.py``."
        module = Module("rds_csi/nvme/new.py", f'"""New.\n\n{line}\n"""\n')
        assert module.proofs == ["tests/rds/test_a.py", "tests/rds/test_b.py"]
        assert not unproven(module, lambda path: path in module.proofs)
        assert "tests/rds/test_b.py" in unproven(module, lambda path: path.endswith("a.py"))

    @pytest.mark.parametrize(
        "text",
        [
            '"""New.\n\nIts rules are Proven in ``tests/a.py``.\n"""\n',
            '"""New.\n\nProven in tests/a.py.\n"""\n',
            '"""New."""\n\nX = """\nProven in ``tests/a.py``.\n"""\n',
            '"""New."""\n# Proven in ``tests/a.py``.\n',
        ],
    )
    def test_what_is_no_such_line(self, text: str) -> None:
        assert Module("rds_csi/nvme/new.py", text).proofs == []

    @pytest.mark.parametrize(
        ("path", "problem"),
        [
            ("tests/unit/nvme/test_reaper.py", ""),
            ("tests/unit/nvme/test_kill.py", ""),
            ("tests/unit/nodeops/test_kill.py", "no room"),
            ("tests/unit/nvme/deep/test_kill.py", "no room"),
            ("tests/unit/node/test_reaper.py", "tests/unit/nvme/test_reaper.py"),
            ("tests/unit/test_reaper.py", "tests/unit/nvme/test_reaper.py"),
            ("tests/unit/fakes/test_reaper.py", ""),
        ],
    )
    def test_a_file_of_tests_in_a_wrong_place(self, path: str, problem: str) -> None:
        modules = [Module("rds_csi/nvme/reaper.py", ""), Module("rds_csi/node/stage.py", "")]
        found = lost(Module(path, ""), modules)
        assert problem in found
        assert bool(problem) == bool(found)
