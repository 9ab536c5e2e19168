"""Table, JSON and report: everything that was found, and nothing that must not be told."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from rds_csi.config import ControllerConfig, DriverConfig, volume_defaults
from rds_csi.doctor.check import Checks, Status
from rds_csi.doctor.rds.checks import Examination
from rds_csi.doctor.rds.unknowns import QUESTIONS, Finding
from rds_csi.doctor.report import markdown
from rds_csi.doctor.show import as_json, show, unknowns_as_json, verdict
from rds_csi.errors import NotReady
from rds_csi.routeros import Capacity, System

SHARED = DriverConfig(endpoint=Path("/csi/csi.sock"), cluster_id="prod")
CONTROLLER = ControllerConfig(
    rds_address="rds.example.com",
    rds_user="csi",
    rds_key_file=Path("/etc/rds-csi/ssh/id_ed25519"),
    rds_host_keys=("ssh-ed25519 AAAA",),
    defaults=volume_defaults({"nvmeAddress": "fd00::5", "volumePath": "raid10/csi"}),
)
FINDINGS = [
    Finding("Is it so?", "yes: a|b\nc", "looked", ""),
    Finding("Is it?", "", "", "not measurable from here because of that"),
]


def results() -> Checks:
    checks = Checks()
    checks.ok("one", "fine [here]")
    checks.warn("two", "not so fine", "do this")
    checks.fail("three", "bad", "do that")
    checks.skip("four", "not seen")
    return checks


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


def test_an_error_in_a_check_is_a_failed_check_with_its_own_advice() -> None:
    checks = Checks()

    def fail(error: Exception) -> None:
        raise error

    with checks.failing("a", "look there"):
        fail(NotReady("no pool", advice="mount it"))
    with checks.failing("b", "look there"):
        fail(NotReady("no pool"))
    assert [(each.found, each.advice) for each in checks] == [
        ("no pool", "mount it"),
        ("no pool", "look there"),
    ]
    with pytest.raises(KeyError), checks.failing("c", ""):
        raise KeyError


def report(*, addresses: bool) -> str:
    found = Examination(results(), System(version="7.24.2", board="RDS2216"))
    found.pool = Capacity(pool="raid10", size=2**40, free=2**39, file_system="xfs")
    found.unknowns = FINDINGS
    found.checks.fail(
        "reach", "rds.example.com:22, [fd00::5]:4420, 10.1.2.3:22 and SHA256:abc+/= fail", "x"
    )
    found.checks.fail("record", "ours names owner 'csi.rds-csi.io/prod'", "")
    return markdown(
        found,
        SHARED,
        CONTROLLER,
        addresses=addresses,
        write=True,
        now=datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
    )


def test_the_report_says_what_was_found_but_not_where() -> None:
    text = report(addresses=False)
    for secret in ("example.com", "fd00", "10.1.2.3", "abc", "csi.rds-csi.io/prod", "AAAA"):
        assert secret not in text
    assert (
        "| **failed** | reach | RDS:22, [RDS-DATA]:4420, ADDRESS:22 and FINGERPRINT fail; x |"
        in (text)
    )
    assert "RouterOS 7.24.2, board RDS2216" in text
    assert "pool: xfs, 1024 GiB" in text
    assert "2026-11-21 12:00 UTC, with `--write`" in text
    assert "1. Is it so?\n   - measured: yes: a\\|b c\n   - how: looked\n" in text
    assert "2. Is it?\n   - not measurable from here because of that\n" in text


def test_addresses_stay_when_asked_for() -> None:
    text = report(addresses=True)
    assert "rds.example.com:22, [fd00::5]:4420, 10.1.2.3:22 and SHA256:abc+/=" in text


def test_a_report_without_a_session_says_so() -> None:
    text = markdown(Examination(results()), SHARED, CONTROLLER, addresses=False, write=False)
    assert "there was no session" in text
    assert "RouterOS unknown" in text


def test_the_first_eleven_questions_are_those_of_the_notes() -> None:
    """``facts/routeros.md``, section 13, word by word what each is about."""
    about = (
        *("file-size", "slot that exists, and to a full pool", "over a file that exists"),
        *("allow-host-name", "`/disk/copy`", "reflink", "copy-from", "exit status"),
        *("longer than 32", "How many exports", "mount-filesystem=yes"),
    )
    for question, words in zip(QUESTIONS, about, strict=False):
        assert words in question.text
    # What nobody can find out by volumes of his own, and without harm to others.
    beyond = [number for number, question in enumerate(QUESTIONS, start=1) if question.beyond]
    assert beyond == [2, 5, 10, 11]
