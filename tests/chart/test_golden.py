"""Whole renders as files, so that a change of the chart shows what it changes in a cluster."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chart.conftest import BASE, SIMULATED, Chart, merged

GOLDEN = Path(__file__).with_name("golden")
RENDERS: Mapping[str, Mapping[str, Any]] = {
    "least": BASE,
    "simulator": SIMULATED,
    "most": merged(
        BASE,
        {
            "sidecars": {"snapshotter": {"enabled": True}, "healthMonitor": {"enabled": True}},
            "volumeSnapshotClasses": [{"name": "rds"}],
            "metrics": {
                "force": True,
                "podMonitor": {"enabled": True},
                "serviceMonitor": {"enabled": True},
            },
            "networkPolicy": {"enabled": True},
            "node": {"startupTaint": {"enabled": True}},
        },
    ),
}
"""Rules and dashboard have tests of their own."""


@pytest.mark.parametrize("name", sorted(RENDERS))
def test_golden(chart: Chart, name: str, write: bool) -> None:
    text = chart.text(RENDERS[name])
    if name == "simulator":
        # Each render makes new keys.
        pattern = r"^(  (?:authorized_keys|host-keys|id_ed25519|ssh_host_key): )\S+$"
        text, keys = re.subn(pattern, r"\1KEY", text, flags=re.MULTILINE)
        assert keys == 4
    file = GOLDEN / f"{name}.yaml"
    if write:
        file.write_text(text)
    assert file.read_text() == text, "review the difference, then: nox -s chart -- --write"
