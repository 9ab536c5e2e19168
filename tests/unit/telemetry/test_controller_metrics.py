"""A real SSH connection changes what is counted of the link to the RDS."""

import asyncio

import pytest

from rds_csi.errors import DriverError
from rds_csi.routeros import Session
from rds_csi.telemetry.controller_metrics import POOL_AGE, ControllerMetrics
from rds_csi.telemetry.metrics import Metrics
from tests.unit.fakes.clock import FakeClock
from tests.unit.fakes.ssh import FakeRds, Gate, until


class Reader:
    """Metrics, and the values in them."""

    def __init__(self, clock=None):
        self.metrics = Metrics("controller")
        self.rds = ControllerMetrics(self.metrics, clock)

    def session(self, rds, **changes):
        session = Session(rds.settings(**changes), observe=self.rds.ssh_command)
        self.rds.watch_ssh(session)
        return session

    def __call__(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"rds_csi_{name}", labels)


@pytest.fixture
def value():
    return Reader()


async def test_commands_by_outcome_and_their_time(tmp_path, value):
    async with FakeRds(tmp_path) as rds:
        session = value.session(rds)
        await session.execute("x")
        await session.execute("x")

        async def silent(process, _nonce, _command):
            process.exit(0)

        rds.answer = silent
        with pytest.raises(DriverError):
            await session.execute("x")
        await rds.stop()
        await until(lambda: not session.connected)
        with pytest.raises(DriverError):
            await session.execute("x")
        await session.close()
    assert value("ssh_commands_total", outcome="ok") == 2
    assert value("ssh_commands_total", outcome="unknown") == 1
    assert value("ssh_commands_total", outcome="failed") == 1
    assert value("ssh_command_duration_seconds_count") == 4
    assert value("ssh_command_duration_seconds_sum") > 0


async def test_connects_failures_and_reconnects(tmp_path, value):
    async with FakeRds(tmp_path) as rds:
        session = value.session(rds)
        assert value("ssh_connects_total", outcome="ok") == 0
        assert value("ssh_connected") == 0
        await session.execute("x")
        assert value("ssh_connected") == 1
        assert value("ssh_connects_total", outcome="ok") == 1
        rds.drop()
        await until(lambda: value("ssh_connected") == 0)
        await session.execute("x")
        assert value("ssh_connects_total", outcome="ok") == 2
        assert value("ssh_connects_total", outcome="failed") == 0
        await rds.stop()
        await until(lambda: not session.connected)
        with pytest.raises(DriverError):
            await session.execute("x")
        assert value("ssh_connects_total", outcome="failed") == 1
        await session.close()


async def test_the_queue(tmp_path, value):
    async with FakeRds(tmp_path) as rds:
        session = value.session(rds, channels=2)
        rds.answer = gate = Gate()
        tasks = [asyncio.create_task(session.execute("x")) for _ in range(5)]
        await until(lambda: rds.running == 2)
        assert value("ssh_commands_running") == 2
        assert value("ssh_commands_waiting") == 3
        gate.open.set()
        await asyncio.gather(*tasks)
        await until(lambda: value("ssh_commands_running") == 0)
        assert value("ssh_commands_waiting") == 0
        await session.close()


async def test_who_answers(tmp_path, value):
    labels = {"version": "7.23.2 (stable)", "board": "RDS2216"}
    async with FakeRds(tmp_path) as rds:
        session = value.session(rds)
        assert value("rds_info", **labels) is None
        assert value("rds_patched") is None, "before it was asked nobody knows"
        await session.execute("x")
        assert value("rds_info", **labels) == 1
        # 7.23.2 has none of the fixes.
        assert value("rds_patched") == 0
        await session.close()


def test_a_pool_that_was_not_seen_for_long_is_not_shown_but_its_age_is():
    clock = FakeClock()
    value = Reader(clock)
    value.rds.show_pool("raid10", size=100, free=60, reserve=10)
    clock.time += POOL_AGE
    assert value("pool_size_bytes", pool="raid10") == 100
    assert value("pool_free_bytes", pool="raid10") == 60
    assert value("pool_reserve_bytes", pool="raid10") == 10
    clock.time += 1
    assert value("pool_size_bytes", pool="raid10") is None
    assert value("pool_free_bytes", pool="raid10") is None
    assert value("pool_seen_timestamp_seconds", pool="raid10") == 1e9
    value.rds.show_pool("raid10", size=100, free=5, reserve=10)
    assert value("pool_free_bytes", pool="raid10") == 5
