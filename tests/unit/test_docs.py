"""The documents that are made of other things are up to date, and their maker can fail."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs import generate
from docs.generate import Proof, Unproven
from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.errors import InvalidParameter
from rds_csi.model import parameters
from rds_csi.model.contexts import connection_context
from rds_csi.model.parameters import KEYS, ConnectionConfig, VolumeParameters
from rds_csi.nvme import reaper
from rds_csi.nvme.readiness import Timings
from rds_csi.runtime.retry import RetryPolicy

SOURCE: dict[str, Any] = {
    "group": [
        {"title": "One", "lines": {"A-01": "First | with a bar.", "A-02": "Second."}},
        {"title": "Two", "lines": {"B-01": "Third."}},
    ],
    "decision": [{"question": "Why", "answer": "Because."}],
}
PROOFS = [
    Proof("A-01", "unit/test_x.py::test_b"),
    Proof("A-01", "unit/test_x.py::test_a"),
    Proof("A-02", "unit/test_x.py::test_a"),
    Proof("B-01", "kernel/test_y.py::TestY::test_c"),
]


def test_the_documents_are_up_to_date() -> None:
    assert generate.stale(generate.documents()) == []


def test_a_line_and_its_tests_are_a_row() -> None:
    text = generate.requirements(SOURCE, PROOFS)
    assert (
        "| A-01 | First \\| with a bar. | "
        "`unit/test_x.py::test_a`<br>`unit/test_x.py::test_b` |" in text.splitlines()
    )
    assert "| B-01 | Third. | `kernel/test_y.py::TestY::test_c` |" in text.splitlines()
    assert "| Why | Because. |" in text.splitlines()


def test_a_line_without_a_test_fails() -> None:
    with pytest.raises(Unproven, match=r"^B-01 has no test$"):
        generate.requirements(SOURCE, PROOFS[:3])


def test_a_test_of_an_unknown_line_fails() -> None:
    with pytest.raises(Unproven, match="test_z proves C-01, which is no line"):
        generate.requirements(SOURCE, [*PROOFS, Proof("C-01", "unit/test_x.py::test_z")])


def test_markers_are_found_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "test_x.py").write_text(
        """
import pytest
pytestmark = [pytest.mark.looptime, pytest.mark.requirement("A-01")]

@pytest.mark.requirement("A-02")
@pytest.mark.parametrize("x", [1])
async def test_a(x): ...

@pytest.mark.requirement("B-01")
class TestB:
    @pytest.mark.requirement("B-02")
    def test_c(self): ...

# @pytest.mark.requirement("C-01")
def test_d(): "@pytest.mark.requirement('C-02')"
"""
    )
    (tmp_path / "helper.py").write_text('@pytest.mark.requirement("C-03")\ndef f(): ...\n')
    assert generate.proofs(tmp_path) == [
        Proof("A-01", "unit/test_x.py"),
        Proof("A-02", "unit/test_x.py::test_a"),
        Proof("B-01", "unit/test_x.py::TestB"),
        Proof("B-02", "unit/test_x.py::TestB::test_c"),
    ]


def test_check_tells_what_is_stale_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "parameters.md"
    monkeypatch.setattr(generate, "documents", lambda: {document: "new"})
    for text in (None, "old"):
        if text is not None:
            document.write_text(text)
        assert generate.main(["--check"]) == 1
        assert "docs/parameters.md is not up to date" in capsys.readouterr().err
        assert document.exists() == (text is not None)
    assert document.read_text() == "old"
    assert generate.main([]) == 0
    assert document.read_text() == "new"
    assert generate.main(["--check"]) == 0


def test_what_is_unproven_is_said_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def documents() -> dict[Path, str]:
        raise Unproven("B-01 has no test")

    monkeypatch.setattr(generate, "documents", documents)
    assert generate.main([]) == 1
    assert capsys.readouterr().err == "B-01 has no test\n"


@pytest.mark.requirement("PIT-04")
def test_every_parameter_is_documented_with_its_range_and_effect() -> None:
    text = generate.parameters()
    for key, rule in KEYS.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]
        for part in (rule.accepts, rule.meaning, rule.effect):
            assert part
            assert part in row


@pytest.mark.requirement("PIT-04")
@pytest.mark.parametrize("key", [key for key, rule in KEYS.items() if " to " in rule.accepts])
def test_the_documented_range_is_the_one_that_is_checked(key: str) -> None:
    match = re.match(r"(-?\d+) to (\d+)$", KEYS[key].accepts)
    assert match is not None
    low, high = int(match[1]), int(match[2])
    for value in (low, high):
        VolumeParameters.parse({key: str(value)})
    for value in (low - 1, high + 1):
        with pytest.raises(InvalidParameter, match=key):
            VolumeParameters.parse({key: str(value)})


@pytest.mark.requirement("PIT-05")
def test_the_document_says_that_changes_are_for_new_connections() -> None:
    assert "A changed value counts for new connections only" in generate.parameters()


def test_the_io_timeout_is_refused_with_its_reason() -> None:
    with pytest.raises(InvalidParameter, match=r"ioTimeout.*nvme_core\.io_timeout"):
        VolumeParameters.parse({"ioTimeout": "30"})
    for key in parameters.NOT_OFFERED:
        assert key not in KEYS
        assert f"- `{key}`: " in generate.parameters()


OPERATIONS = (generate.DOCS / "operations.md").read_text()
PACKAGE = generate.DOCS.parent / "rds_csi"


def sources() -> Iterator[ast.AST]:
    """Everything in the driver's own code."""
    for file in PACKAGE.rglob("*.py"):
        if not {"simulator", "demo", "lab", "csi"} & set(file.relative_to(PACKAGE).parts):
            yield from ast.walk(ast.parse(file.read_text()))


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under the heading, by row."""
    section = OPERATIONS.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:]]


def table(heading: str) -> list[str]:
    """The first cells of the table under the heading."""
    return [cells[0] for cells in rows(heading)]


def test_every_health_reason_has_its_advice() -> None:
    reasons = {
        ast.literal_eval(node.args[1])
        for node in sources()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Problem", "StorageProblem")
    }
    documented = [cell.strip("`") for cell in table("What each health reason means")]
    assert len(reasons) > 8
    assert sorted(documented) == sorted(reasons)


def test_the_timers_are_the_drivers() -> None:
    told = {cells[0]: cells[1] for cells in rows("Which timer does what")}
    timings, retry, node = Timings(), RetryPolicy(), NodeConfig(node_id="node-1")
    driver = DriverConfig(endpoint=Path("/csi.sock"), cluster_id="test")
    waits = [f"{retry.initial * retry.factor**i:g}" for i in range(retry.attempts - 1)]
    assert told["connect"] == f"{timings.connect:g} s"
    assert told["device"] == f"{timings.appear:g} s"
    assert told["disconnect"] == f"{timings.disconnect:g} s, then {timings.gone:g} s to be gone"
    assert told["attempts"] == (
        f"{retry.attempts}, waits of {', '.join(waits)} s, each up to {retry.jitter:.0%} longer"
    ).replace("%", " %")
    assert told["`--connects`"] == str(node.connects)
    assert told["`--operation-timeout`"] == f"{driver.operation_timeout:g} s"
    assert told["`--drain-budget`"] == f"{driver.drain_budget:g} s"
    assert told["start-up search"] == f"{reaper.START_LIMIT:g} s"
    assert told["`--reap-interval`, `--reap-grace`"] == (
        f"{node.reap_interval:g} s, {node.reap_grace:g} s"
    )
    context = connection_context(ConnectionConfig())
    assert told["`ctrlLossTmo`"] == context["ctrlLossTmo"]
    assert told["`reconnectDelay`"] == f"{context['reconnectDelay']} s"


def test_links_lead_somewhere() -> None:
    broken = [
        f"{document.name}: {link}"
        for document in [*generate.DOCS.rglob("*.md"), generate.DOCS.parent / "README.md"]
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
        if not (document.parent / link).exists()
    ]
    assert broken == []
