"""What a role is: only what it plays is loaded, and metrics only where they are asked for."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.config import ConfigurationError, NodeConfig
from rds_csi.driver.parts import Part, build_metrics
from tests.unit.telemetry.wired import controller_config, driver_config

HEAVY = ("asyncssh", "prometheus_client", "rds_csi.node", "rds_csi.routeros")


def loaded(*modules: str) -> set[str]:
    """What of the heavy a process has that imports these."""
    program = f"import sys, {', '.join(modules)}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return set(done.stdout.decode().split())


@pytest.mark.parametrize(
    ("module", "brings"),
    [
        ("rds_csi.driver.parts", set()),
        ("rds_csi.driver.lifecycle", set()),
        ("rds_csi.driver.controller_part", {"asyncssh", "rds_csi.routeros"}),
        ("rds_csi.driver.node_part", {"rds_csi.node"}),
        ("rds_csi.driver.watch", {"prometheus_client"}),
    ],
)
def test_each_role_loads_what_it_plays_and_no_more(module: str, brings: set[str]) -> None:
    assert loaded(module) == brings


def test_a_part_is_its_service_and_nothing_else_unless_said() -> None:
    part = Part(service="service")
    assert (part.prepare, dict(part.background), part.close) == (None, {}, None)
    assert Part(service="other").background is not part.background


@pytest.mark.parametrize(
    ("roles", "component"),
    [(("controller",), "controller"), (("node",), "node"), (("controller", "node"), "all")],
)
def test_the_metrics_say_what_is_served(
    tmp_path: Path, roles: tuple[str, ...], component: str
) -> None:
    controller = controller_config(tmp_path) if "controller" in roles else None
    node = NodeConfig(node_id="n1") if "node" in roles else None
    metrics, services = build_metrics(driver_config(tmp_path), controller, node)
    assert metrics is not None
    assert f'rds_csi_build_info{{component="{component}"' in metrics.render().decode()
    assert list(services) == ["metrics"]


def test_without_an_address_there_are_none(tmp_path: Path) -> None:
    config = replace(driver_config(tmp_path), metrics_address="")
    assert build_metrics(config, None, NodeConfig(node_id="n1")) == (None, {})


def test_an_address_that_is_none_never_gets_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--metrics-address"):
        replace(driver_config(tmp_path), metrics_address="9808")
