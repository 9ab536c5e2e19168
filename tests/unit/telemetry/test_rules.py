"""Alert rules, dashboard and documents speak of metrics that exist, and of nothing else."""

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from rds_csi.errors import Code
from rds_csi.node.waiting import REASONS
from rds_csi.telemetry.controller_metrics import SSH_OUTCOMES
from rds_csi.telemetry.node_metrics import CONNECT_OUTCOMES, VOLUME_STATES
from tests.unit.telemetry.wired import metric_names, wired

ROOT = Path(__file__).parents[3]
FILES = ROOT / "charts/rds-csi/files"
RUNBOOKS = ROOT / "docs/runbooks"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FILES / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
NAMES = [rule["alert"] for rule in RULES]
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())

TARGET_LABELS = {"namespace", "node", "instance", "pod", "job"}
"""What a scrape adds."""
WORDS = {"by", "on", "and", "or", "unless", "offset", "group_left", "ignoring", "without"}
VALUES = {
    ("rds_csi_ssh_commands_total", "outcome"): set(SSH_OUTCOMES),
    ("rds_csi_ssh_connects_total", "outcome"): {"ok", "failed"},
    ("rds_csi_nvme_connects_total", "outcome"): set(CONNECT_OUTCOMES),
    ("rds_csi_volumes_staged", "state"): set(VOLUME_STATES),
    ("rds_csi_volume_waiting_since_timestamp_seconds", "reason"): {*REASONS},
    ("rds_csi_rpcs_total", "code"): {code.name for code in Code},
    ("rds_csi_build_info", "component"): {"controller", "node", "all"},
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    async def build() -> list[Metric]:
        return wired(tmp_path_factory.mktemp("wired"))

    return asyncio.run(build())


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]


@cache
def source() -> str:
    """All of the driver's code."""
    return "".join(file.read_text() for file in sorted((ROOT / "rds_csi").rglob("*.py")))


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each metric in the expression with its label matchers."""
    plain = re.sub(r"\[[^\]]*\]", "", expression)
    plain = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)", "", plain)
    for name, braces in re.findall(r"([A-Za-z_:][\w:]*)\b(?!\s*\()\s*(\{[^}]*\})?", _quiet(plain)):
        if name not in WORDS:
            yield name, dict(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', braces))


def _quiet(expression: str) -> str:
    """The expression without numbers with units (30m, 1e9)."""
    return re.sub(r"\b\d[\w.]*", "0", expression)


@pytest.mark.parametrize(
    ("where", "expression"),
    [pytest.param(*each, id=f"{number} {each[0]}") for number, each in enumerate(expressions())],
)
def test_every_metric_and_label_exists(families: list[Metric], where: str, expression: str) -> None:
    known = metric_names(families)
    found = list(selectors(expression))
    assert found, where
    for name, labels in found:
        assert name in known, f"{where}: {name}"
        for label, value in labels.items():
            assert label in labels_of(name) | TARGET_LABELS, f"{where}: {name} has no {label}"
            if (name, label) in VALUES:
                assert set(value.split("|")) <= VALUES[name, label], f"{where}: {label}={value}"


@pytest.mark.parametrize(
    ("where", "expression"),
    [pytest.param(*each, id=f"{number} {each[0]}") for number, each in enumerate(expressions())],
)
def test_grouping_labels_exist(where: str, expression: str) -> None:
    labels = {
        label.strip()
        for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
        for label in group.split(",")
    }
    every = set().union(*(labels_of(name) for name, _ in selectors(expression)))
    assert labels <= every | TARGET_LABELS, where


def labels_of(name: str) -> set[str]:
    """The labels of a metric as docs/metrics.md has them, which the next test compares."""
    return documented()[re.sub(r"_(bucket|count|sum)$", "", name)] | (
        {"le"} if name.endswith("_bucket") else set()
    )


@cache
def documented() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        cells = line.split("|")
        if len(cells) > 4 and "`" in cells[1]:
            for name in re.findall(r"`(\w+)`", cells[1]):
                found[name] = set(re.findall(r"`(\w+)`", cells[3]))
    return found


def test_the_document_has_every_metric_with_its_labels(families: list[Metric]) -> None:
    suffixes = {"counter": "_total", "info": "_info"}
    names = {family.name + suffixes.get(family.type, "") for family in families}
    assert set(documented()) == names
    for family in families:
        shown = documented()[family.name + suffixes.get(family.type, "")]
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == shown, family.name
    page = (ROOT / "docs/metrics.md").read_text()
    assert not [state for state in VOLUME_STATES if f"`{state}`" not in page]


def test_there_are_enough_rules_and_no_two_of_one_name() -> None:
    assert len(NAMES) >= 15
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_rule_is_whole(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"
    assert rule["annotations"]["summary"].endswith(".")
    # An increase is over a time by itself; a state that comes and goes must last.
    assert "for" in rule or re.search(r"increase|changes", rule["expr"])


@pytest.mark.parametrize("name", NAMES)
def test_each_rule_has_its_runbook(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    for part in ("**Effect.**", "## Look", "## Do"):
        assert part in text


def test_no_runbook_is_of_a_rule_that_is_not() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == set(NAMES)


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_what_a_runbook_points_to_exists(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (path.parent / target).exists(), target
    for words in re.findall(r'grep (?:-[A-Za-z0-9]+ )*["\']([^"\']+)["\']$', text, re.MULTILINE):
        for alternative in words.strip('"').split("|"):
            assert alternative in source(), f"no log line says {alternative!r}"


@cache
def cases() -> list[dict[str, Any]]:
    """What promtool is asked to check."""
    return [
        case
        for file in (ROOT / "tests/alerts").glob("*.yaml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_each_rule_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    of_rule = [case for case in cases() if case["alertname"] == name]
    assert [case for case in of_rule if case["exp_alerts"]]
    assert [case for case in of_rule if not case["exp_alerts"]]


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel.get("description") for panel in panels if panel["type"] != "row")
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert all(
            target["datasource"]["uid"] == "${datasource}" for target in panel.get("targets", [])
        )


def test_the_dashboard_shows_every_metric_of_ours(families: list[Metric]) -> None:
    shown = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for where, expression in expressions()
        if where.startswith("panel")
        for name, _ in selectors(expression)
    }
    suffixes = {"counter": "_total", "info": "_info"}
    names = {family.name + suffixes.get(family.type, "") for family in families}
    assert {name for name in names if name.startswith("rds_csi")} <= shown
