"""What Helm says after an installation. Only a cluster would show it: here it becomes an object."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chart.conftest import BASE, CHART, SIMULATED, Chart, merged, parsed

WRAPPED = """\
{{{{- define "notes" }}}}{}{{{{- end }}}}
kind: Notes
metadata: {{name: notes}}
text: |
  {{{{- include "notes" . | nindent 2 }}}}
"""


@pytest.fixture
def notes(chart: Chart, tmp_path: Path):
    copied = shutil.copytree(CHART, tmp_path / "chart")
    file = copied / "templates" / "NOTES.txt"
    (copied / "templates" / "notes.yaml").write_text(WRAPPED.format(file.read_text()))
    file.unlink()

    def render(values: Mapping[str, Any]) -> str:
        show = "--show-only=templates/notes.yaml"
        done = chart.helm(
            "template", "rds", str(copied), "--namespace=storage", show, values=values
        )
        assert done.returncode == 0, done.stderr
        [wrapped] = parsed(done.stdout)
        return str(wrapped["text"])

    return render


def test_what_was_installed(notes) -> None:
    text = notes(BASE)
    assert "cluster id      prod" in text
    assert "csi@10.0.0.5, volumes at 10.0.1.5, in raid10/csi" in text
    assert "StorageClasses  rds" in text
    assert "helm -n storage test rds" in text
    assert "NOT MADE" not in text


def test_who_enforces_pod_security_is_told_what_to_do(notes) -> None:
    assert (
        "kubectl label namespace storage pod-security.kubernetes.io/enforce=privileged\n"
        in notes(BASE)
    )


def test_a_simulator_is_called_one(notes) -> None:
    assert "a SIMULATOR on node worker-1" in notes(SIMULATED)


def test_monitors_that_were_not_made_are_named(notes) -> None:
    wanted = {"metrics": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}}
    text = notes(merged(BASE, wanted))
    assert "NOT MADE: the PodMonitor" in text
    assert "NOT MADE: the PrometheusRule" in text
    assert "NOT MADE: the ServiceMonitor" not in text


def test_no_class_and_no_test(notes) -> None:
    text = notes(merged(BASE, {"storageClasses": [], "helmTest": {"enabled": False}}))
    assert "none; make one, or set storageClasses" in text
    assert " test rds" not in text
