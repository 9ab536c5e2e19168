"""The log level of a running driver changes at SIGUSR1."""

import asyncio
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import structlog
from grpclib.client import Channel

from rds_csi.csi import v1 as csi
from rds_csi.telemetry import logs


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    config, root = structlog.get_config(), logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield io.StringIO()
    structlog.configure(**config)
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.parametrize(
    ("normal", "levels"),
    [
        ("info", ["debug", "info", "debug"]),
        ("error", ["debug", "error", "debug"]),
        ("debug", ["info", "debug", "info"]),
    ],
)
def test_each_toggle_is_said(out: io.StringIO, normal: logs.Level, levels: list[str]) -> None:
    logs.configure(level=normal, stream=out)
    for _ in levels:
        logs.toggle_debug()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["to"] for line in lines] == levels


def test_debug_is_logged_while_it_is_on(out: io.StringIO) -> None:
    logs.configure(level="warning", stream=out)
    for step in ("before", "on", "off"):
        structlog.get_logger().debug(step)
        structlog.get_logger().info(step)
        logs.toggle_debug()
    events = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert [event for event in events if event in ("before", "on", "off")] == ["on", "on"]


class Driver:
    """A driver in a process of its own, and the lines it logs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.socket = directory / "csi.sock"

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rds_csi", "node", "--cluster-id=test", "--node-id=n1"),
            f"--endpoint={self.socket}",
            f"--state-dir={self._directory}",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stderr=asyncio.subprocess.PIPE,
        )
        await self.until("ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.terminate()
        await self.process.communicate()

    async def until(self, event: str) -> list[dict[str, str]]:
        """The lines up to the first of that event."""
        assert self.process.stderr is not None
        lines: list[dict[str, str]] = []
        async with asyncio.timeout(60):
            while not lines or lines[-1]["event"] != event:
                lines.append(json.loads(await self.process.stderr.readline()))
        return lines

    async def probe(self) -> None:
        channel = Channel(path=str(self.socket))
        await csi.IdentityStub(channel).probe(csi.ProbeRequest())
        channel.close()


async def test_a_running_driver_changes_its_level_at_sigusr1(tmp_path: Path) -> None:
    async with Driver(tmp_path) as driver:
        await driver.probe()
        driver.process.send_signal(signal.SIGUSR1)
        seen = await driver.until("log level changed")
        assert seen[-1]["to"] == "debug"
        assert not [line for line in seen if line["event"] == "call"]
        await driver.probe()
        (*_, call) = await driver.until("call")
        assert (call["level"], call["rpc"]) == ("debug", "Probe")
        driver.process.send_signal(signal.SIGUSR1)
        assert (await driver.until("log level changed"))[-1]["to"] == "info"
        await driver.probe()
        driver.process.send_signal(signal.SIGTERM)
        assert not [line for line in await driver.until("stopped") if line["event"] == "call"]
