"""Table and JSON: everything that was found."""

import io
import json

import pytest
from rich.console import Console

from rds_csi.doctor.check import Checks, Status
from rds_csi.doctor.rds.unknowns import Finding
from rds_csi.doctor.show import as_json, show, unknowns_as_json, verdict
from tests.unit.doctor.places import FINDINGS, results


def shown(checks: Checks, unknowns: list[Finding]) -> str:
    out = io.StringIO()
    show(Console(file=out, width=60), checks, unknowns)
    return out.getvalue()


def test_the_table_has_each_result_with_its_advice() -> None:
    lines = [" ".join(line.split()) for line in shown(results(), []).splitlines()]
    assert lines == [
        "✓ one fine [here]",
        "! two not so fine",
        "→ do this",
        "✗ three bad",
        "→ do that",
        "- four not seen",
        "1 failed, 1 warning, 1 skipped (4 checks)",
    ]


def test_the_questions_are_numbered() -> None:
    text = shown(results(), FINDINGS)
    assert "1  Is it so?" in text
    assert "✓ yes: a|b" in text
    assert "- not measurable from here because of that" in text


@pytest.mark.parametrize(
    ("statuses", "text"),
    [
        ([], "all well (0 checks)"),
        ([Status.OK], "all well (1 checks)"),
        ([Status.WARNING, Status.WARNING], "2 warnings (2 checks)"),
        ([Status.FAILED, Status.OK], "1 failed (2 checks)"),
    ],
)
def test_the_verdict(statuses: list[Status], text: str) -> None:
    checks = Checks()
    for status in statuses:
        checks.add("x", status, "y")
    assert verdict(checks) == text
    assert checks.failed is (Status.FAILED in statuses)


def test_json_says_the_same() -> None:
    found = json.loads(as_json(results(), unknowns=unknowns_as_json(FINDINGS)))
    assert found["failed"] is True
    assert [check["status"] for check in found["checks"]] == ["ok", "warning", "failed", "skipped"]
    assert found["checks"][1]["advice"] == "do this"
    assert [each["question"] for each in found["unknowns"]] == ["Is it so?", "Is it?"]
