"""The driver as it is built: every metric is reached by what it counts."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from grpclib.client import Channel
from grpclib.exceptions import GRPCError
from structlog.testing import capture_logs

from rds_csi.config import NodeConfig
from rds_csi.csi import v1 as csi
from rds_csi.driver.lifecycle import Driver
from rds_csi.node.staging import StagedVolume, StagingStore
from tests.unit.fakes.ssh import until
from tests.unit.telemetry.test_scrape import ask, where
from tests.unit.telemetry.wired import controller_config, driver_config, metric_names, wired

VOLUME = "pvc-" + "a" * 28
NQN = f"nqn.2000-02.com.mikrotik:{VOLUME}"


@contextlib.asynccontextmanager
async def served(driver, log):
    stop = asyncio.Event()
    serving = asyncio.create_task(driver.serve(stop))
    try:
        yield await where(log)
    finally:
        stop.set()
        await serving


async def page(port):
    """The samples by name and labels, as Prometheus gets them."""
    answer = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    lines = answer.partition(b"\r\n\r\n")[2].decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


@pytest.mark.skipif(Path("/dev/nvme-fabrics").exists(), reason="this kernel could really connect")
async def test_a_node_that_is_asked(tmp_path):
    node = NodeConfig(node_id="n1", state_dir=tmp_path / "state", kubelet_dir=tmp_path)
    left_over = StagedVolume(
        volume="pvc-" + "c" * 28, nqn=NQN, address="a", port=1, staging_path="/none"
    )
    await StagingStore(node.state_dir).write(left_over)
    driver = Driver(driver_config(tmp_path), None, node)
    stage = csi.NodeStageVolumeRequest(
        volume_id=VOLUME,
        publish_context={"nvmeAddress": "192.0.2.1", "nvmePort": "4420", "nqn": NQN},
        staging_target_path=str(tmp_path / "stage"),
        volume_capability=csi.VolumeCapability(
            block=csi.VolumeCapabilityBlockVolume(),
            access_mode=csi.VolumeCapabilityAccessMode(
                mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
            ),
        ),
    )
    with capture_logs() as log:
        async with served(driver, log) as port:
            channel = Channel(path=str(driver_config(tmp_path).endpoint))
            with pytest.raises(GRPCError, match="nvme-fabrics"):
                await csi.NodeStub(channel).node_stage_volume(stage)
            channel.close()
            seen = await page(port)
            assert seen['rds_csi_rpcs_total{code="FAILED_PRECONDITION",rpc="NodeStageVolume"}'] == (
                "1.0"
            )
            assert seen['rds_csi_nvme_connects_total{outcome="failed"}'] == "1.0"
            assert seen['rds_csi_service_crashes_total{service="reaper"}'] == "0.0"
            assert seen["rds_csi_stuck_programs"] == "0.0"
            assert seen['rds_csi_volumes_staged{state="left_over"}'] == "1.0"


async def test_a_controller_without_an_rds_is_scraped_at_once(tmp_path):
    driver = Driver(driver_config(tmp_path), controller_config(tmp_path), None)
    with capture_logs() as log:
        async with served(driver, log) as port:
            async with asyncio.timeout(5):
                while (await page(port))['rds_csi_ssh_connects_total{outcome="failed"}'] == "0.0":
                    pass
            seen = await page(port)
            assert float(seen['rds_csi_ssh_commands_total{outcome="failed"}']) >= 1
            assert seen["rds_csi_ssh_connected"] == "0.0"
            assert not [name for name in seen if name.startswith("rds_csi_pool_free")]


async def test_a_crashed_service_is_counted(tmp_path):
    driver = Driver(driver_config(tmp_path), None, None)

    async def crash():
        raise KeyError("x")

    driver._parts[0].background["bad"] = crash  # type: ignore[index]
    with capture_logs() as log:
        async with served(driver, log) as port:
            await until(lambda: [e for e in log if e["event"] == "background service crashed"])
            assert (await page(port))['rds_csi_service_crashes_total{service="bad"}'] == "1.0"


async def test_reaper_and_runner_of_the_driver_are_those_that_are_watched(tmp_path):
    node = NodeConfig(node_id="n1", state_dir=tmp_path / "state")
    driver = Driver(driver_config(tmp_path), None, node)
    assert driver._metrics is not None
    value = driver._metrics.registry.get_sample_value
    (part,) = [part for part in driver._parts if part.prepare is not None]
    reaper, runner = part.prepare.__self__, part.close.__self__  # type: ignore[union-attr]
    reaper._on_disconnect(NQN)
    assert value("rds_csi_orphans_disconnected_total") == 1
    hanging = asyncio.create_task(asyncio.Event().wait())
    runner._stuck.add(hanging)
    assert value("rds_csi_stuck_programs") == 1
    hanging.cancel()


def test_metrics_are_off_unless_asked_for(tmp_path):
    driver = Driver(replace(driver_config(tmp_path), metrics_address=""), None, None)
    assert driver._metrics is None
    assert [name for part in driver._parts for name in part.background] == []


async def test_each_service_has_its_own(tmp_path):
    both = metric_names(wired(tmp_path))
    assert {"rds_csi_ssh_connected", "rds_csi_stuck_programs", "rds_csi_pool_free_bytes"} <= both
    node = Driver(
        driver_config(tmp_path), None, NodeConfig(node_id="n", state_dir=tmp_path / "state")
    )
    assert node._metrics is not None
    names = {family.name for family in node._metrics.registry.collect()}
    assert not [name for name in names if "_ssh_" in name or "_pool_" in name]
