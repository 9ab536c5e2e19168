"""Makes the documents that are tables of something else, and checks them.

``docs/errors.md`` comes from ``rds_csi/errors.py`` and ``errors-table.toml`` (``error_codes.py``),
``docs/parameters.md`` from the table in ``rds_csi/model/parameters.py``; ``docs/requirements.md``
from ``docs/requirements-lines.toml`` and the markers ``@pytest.mark.requirement("ID")`` in
``tests/``, which are read without running anything.

``python docs/generate.py`` writes both, ``--check`` writes nothing and exits with 1 where one is
not up to date. Either way a line without a test, and a test of an unknown line, are errors.
"""

import argparse
import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from docs import error_codes
from rds_csi.model.contexts import connection_context
from rds_csi.model.parameters import KEYS, LINUX_5_10, MKFS_KEY, NOT_OFFERED, ConnectionConfig

DOCS: Final = Path(__file__).resolve().parent
LINES: Final = DOCS / "requirements-lines.toml"
TESTS: Final = DOCS.parent / "tests"
PACKAGE: Final = DOCS.parent / "rds_csi"

_DEFAULTS: Final = {
    "nvmeAddress": "`--nvme-address` of the controller",
    "nvmePort": "`--nvme-port` of the controller",
    "volumePath": "`--volume-path` of the controller",
    "fencing": "none",
    MKFS_KEY: LINUX_5_10,
    **connection_context(ConnectionConfig()),
}

_PARAMETERS: Final = """\
<!-- Made by docs/generate.py from rds_csi/model/parameters.py; do not edit. -->

# StorageClass parameters

In a StorageClass every value is a string: Kubernetes takes no other. In the chart's values a number
may stand with quotes or without. A key that is not in this table, and a value that is not in its
range, is INVALID_ARGUMENT at CreateVolume, for a volume that exists already too, before anything is
made.

```yaml
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: rds
provisioner: csi.rds-csi.io
allowVolumeExpansion: true
parameters:
  ctrlLossTmo: "-1"
  reconnectDelay: "5"
```

| key | accepts | default | what it is | what an application notices |
|---|---|---|---|---|
{rows}

The connection parameters (from `ctrlLossTmo` on) travel in the VolumeContext and become options of
`nvme connect`. They are never written into sysfs afterwards, but each is read back from there: a
connection that came out otherwise is an error that names the setting, and is taken down again. Of
queues and their entries a target may grant fewer; that is logged. What the kernel does where one
is left to it is measured in [kernel-defaults.md](kernel-defaults.md).

**A changed value counts for new connections only.** A StorageClass's parameters become part of a
PersistentVolume when it is made, and cannot be changed there; a new class makes new volumes. Where
a volume's context does change, its live connection keeps what it was made with, and the log names
what differs: the next stage after an unstage, that is the next first pod on a node, takes the new
ones.

## What is not a parameter

{missing}
"""

_REQUIREMENTS: Final = """\
<!-- Made by docs/generate.py from docs/requirements-lines.toml and the tests; do not edit. -->

# Requirements of reconnection resilience, and their tests

Each line has at least one test that fails when the line is not true.
{groups}
## What was open or contradictory, and how it was decided

| question | decision |
|---|---|
{decisions}
"""


class Unproven(Exception):
    """A line without a test, or a test of a line that does not exist; the text lists them."""


@dataclass(frozen=True, slots=True, order=True)
class Proof:
    """A test that claims to prove a line; ``test`` as pytest names it, from ``tests/``."""

    line: str
    test: str


def parameters() -> str:
    """``docs/parameters.md``."""
    rows = [
        _row(f"`{key}`", rule.accepts, _DEFAULTS.get(key, "not set"), rule.meaning, rule.effect)
        for key, rule in KEYS.items()
    ]
    missing = [f"- `{key}`: {why}." for key, why in NOT_OFFERED.items()]
    return _PARAMETERS.format(rows="\n".join(rows), missing="\n".join(missing))


def requirements(source: Mapping[str, Any], proofs: Sequence[Proof]) -> str:
    """``docs/requirements.md``. Raises :class:`Unproven`."""
    lines = {line for group in source["group"] for line in group["lines"]}
    tests: dict[str, list[str]] = {line: [] for line in lines}
    errors = []
    for proof in sorted(proofs):
        if proof.line in tests:
            tests[proof.line].append(proof.test)
        else:
            errors.append(f"{proof.test} proves {proof.line}, which is no line")
    errors += [f"{line} has no test" for line in sorted(lines) if not tests[line]]
    if errors:
        raise Unproven("\n".join(errors))
    groups = [_group(group, tests) for group in source["group"]]
    decisions = [_row(each["question"], each["answer"]) for each in source["decision"]]
    return _REQUIREMENTS.format(groups="".join(groups), decisions="\n".join(decisions))


def _group(group: Mapping[str, Any], tests: Mapping[str, list[str]]) -> str:
    rows = [
        _row(line, text, "<br>".join(f"`{test}`" for test in tests[line]))
        for line, text in group["lines"].items()
    ]
    return "\n".join(
        ["", f"## {group['title']}", "", "| id | line | tests |", "|---|---|---|", *rows, ""]
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def proofs(tests: Path) -> list[Proof]:
    """Every marker in the test files below ``tests``."""
    return [
        proof
        for file in sorted(tests.rglob("test_*.py"))
        if ".requirement(" in (text := file.read_text())
        for proof in _in_file(text, file.relative_to(tests).as_posix())
    ]


def _in_file(text: str, name: str) -> Iterator[Proof]:
    tree = ast.parse(text, name)
    everywhere = [
        line
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(each, ast.Name) and each.id == "pytestmark" for each in node.targets)
        for line in _marked(node.value)
    ]
    yield from (Proof(line, name) for line in everywhere)
    yield from _in_body(tree.body, name)


def _in_body(body: Sequence[ast.stmt], prefix: str) -> Iterator[Proof]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = f"{prefix}::{node.name}"
        for decorator in node.decorator_list:
            yield from (Proof(line, name) for line in _marked(decorator))
        if isinstance(node, ast.ClassDef):
            yield from _in_body(node.body, name)


def _marked(expression: ast.expr) -> Iterator[str]:
    for node in ast.walk(expression):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.requirement":
            yield from (str(ast.literal_eval(argument)) for argument in node.args)


def documents() -> dict[Path, str]:
    """Each document, and what it should be. Raises :class:`Unproven`, :class:`Unexplained`."""
    source = tomllib.loads(LINES.read_text())
    table = tomllib.loads((DOCS / "errors-table.toml").read_text())
    return {
        DOCS / "errors.md": error_codes.page(table, error_codes.raised(PACKAGE)),
        DOCS / "parameters.md": parameters(),
        DOCS / "requirements.md": requirements(source, proofs(TESTS)),
    }


def stale(wanted: Mapping[Path, str]) -> list[Path]:
    """The documents that are not what they should be."""
    return [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where stale")
    check = parser.parse_args(arguments).check
    try:
        wanted = documents()
    except (Unproven, error_codes.Unexplained) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    changed = stale(wanted)
    for path in changed:
        if check:
            sys.stderr.write(f"docs/{path.name} is not up to date: run python docs/generate.py\n")
        else:
            path.write_text(wanted[path])
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
