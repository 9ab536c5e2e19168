"""Each wrong setting is refused in one sentence that names it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rds_csi.config import (
    ConfigurationError,
    ControllerConfig,
    DriverConfig,
    NodeConfig,
    listen_address,
    volume_defaults,
)
from rds_csi.model.parameters import VolumeParameters

DRIVER = DriverConfig(endpoint=Path("/csi/csi.sock"), cluster_id="prod")
CONTROLLER = ControllerConfig(
    rds_address="10.0.0.1",
    rds_user="csi",
    rds_key_file=Path("/key"),
    rds_host_keys=("ssh-ed25519 AAAA",),
    defaults=VolumeParameters(nvme_addresses=("10.0.0.2",), volume_path="raid10/csi"),
)
NODE = NodeConfig(node_id="worker-1")


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"driver_name": ""}, "--driver-name"),
        ({"driver_name": "a" * 64}, "--driver-name"),
        ({"driver_name": "under_score"}, "--driver-name"),
        ({"cluster_id": ""}, "--cluster-id"),
        ({"cluster_id": "a/b"}, "--cluster-id"),
        ({"cluster_id": "a" * 65}, "--cluster-id"),
        ({"nqn_prefix": "mikrotik"}, "--nqn-prefix"),
        ({"nqn_prefix": ""}, "--nqn-prefix"),
        ({"endpoint": Path("csi.sock")}, "--endpoint"),
        ({"endpoint": Path("/csi/socket")}, "--endpoint"),
        ({"endpoint": Path("/" + "a" * 110 + ".sock")}, "--endpoint"),
        ({"drain_budget": 0.0}, "--drain-budget"),
        ({"operation_timeout": -1.0}, "--operation-timeout"),
    ],
)
def test_wrong_settings_of_the_driver(change: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        replace(DRIVER, **change)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"rds_address": ""}, "--rds-address"),
        ({"rds_user": ""}, "--rds-user"),
        ({"rds_host_keys": ()}, "--rds-host-key"),
        ({"defaults": VolumeParameters(volume_path="a/b")}, "--nvme-address"),
        ({"defaults": VolumeParameters(nvme_addresses=("10.0.0.1",))}, "--volume-path"),
        ({"rds_channels": 0}, "--rds-channels"),
        ({"rds_channels": 21}, "--rds-channels"),
        ({"reserve": -1}, "--reserve"),
        ({"list_page": 0}, "--list-page"),
        ({"list_page": 1001}, "--list-page"),
    ],
)
def test_wrong_settings_of_the_controller(change: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        replace(CONTROLLER, **change)


def test_the_development_flag_replaces_the_host_key() -> None:
    assert replace(CONTROLLER, rds_host_keys=(), rds_accept_any_host_key=True)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"node_id": ""}, "--node-id"),
        ({"node_id": "a\n"}, "--node-id"),
        ({"kubelet_dir": Path("kubelet")}, "--kubelet-dir"),
        ({"state_dir": Path("/var/lib/../etc")}, "--state-dir"),
        ({"max_volumes": -1}, "--max-volumes"),
        ({"connects": 0}, "--connects"),
        ({"reap_interval": 0.0}, "--reap-interval"),
        ({"reap_grace": 0.0}, "--reap-grace"),
        ({"startup_taint": "a/b:NoExecute"}, "--startup-taint"),
        ({"startup_taint": "a/b=c"}, "--startup-taint"),
        ({"startup_taint": "a/b/c"}, "--startup-taint"),
        ({"startup_taint": "A.example/b"}, "--startup-taint"),
        ({"startup_taint": "/b"}, "--startup-taint"),
        ({"startup_taint": "x" * 64}, "--startup-taint"),
        ({"startup_taint": f"{'a' * 250}/bcd"}, "--startup-taint"),
        ({"startup_taint": "a/b", "node_id": "Worker_1"}, "--startup-taint needs the name"),
    ],
)
def test_wrong_settings_of_the_node(change: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        replace(NODE, **change)


@pytest.mark.parametrize("key", ["agent-not-ready", "csi.example.org/Agent_not.ready", "a/b"])
def test_keys_of_taints(key: str) -> None:
    assert replace(NODE, startup_taint=key, node_id="ip-10-0-0-1.example").startup_taint == key


def test_defaults_of_the_parameters_come_as_text() -> None:
    found = volume_defaults({"nvmeAddress": "10.0.0.1", "nvmePort": "", "volumePath": "a/b"})
    assert found == VolumeParameters(nvme_addresses=("10.0.0.1",), volume_path="a/b")
    with pytest.raises(ConfigurationError, match="nvmePort"):
        volume_defaults({"nvmePort": "x"})


def test_names_derived_from_the_settings() -> None:
    assert DRIVER.owner == "csi.rds-csi.io/prod"
    assert DRIVER.nqn("pvc-1") == "nqn.2000-02.com.mikrotik:pvc-1"
    # Nodes have it as a label, which the kubelet keeps from changing: not this test either.
    assert DRIVER.topology == {"csi.rds-csi.io/topology": "all-nodes"}
    assert "AAAA" not in repr(CONTROLLER)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9808", (None, 9808)),
        ("127.0.0.1:9808", ("127.0.0.1", 9808)),
        ("[::1]:0", ("::1", 0)),
        ("node.example.com:65535", ("node.example.com", 65535)),
    ],
)
def test_addresses_of_metrics(text: str, address: tuple[str | None, int]) -> None:
    assert listen_address("--metrics-address", text) == address
    assert DriverConfig(endpoint=Path("/a.sock"), cluster_id="c", metrics_address=text)


@pytest.mark.parametrize(
    "text",
    ["9808", "x", ":", ":65536", "::1:9808", "[::1", "a b:1", ":-1", ":9808/metrics", "[]:1"],
)
def test_wrong_addresses_of_metrics(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--metrics-address"):
        DriverConfig(endpoint=Path("/a.sock"), cluster_id="c", metrics_address=text)
