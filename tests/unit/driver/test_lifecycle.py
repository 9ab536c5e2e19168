"""The end of the whole process: in order, within its budget, and hard where a task hangs.

Real processes with real programs: an ``nvme`` of ours that refuses, hangs, or will not die, and
a sysfs without any controller.
"""

import asyncio
import os
import signal
from pathlib import Path

import asyncssh
import grpc
import pytest

from rds_csi.config import DriverConfig
from rds_csi.csi import v1 as csi
from rds_csi.driver.lifecycle import _CLOSE_BUDGET, Driver
from rds_csi.driver.parts import Part
from rds_csi.model.host_identity import host_identity
from rds_csi.model.node_id import make_node_id
from rds_csi.rpc import RpcSettings
from rds_csi.runtime.process import KILL_GRACE, TERM_GRACE
from tests.unit.driver.processes import (
    DEAD_DNS,
    KUBELETS_PATIENCE,
    NVME,
    PREFIX,
    STUBBORN,
    alive,
    code_of,
    node,
    of_session,
    request,
    staging,
    started,
    until,
    until_connects,
    volume,
)
from tests.unit.fakes.sysfs import FakeSysfs


def test_the_budgets_are_within_the_kubelets_patience(tmp_path: Path) -> None:
    config = DriverConfig(endpoint=tmp_path / "csi.sock", cluster_id="test")
    assert config.drain_budget + _CLOSE_BUDGET <= KUBELETS_PATIENCE - 5
    # A cancelled operation must be able to end its program, and the next ones in line too.
    killing = TERM_GRACE + KILL_GRACE
    assert killing < RpcSettings().grace
    assert RpcSettings().grace + killing < _CLOSE_BUDGET


async def test_a_task_that_swallows_cancellation_is_cut_off(tmp_path: Path) -> None:
    async with started(tmp_path, STUBBORN, str(tmp_path / "csi.sock")) as process:
        await until(lambda: "stubborn runs" in (tmp_path / "log").read_text())
        status, seconds = await process.end(within=20)
    log = (tmp_path / "log").read_text()
    assert status == os.EX_SOFTWARE == 70
    assert seconds >= 2, "it did not even wait for its budgets"
    assert "hard exit" in log
    assert "stubborn" in log.rpartition("hard exit")[2]


async def test_the_successor_of_a_hard_exit_serves(tmp_path: Path) -> None:
    def runs() -> int:
        return (tmp_path / "log").read_text().count("stubborn runs")

    async with started(tmp_path, STUBBORN, str(tmp_path / "csi.sock")) as process:
        # The socket is there a moment before what runs beside it.
        await until(lambda: runs() == 1)
        process.child.kill()
        await process.child.wait()
    assert process.socket.exists()
    async with started(tmp_path, STUBBORN, str(tmp_path / "csi.sock")) as process:
        await until(lambda: runs() == 2 or process.child.returncode is not None)
        assert process.child.returncode is None


async def test_a_lookup_that_hangs_does_not_hold_the_end(tmp_path: Path) -> None:
    """As with DNS servers that do not answer: the call in its thread cannot be broken off."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "key").write_bytes(key.export_private_key())
    (tmp_path / "key").chmod(0o600)
    arguments = [
        "controller",
        f"--endpoint={tmp_path}/csi.sock",
        "--cluster-id=test",
        "--drain-budget=1",
        "--rds-address=rds.example",
        f"--rds-key-file={tmp_path}/key",
        f"--rds-host-key={key.export_public_key().decode()}",
        "--nvme-address=10.0.0.5",
        "--volume-path=raid10/csi",
    ]
    async with (
        started(tmp_path, DEAD_DNS, *arguments) as process,
        grpc.aio.insecure_channel(f"unix:{process.socket}") as channel,
    ):
        call = channel.unary_unary("/csi.v1.Controller/GetCapacity", request_serializer=bytes)
        asked = asyncio.ensure_future(call(csi.GetCapacityRequest(), timeout=60))
        await until(lambda: "asked for rds.example" in (tmp_path / "log").read_text())
        status, seconds = await process.end(within=30)
        assert await code_of(asked) is grpc.StatusCode.UNAVAILABLE
    assert status == 0, (tmp_path / "log").read_text()[-4000:]
    assert seconds < 1 + _CLOSE_BUDGET
    assert process.events()[-2:] == ["stopped", "calls that hang are left behind"]


@pytest.mark.requirement("PIT-01")
@pytest.mark.parametrize("behaviour", list(NVME))
async def test_fifty_stages_under_way_do_not_hold_the_end(tmp_path: Path, behaviour: str) -> None:
    async with node(tmp_path, behaviour) as process, staging(process) as stage:
        calls = [
            asyncio.ensure_future(stage(request(tmp_path, number), timeout=60))
            for number in range(50)
        ]
        # Where connects are refused at once, the second round of a volume is in its retries.
        await until_connects(process, 60 if behaviour == "refuses" else 4)
        status, _ = await process.end(within=2 + _CLOSE_BUDGET)
        codes = [await code_of(call) for call in calls]
        started_connects = process.connects()
        left = [pid for connect in started_connects for pid in of_session(connect)]
    assert status == 0, (tmp_path / "log").read_text()[-4000:]
    assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
    # One that cannot be killed is emulated by not doing it; the end of the event loop may do it.
    assert left == [] or behaviour == "cannot be killed"
    assert ("program cannot be killed" in process.events()) == (behaviour == "cannot be killed")
    assert process.records() == []
    assert not process.socket.exists()
    events = process.events()
    assert events[-1] == "stopped"
    assert "hard exit: these tasks do not end" not in events


@pytest.mark.requirement("PIT-01")
@pytest.mark.parametrize("behaviour", ["refuses", "hangs"])
async def test_connects_get_no_budget_they_end_at_once(tmp_path: Path, behaviour: str) -> None:
    budget = 20.0
    async with node(tmp_path, behaviour, budget=budget) as process, staging(process) as stage:
        call = asyncio.ensure_future(stage(request(tmp_path, 1), timeout=60))
        await until_connects(process, 2 if behaviour == "refuses" else 1)
        status, seconds = await process.end(within=budget)
        assert await code_of(call) is grpc.StatusCode.UNAVAILABLE
        left = [pid for connect in process.connects() for pid in of_session(connect)]
    assert status == 0
    assert seconds < budget / 2
    assert left == []


@pytest.mark.requirement("PIT-01")
async def test_a_program_that_cannot_be_killed_locks_its_volume_and_no_other(
    tmp_path: Path,
) -> None:
    async with node(tmp_path, "cannot be killed") as process, staging(process) as stage:
        first = asyncio.ensure_future(stage(request(tmp_path, 1), timeout=1.5))
        await until_connects(process, 1)
        assert await code_of(first) is grpc.StatusCode.DEADLINE_EXCEEDED
        (stuck,) = process.connects()
        await until(lambda: "volume stays locked" in process.events())

        # Again: the volume is locked. Another: its connect begins while the first one hangs.
        assert await code_of(stage(request(tmp_path, 1), timeout=10)) is grpc.StatusCode.ABORTED
        (tmp_path / "bin" / "nvme").write_text(
            f"#!/bin/sh\necho $$ >>{tmp_path}/connects\necho 'Permission denied' >&2; exit 1\n"
        )
        other = await code_of(stage(request(tmp_path, 2), timeout=20))
        assert other is grpc.StatusCode.UNAVAILABLE
        assert len(process.connects()) == 2
        assert alive(stuck)

        # The program ends after all: the volume is free again.
        os.killpg(stuck, signal.SIGKILL)
        await until(lambda: "volume unlocked" in process.events())
        again = await code_of(stage(request(tmp_path, 1), timeout=20))
        assert again is grpc.StatusCode.UNAVAILABLE
        assert len(process.connects()) == 3


@pytest.mark.requirement("NODE-03")
async def test_clean_up_comes_before_serving(tmp_path: Path) -> None:
    async with node(tmp_path, "refuses") as process:
        # The socket is there before the line that says so.
        await until(lambda: "listening" in process.events())
        events = process.events()
        assert events.index("looked for orphaned connections") < events.index("listening")


async def test_the_end_may_come_before_anything_is_served(tmp_path: Path) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def prepare() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    driver = Driver(DriverConfig(endpoint=tmp_path / "s.sock", cluster_id="test"), None, None)
    driver._parts.append(Part(service=None, prepare=prepare))
    stop = asyncio.Event()
    serving = asyncio.create_task(driver.serve(stop))
    await began.wait()
    stop.set()
    async with asyncio.timeout(5):
        await serving
    assert ended.is_set()
    assert not (tmp_path / "s.sock").exists()


@pytest.mark.requirement("NODE-03")
async def test_clean_up_leaves_what_a_record_that_cannot_be_read_is_about(tmp_path: Path) -> None:
    host = host_identity("test", make_node_id("test", "node-1"))
    kernel = FakeSysfs(tmp_path)
    nqn = f"{PREFIX}:{volume(1)}"
    name = kernel.connect(nqn, hostnqn=host.nqn, hostid=host.hostid, size=None)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / f"{volume(1)}.json").write_bytes(b"{")
    async with node(tmp_path, "refuses") as process:
        await until(lambda: "listening" in process.events())
        events = process.events()
    assert "looked for orphaned connections" in events
    assert "disconnecting orphan" not in events
    assert (kernel.controller(name) / "delete_controller").read_text() == ""


@pytest.mark.requirement("NODE-03")
async def test_clean_up_that_fails_does_not_hold_up_the_start(tmp_path: Path) -> None:
    (tmp_path / "failing-disk").touch()
    async with node(tmp_path, "refuses") as process:
        await until(lambda: "listening" in process.events())
        events = process.events()
        failed = events.index("clean-up of connections at the start failed")
        assert process.lines()[failed]["level"] == "warning"
        assert failed < events.index("listening")
