"""What pages, comments and docstrings call by name is there, under that name.

A name outlives its file: a page goes on sending its reader to a module that was moved long ago.
So every path of the repository, every module, every test and every role of a docstring is looked
up.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rds_csi"
TREES = ("rds_csi", "tests", "docs", "benchmarks", "charts", "protos", "image", ".ci")
TEXTS = {".md", ".py", ".toml", ".yaml", ".yml", ".svg", ".sh", ".go", ".tpl", ".txt", ".proto"}
NOT_OURS = ("rds_csi/csi/generated", "protos/csi", "image/requirements.txt", "tests/unit/data")
READERS_OWN = {"try/claim.py"}
"""What the quick start has its reader make."""

ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/**/__init__.py"))
PATH = re.compile(r"(?<![\w./@:-])(?:rds_csi|tests|docs|charts|benchmarks|protos|image)/[\w./*-]*")
MODULE = re.compile(r"(?<![\w./-])(?:rds_csi|tests|benchmarks)(?:\.[A-Za-z_]\w*)+(?![\w/-])")
FILE = re.compile(r"(?<![\w./*:-])(?:\w+/)*\w+\.py\b")
INSIDE = re.compile(rf"(?<![\w./*:-])(?:{'|'.join(ROOMS)})/[a-z_]\w*\b(?![\w/.*-]*[\w/*-])")
FOLDER = re.compile(r"`(\w+)/`")
TEST = re.compile(r"(?<![\w./])test_\w+\b(?!\*)")
ITEM = re.compile(r"((?:\w+/)*test_\w+\.py)::(\w+)")
ROLE = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`[~!]?([\w.]+)`")


def files() -> list[Path]:
    """Every text of the repository that a person wrote."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for tree in TREES:
        found += [path for path in (ROOT / tree).rglob("*") if path.is_file()]
    return sorted(
        path
        for path in found
        if (path.suffix in TEXTS or path.name in ("Containerfile", "run"))
        and not path.relative_to(ROOT).as_posix().startswith(NOT_OURS)
    )


def words(path: Path) -> str:
    """What the file tells its reader: of Python comments and docstrings, of others everything."""
    text = path.read_text()
    return "\n".join(prose(text)) if path.suffix == ".py" else text


def prose(text: str) -> Iterator[str]:
    """The comments and docstrings of a module, those below a constant too."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(string))):
                yield string
            case _:
                pass


@cache
def module_file(dotted: str) -> Path | None:
    """The file of a module or package."""
    base = ROOT.joinpath(*dotted.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def names(path: Path) -> frozenset[str]:
    """Every name that a module defines, imports, or gives an attribute."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.ImportFrom(module=str(module), names=[ast.alias(name="*")]):
                if source := module_file(module):
                    found |= names(source)
            case ast.alias(name=name, asname=alias):
                found.add((alias or name).partition(".")[0])
            case _:
                pass
    return frozenset(found)


@cache
def all_tests() -> frozenset[str]:
    """Everything that may be called after a test: modules, functions, and what helps them."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        found |= {path.stem, *names(path)}
    return frozenset(found)


def is_path(name: str) -> bool:
    """Whether it is a path from the top of the repository; ``*`` or ``NAME`` is any name."""
    name = name.rstrip("./-")
    any_name = re.sub(r"(?<=/)[A-Z]+(?=/|$)", "*", name)
    return (ROOT / name).exists() or any(ROOT.glob(any_name))


def is_module(dotted: str) -> bool:
    """Whether it is a module, or something in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        if file := module_file(".".join(parts[:length])):
            return length == len(parts) or parts[length] in names(file)
    return ROOT.joinpath(*parts).is_dir()


def is_role(name: str, path: Path) -> bool:
    """Whether a role in this module's docstrings leads somewhere."""
    head = name.partition(".")[0]
    if not head:
        return is_module(".".join(path.parent.relative_to(ROOT).parts) + name)
    if head in ("rds_csi", "tests", "benchmarks"):
        return is_module(name)
    return head in names(path) | names(PACKAGE / "errors.py")


def is_file(name: str, path: Path) -> bool:
    """Whether a file of that name stands in the package, beside whoever names it, or at the top."""
    beside = PACKAGE if path.parent == ROOT else path.parent
    inside = f"*/{name}" if "/" in name else name
    return name in READERS_OWN or any(
        [*PACKAGE.rglob(name), *beside.rglob(name), *ROOT.glob(name), *ROOT.glob(inside)]
    )


def is_inside(name: str) -> bool:
    """Whether a room has such a module or room, or its mirror among the tests such tests."""
    trees = [PACKAGE, ROOT / "tests"]
    return any(
        list(tree.rglob(f"{name}{end}")) for tree in trees for end in (".py", "/__init__.py")
    )


def is_folder(name: str) -> bool:
    """Whether any tree of the repository has, or is, such a folder; ``build`` is made."""
    return name in {*TREES, "build"} or any(
        path.is_dir() for tree in TREES for path in (ROOT / tree).rglob(name)
    )


def is_item(file: str, name: str) -> bool:
    """Whether such a test stands in such a file."""
    inside = file.removeprefix("tests/")
    return any(name in names(path) for path in (ROOT / "tests").rglob(inside))


def stale(path: Path, text: str) -> Iterator[str]:
    """What the text of this file names and nobody has."""
    yield from (name for name in PATH.findall(text) if not is_path(name))
    yield from (name for name in MODULE.findall(text) if not is_module(name))
    yield from (name for name in FILE.findall(text) if not is_file(name, path))
    yield from (name for name in INSIDE.findall(text) if not is_inside(name))
    yield from (f"{name}/" for name in FOLDER.findall(text) if not is_folder(name))
    yield from (name for name in TEST.findall(text) if name not in all_tests())
    yield from ("::".join(item) for item in ITEM.findall(text) if not is_item(*item))
    if path.suffix == ".py":
        yield from (name for name in ROLE.findall(text) if not is_role(name, path))


def test_whatever_is_called_by_name_is_there() -> None:
    found = {path.relative_to(ROOT).as_posix(): [*stale(path, words(path))] for path in files()}
    assert len(found) > 400
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    "text",
    [
        "see rds_csi/nodeops/stage.py",
        "of rds_csi/node/stage2",
        "`tests/simulator/test_controller.py`",
        "tests/kernel/*_never.py",
        "rds_csi.model.volume.Record",
        "``rds_csi.records``",
        "it stands in ``survey.py``",
        "`driver.py`: all of it",
        "nvme/messages.py",
        "first node/stage, then node/fencing.",
        "| `nodeops/` | what calls mean |",
        "held by test_nothing_of_the_kind",
        "unit/test_config.py::test_nothing",
        ":mod:`.settings` proves it",
        ":mod:`rds_csi.nvme.settings`",
        ":class:`Nobody`",
        ":meth:`rds_csi.rpc.calls.nobody`",
    ],
)
def test_a_name_that_nobody_has_is_found(text: str) -> None:
    assert [*stale(PACKAGE / "nvme" / "connector.py", text)]


@pytest.mark.parametrize(
    "text",
    [
        "see rds_csi/node/stage.py, and tests/unit/.",
        "tests/NAME and tests/kernel/test_*.py",
        "rds_csi.model.record.Record, rds_csi.csi.v1.ControllerBase",
        "``sysfs.py`` beside ``node/stage.py``, in `filesystem/`: nvme/connector.",
        "unit/test_docs_names.py::stale",
        ":mod:`.live_settings`, :class:`Connector`, :class:`~rds_csi.errors.NotOurs`",
        "https://example.com/rds_csi/nothing.py, rds_csi_rpcs_total, rds-csi.io/node",
    ],
)
def test_a_name_that_somebody_has_is_not(text: str) -> None:
    assert [*stale(PACKAGE / "nvme" / "connector.py", text)] == []


def test_comments_and_docstrings_are_read_and_code_is_not() -> None:
    code = '"""One."""\nx = "a/b.py"  # Two.\n"""Three."""\ndef f(): "Four."\n'
    assert sorted(prose(code)) == ["# Two.", "Four.", "One.", "Three."]
