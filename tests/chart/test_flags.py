"""The command lines in the templates: every flag is one its program has."""

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from rds_csi.cli.main import main
from rds_csi.config import ControllerConfig, DriverConfig, NodeConfig
from rds_csi.driver import lifecycle
from tests.chart.combinations import COMBINATIONS, OPTIONAL
from tests.chart.conftest import BASE, CHART, SIMULATED, Chart, container, merged, pod_specs

TABLE: dict[str, Any] = tomllib.loads((Path(__file__).with_name("sidecars.toml")).read_text())
LEFT_TO_EXTRA_ARGS = {
    "controller": {
        "--drain-budget",  # its default and the pods' grace period belong together
        "--operation-timeout",  # the sidecars set deadlines
        "--list-page",
        "--rds-host-key",  # the file says the same
        "--rds-accept-any-host-key-insecure",  # not in a cluster
    },
    "node": {"--drain-budget", "--operation-timeout"},
    "simulate": {"--nvme-port", "--control", "--ready-file"},
}
"""Flags that no value sets."""
ALL_FLAGS = {"node": {"startupTaint": {"enabled": True}}, "pathLayer": {"enabled": True}}
"""For the flags that are there only if something is on."""


def words(name: str) -> list[str]:
    """The flags that ``rds-csi NAME --help`` shows."""
    text = CliRunner().invoke(main, [name, "--help"]).output
    return re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)


def flag(word: str) -> str:
    return word.partition("=")[0]


def component(name: str) -> tuple[str, str]:
    return ("simulator", "simulator") if name == "simulate" else (name, "rds-csi")


@pytest.mark.parametrize("name", sorted(LEFT_TO_EXTRA_ARGS))
def test_every_flag_of_the_driver_is_set_or_left_out_on_purpose(chart: Chart, name: str) -> None:
    base = SIMULATED if name == "simulate" else merged(BASE, ALL_FLAGS)
    command, *args = container(chart.objects(base), *component(name))["args"]
    assert command == name
    rendered = [flag(word) for word in args]
    assert len(rendered) == len(set(rendered))
    known = set(words(name)) - {"--help"}
    assert set(rendered) | LEFT_TO_EXTRA_ARGS[name] == known
    assert not set(rendered) & LEFT_TO_EXTRA_ARGS[name]


@pytest.mark.parametrize("combination", sorted(COMBINATIONS))
def test_the_driver_takes_what_is_rendered(
    chart: Chart, combination: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Through the real command line and its checks, up to where it would start."""
    started: list[tuple[Any, ...]] = []

    def run(*configs: Any) -> int:
        started.append(configs)
        return 0

    monkeypatch.setattr(lifecycle, "run", run)
    monkeypatch.setattr("rds_csi.telemetry.logs.configure", lambda **_: None)
    keys = tmp_path / "host-keys"
    keys.write_text("\n".join(BASE["rds"]["hostKeys"]))
    values = merged(BASE, COMBINATIONS[combination])
    objects = chart.objects(values)
    for name in ("controller", "node"):
        args = container(objects, name, "rds-csi")["args"]
        args = [word.replace("/etc/rds-csi/ssh/host-keys", str(keys)) for word in args]
        args = [word.replace("$(NODE_NAME)", "worker-1") for word in args]
        done = CliRunner().invoke(main, args, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    [(shared, controller, nothing), (same, nothing_either, node)] = started
    assert isinstance(controller, ControllerConfig)
    assert isinstance(node, NodeConfig)
    assert nothing is nothing_either is None
    assert isinstance(shared, DriverConfig)
    assert (shared.owner, shared.nqn_prefix) == (same.owner, same.nqn_prefix)
    assert shared.cluster_id == values["clusterId"]


def sidecars(chart: Chart) -> dict[str, list[str]]:
    """Every sidecar's command line, with all options on."""
    on = {"sidecars": {name: {"enabled": True} for name in OPTIONAL}}
    return {
        each["name"]: each["args"]
        for _, spec in pod_specs(chart.objects(merged(BASE, on)))
        for each in spec["containers"]
        if each["name"] not in {"rds-csi", "test"}
    }


def test_every_flag_of_a_sidecar_is_one_it_has(chart: Chart) -> None:
    rendered = sidecars(chart)
    tables = {each["container"]: each for name, each in TABLE.items() if name != "namespace"}
    assert set(rendered) == set(tables)
    for name, args in rendered.items():
        assert {flag(word).removeprefix("--") for word in args} == set(tables[name]["flags"])


def test_the_table_is_about_the_versions_the_chart_runs() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["sidecars"]
    tags = {name: each["image"]["tag"] for name, each in values.items() if "image" in dict_of(each)}
    names = {"livenessProbe": "livenessprobe", "healthMonitor": "health-monitor"}
    assert {names.get(name, name): tag for name, tag in tags.items()} == {
        name: each["version"] for name, each in TABLE.items() if name != "namespace"
    }


def dict_of(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def test_leaders_are_elected_in_the_releases_namespace(chart: Chart) -> None:
    for name, args in sidecars(chart).items():
        if name.startswith("csi-"):
            assert "--leader-election" in args
            assert "--leader-election-namespace=storage" in args
            assert "--timeout=60s" in args


def test_help_names_its_flags() -> None:
    """Otherwise the comparison above would compare nothing."""
    assert "--rds-address" in words("controller")
    assert isinstance(main, click.Group)
