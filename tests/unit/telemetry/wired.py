"""A driver with metrics on and everything served, built and never started."""

from pathlib import Path

import asyncssh
from prometheus_client.core import Metric

from rds_csi.config import ControllerConfig, DriverConfig, NodeConfig
from rds_csi.driver.lifecycle import Driver
from rds_csi.model.parameters import VolumeParameters


def driver_config(directory: Path) -> DriverConfig:
    """Metrics on a free port of this machine."""
    return DriverConfig(
        endpoint=directory / "csi.sock", cluster_id="test", metrics_address="127.0.0.1:0"
    )


def controller_config(directory: Path) -> ControllerConfig:
    """An RDS that is not there: nothing listens on port 1."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(directory / "id")
    (directory / "id").chmod(0o600)
    return ControllerConfig(
        rds_address="127.0.0.1",
        rds_port=1,
        rds_user="csi",
        rds_key_file=directory / "id",
        rds_host_keys=(key.export_public_key().decode(),),
        defaults=VolumeParameters(nvme_addresses=("192.0.2.1",), volume_path="raid10/csi"),
    )


def wired(directory: Path) -> list[Metric]:
    """The families of metrics that a driver with both services has."""
    node = NodeConfig(node_id="n1", state_dir=directory / "state")
    driver = Driver(driver_config(directory), controller_config(directory), node)
    assert driver._metrics is not None
    return list(driver._metrics.registry.collect())


def metric_names(families: list[Metric]) -> set[str]:
    """The names under which Prometheus knows them."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {
        family.name + suffix
        for family in families
        for suffix in suffixes.get(family.type, ["_info" if family.type == "info" else ""])
    }
