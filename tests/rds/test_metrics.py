"""Metrics of a controller over a real RDS: the pool is seen, and a scrape never waits for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rds_csi.config import ControllerConfig, DriverConfig
from rds_csi.driver import watch
from rds_csi.driver.lifecycle import Driver
from rds_csi.model.parameters import VolumeParameters
from tests.unit.fakes.ssh import until
from tests.unit.telemetry.test_scrape import ask, where

from .conftest import BASE, Rds

RESERVE = 5 * 1024**3


@contextlib.asynccontextmanager
async def controller(rds: Rds, directory: Path) -> AsyncIterator[int]:
    """The port of a running controller's metrics."""
    driver = Driver(
        DriverConfig(
            endpoint=directory / "csi.sock",
            cluster_id="test",
            metrics_address="127.0.0.1:0",
            drain_budget=1.0,
        ),
        ControllerConfig(
            rds_address=rds.simulator.address,
            rds_port=rds.simulator.port,
            rds_user="csi",
            rds_key_file=rds.key_file,
            rds_host_keys=(rds.simulator.host_key_line,),
            defaults=VolumeParameters(nvme_addresses=("192.0.2.1",), volume_path=BASE),
            reserve=RESERVE,
        ),
        None,
    )
    stop = asyncio.Event()
    with capture_logs() as log:
        serving = asyncio.create_task(driver.serve(stop))
        try:
            yield await where(log)
        finally:
            stop.set()
            await serving


async def page(port: int) -> dict[str, str]:
    answer = await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
    lines = answer.partition(b"\r\n\r\n")[2].decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


async def eventually(port: int, sample: str) -> dict[str, str]:
    """The page, once the sample is in it."""
    async with asyncio.timeout(20):
        while sample not in (seen := await page(port)):  # noqa: ASYNC110 - a scraper polls
            await asyncio.sleep(0.01)
    return seen


async def test_pool_and_link(rds: Rds, tmp_path: Path) -> None:
    async with controller(rds, tmp_path) as port:
        seen = await eventually(port, 'rds_csi_pool_free_bytes{pool="raid10"}')
        capacity = await rds.backend().capacity(BASE)
        assert float(seen['rds_csi_pool_size_bytes{pool="raid10"}']) == capacity.size
        assert float(seen['rds_csi_pool_free_bytes{pool="raid10"}']) == capacity.free
        assert float(seen['rds_csi_pool_reserve_bytes{pool="raid10"}']) == RESERVE
        assert float(seen['rds_csi_pool_seen_timestamp_seconds{pool="raid10"}']) > 1e9
        assert seen["rds_csi_ssh_connected"] == "1.0"
        assert seen['rds_csi_ssh_commands_total{outcome="ok"}'] == "1.0"
        (info,) = [sample for sample in seen if sample.startswith("rds_csi_rds_info")]
        assert 'version="7.24.2 (stable)"' in info


async def test_a_scrape_does_not_wait_for_an_rds_that_hangs(rds: Rds, tmp_path: Path) -> None:
    rds.simulator.faults.add("stall-before", match="/disk", count=50)
    async with controller(rds, tmp_path) as port:
        await until(lambda: rds.execs() > 0)
        for _ in range(5):
            async with asyncio.timeout(2):
                seen = await page(port)
            assert seen["rds_csi_ssh_commands_running"] == "1.0"
            assert 'rds_csi_pool_free_bytes{pool="raid10"}' not in seen


async def test_a_link_that_nobody_uses_comes_back(
    rds: Rds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_POOL_INTERVAL", 0.2)
    async with controller(rds, tmp_path) as port:
        await eventually(port, 'rds_csi_pool_free_bytes{pool="raid10"}')
        await rds.stop()
        await changed(port, "rds_csi_ssh_connected", "0.0")
        await rds.start()
        await changed(port, "rds_csi_ssh_connected", "1.0")
        assert float((await page(port))['rds_csi_ssh_connects_total{outcome="ok"}']) >= 2


async def changed(port: int, sample: str, value: Any) -> None:
    async with asyncio.timeout(30):
        while (await page(port))[sample] != value:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
