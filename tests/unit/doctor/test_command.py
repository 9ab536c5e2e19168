"""The command line of the doctor: exit statuses, refusals, and settings of a running driver."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rds_csi.cli.main import main
from rds_csi.doctor.check import Checks
from tests.unit.cli.test_main import KEYS

NODE = ("doctor", "node", "--cluster-id=test", "--node-id=worker-1")
RDS = (
    *("doctor", "rds", "--cluster-id=test", "--rds-address=127.0.0.1"),
    f"--rds-host-key={KEYS[0]}",
    *("--nvme-address=127.0.0.1", "--volume-path=raid10/csi"),
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rds_csi.telemetry.logs.configure", lambda **_: None)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the node's checks were asked, and nothing is looked at; all is well."""
    calls: list[dict[str, Any]] = []

    async def examine(shared: Any, node: Any, runner: Any, **addresses: Any) -> Checks:
        calls.append({"shared": shared, "node": node, **addresses})
        await asyncio.sleep(0)
        checks = Checks()
        checks.ok("kernel", "there")
        return checks

    monkeypatch.setattr("rds_csi.doctor.node.checks.examine", examine)
    return calls


def test_all_well_is_status_0(asked: list[dict[str, Any]]) -> None:
    done = invoke(*NODE, "--nvme-address=::1", "--nvme-port=4421", "--rds-address=rds")
    assert done.exit_code == 0
    assert "all well (1 checks)" in done.output
    [call] = asked
    assert call["node"].node_id == "worker-1"
    assert (call["nvme"], call["ssh"]) == ((("::1", 4421),), ("rds", 22))


def test_json_is_json(asked: list[dict[str, Any]]) -> None:
    assert json.loads(invoke(*NODE, "--json").output)["failed"] is False
    assert (asked[0]["nvme"], asked[0]["ssh"]) == ((), None)


def test_a_real_look_at_this_machine(tmp_path: Path) -> None:
    words = [*NODE, f"--state-dir={tmp_path}", "--kubelet-dir=/nonexistent", "--json"]
    program = [sys.executable, "-m", "rds_csi", *words]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found[f"state directory {tmp_path}"]["status"] in ("ok", "warning")
    assert found["kubelet directory /nonexistent"]["status"] == "failed"
    assert all(check["advice"] for check in found.values() if check["status"] == "failed")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("doctor", "node", "--cluster-id=test"), "--node-id"),
        ((*NODE, "--nvme-address=rds"), "nvmeAddress"),
        ((*NODE, "--nvme-port=0"), "nvmePort"),
        ((*NODE, "--cluster-id=a b"), "--cluster-id"),
        ((*NODE, "--settings-of=4194999"), "process 4194999"),
        (("doctor", "node"), "--cluster-id"),
        ((*RDS, "--volume-path=raid10"), "volumePath"),
        ((*RDS, "--rds-address="), "--rds-address"),
        ((*RDS, "--rds-host-key-file=/nonexistent"), "--rds-host-key-file"),
        ((*RDS, "--report=/nonexistent/report.md"), "--report /nonexistent/report.md: No such"),
    ],
)
def test_wrong_settings_are_status_2_and_name_the_flag(words: tuple[str, ...], says: str) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert says in done.output
    assert "Traceback" not in done.output


def test_an_rds_out_of_reach_is_status_1_and_a_report(tmp_path: Path, unused_tcp_port: int) -> None:
    report = tmp_path / "report.md"
    done = invoke(*RDS, f"--rds-port={unused_tcp_port}", f"--report={report}")
    assert done.exit_code == 1
    assert "refuses connections" in done.output
    assert "| **failed** | SSH address |" in report.read_text()
    assert "127.0.0.1" not in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


SLEEPER = "import sys, time; print('up', flush=True); time.sleep(60)"


def process(*words: str) -> "subprocess.Popen[str]":
    """Something that runs with these words behind its program."""
    started = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, *words], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    started.stdout.readline()
    return started


def test_settings_of_a_running_driver(asked: list[dict[str, Any]]) -> None:
    with process("node", "--cluster-id=prod", "--node-id", "worker-7", "--max-volumes=3") as driver:
        done = invoke("doctor", "node", f"--settings-of={driver.pid}")
        other = invoke("doctor", "node", f"--settings-of={driver.pid}", "--cluster-id=mine")
        driver.kill()
    assert (done.exit_code, other.exit_code) == (0, 0), done.output
    assert [call["shared"].cluster_id for call in asked] == ["prod", "mine"]
    assert [call["node"].node_id for call in asked] == ["worker-7", "worker-7"]


def test_settings_of_something_else() -> None:
    done = invoke("doctor", "node", f"--settings-of={os.getpid()}")
    assert done.exit_code == 2
    assert "is no driver" in done.output
