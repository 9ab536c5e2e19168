"""Runs the rules' own tests with Prometheus's tool; ``nox -s alerts`` says where that is."""

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "charts/rds-csi/files/rules.yaml"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [os.environ["PROMTOOL"], *arguments], capture_output=True, text=True, check=False
    )


def test_the_rules_can_be_read() -> None:
    done = promtool("check", "rules", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("*.yaml")))
def test_the_rules_fire_when_they_should(file: str) -> None:
    done = promtool("test", "rules", str(HERE / file))
    assert done.returncode == 0, done.stdout + done.stderr
