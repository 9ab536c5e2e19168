"""The report for the authors: all that was found, and nothing that must not be told."""

from datetime import UTC, datetime
from pathlib import Path

from rds_csi.config import ControllerConfig, DriverConfig, volume_defaults
from rds_csi.doctor.rds.checks import Examination
from rds_csi.doctor.report import markdown
from rds_csi.routeros import Capacity, System
from tests.unit.doctor.places import FINDINGS, results

SHARED = DriverConfig(endpoint=Path("/csi/csi.sock"), cluster_id="prod")


CONTROLLER = ControllerConfig(
    rds_address="rds.example.com",
    rds_user="csi",
    rds_key_file=Path("/etc/rds-csi/ssh/id_ed25519"),
    rds_host_keys=("ssh-ed25519 AAAA",),
    defaults=volume_defaults({"nvmeAddress": "fd00::5", "volumePath": "raid10/csi"}),
)


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
