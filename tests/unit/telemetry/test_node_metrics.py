"""Real connects, disconnects, records and stuck programs change what a node shows."""

import asyncio
import os
import signal

import pytest

from rds_csi.driver.watch import NodeWatch
from rds_csi.errors import CommandStuck, DriverError
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.counters import Verdict
from rds_csi.nvme.reaper import Reaper
from rds_csi.runtime.process import SubprocessRunner
from rds_csi.telemetry.metrics import Metrics
from rds_csi.telemetry.node_metrics import VERDICTS, VOLUME_STATES, NodeMetrics
from tests.unit.fakes.ssh import until
from tests.unit.fakes.sysfs import HOST_NQN, FakeSysfs
from tests.unit.node.staged_host import StagedHost
from tests.unit.nvme.kernel import PREFIX, TARGET, A, Kernel

VOLUME = A.rpartition(":")[2]


class Returned:
    """Stands for :class:`rds_csi.nvme.returns.Returns`."""

    booted = 0


class Reader:
    """Metrics of a node, and the values in them."""

    def __init__(self):
        self.metrics = Metrics("node")
        self.watch = NodeWatch(self.metrics)

    def __call__(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"rds_csi_{name}", labels)

    def append(self, event):
        """As the list of events that a :class:`Kernel` keeps."""
        self.watch.on_event(event)


@pytest.fixture
def value():
    return Reader()


@pytest.fixture
def tree(tmp_path):
    return FakeSysfs(tmp_path / "fake")


# Connections


@pytest.mark.looptime
async def test_connects_retries_and_disconnects(value, tree):
    kernel = Kernel(tree, events=value)
    connector = kernel.connector()
    kernel.runner.fail("nvme", "connect", stderr="connection refused", times=2)
    kernel.works()
    await connector.connect_with_retry(TARGET, ConnectionConfig())
    assert value("nvme_connects_total", outcome="ok") == 1
    assert value("nvme_connects_total", outcome="failed") == 0
    assert value("nvme_path_failures_total") == 0
    value.append("path_failed")
    assert value("nvme_path_failures_total") == 1
    assert value("nvme_connect_retries_total") == 2
    await connector.disconnect(A)
    assert value("nvme_disconnects_total") == 1


@pytest.mark.looptime
async def test_a_connect_that_fails_for_good_is_one_failure(value, tree):
    kernel = Kernel(tree, events=value)
    kernel.runner.fail("nvme", "connect", stderr="connection refused")
    with pytest.raises(DriverError):
        await kernel.connector().connect_with_retry(TARGET, ConnectionConfig())
    assert value("nvme_connects_total", outcome="failed") == 1
    assert value("nvme_connects_total", outcome="ok") == 0
    assert value("nvme_connect_retries_total") == 4


@pytest.mark.looptime
async def test_orphans(value, tree):
    kernel = Kernel(tree, events=value)
    kernel.works()

    async def recorded():
        return set()

    reaper = Reaper(
        sysfs=kernel.sysfs,
        connector=kernel.connector(),
        host=HOST_NQN,
        nqn_prefix=PREFIX,
        recorded=recorded,
        mounted=lambda: lambda _devno: False,
        locked=lambda _nqn: False,
        on_disconnect=value.watch.on_orphan,
    )
    tree.connect(A, size=None)
    await reaper.once(starting=True)
    assert value("orphans_disconnected_total") == 1


# Volumes


@pytest.fixture
def host(tree, tmp_path):
    return StagedHost(tree, tmp_path)


async def test_the_service_shows_what_it_sees(host, value):
    before = value("volumes_seen_timestamp_seconds")
    await host.record()
    host.tree.connect(A, state="connecting")
    services = value.watch.services(SubprocessRunner(), host.states, Returned(), host.waits)
    task = asyncio.create_task(services["volumes"]())
    await until(lambda: value("volumes_staged", state="connecting") == 1)
    assert value("volumes_staged", state="live") == 0
    assert value("volumes_seen_timestamp_seconds") >= before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_states_are_shown_whole_and_words_nobody_knows_too():
    value = Reader()
    NodeMetrics.show_volumes(value.watch._metrics, {"live": 2, "odd": 1}, reconnected=3)
    shown = {state: value("volumes_staged", state=state) for state in VOLUME_STATES}
    assert shown == dict.fromkeys(VOLUME_STATES, 0) | {"live": 2, "unknown": 1}
    assert value("nvme_reconnects_total") == 3


def test_returns_of_targets(host, value):
    returned = Returned()
    value.watch.services(SubprocessRunner(), host.states, returned, host.waits)
    assert {verdict.value for verdict in Verdict} == set(VERDICTS)
    assert [value("target_returns_total", verdict=each) for each in VERDICTS] == [0, 0, 0]
    value.watch.on_verdict("booted")
    assert value("target_returns_total", verdict="booted") == 1
    assert value("volumes_target_restarted") == 0
    returned.booted = 3
    assert value("volumes_target_restarted") == 3


# Programs


async def test_programs_that_do_not_die(host, value):
    pids = []
    runner = SubprocessRunner(
        term_grace=0.02, kill_grace=0.02, signal_group=lambda pid, _number: pids.append(pid)
    )
    value.watch.services(runner, host.states, Returned(), host.waits)
    assert value("stuck_programs") == 0
    with pytest.raises(CommandStuck) as caught:
        await runner.run(["sleep", "60"], timeout=0.02)
    assert value("stuck_programs") == 1
    os.killpg(pids[0], signal.SIGKILL)
    await caught.value.gone.wait()
    await until(lambda: value("stuck_programs") == 0)
    await runner.close()


# What the healer does


async def test_who_waits_and_who_was_healed(value, host):
    value.watch.services(SubprocessRunner(), host.states, Returned(), host.waits)
    name = "volume_waiting_since_timestamp_seconds"
    assert value(name, volume=VOLUME, reason="NotHealed") is None
    host.waits.note(VOLUME, "ConnectionGivenUp", "refused")
    since = value(name, volume=VOLUME, reason="ConnectionGivenUp")
    host.waits.note(VOLUME, "NotHealed", "too small")
    assert value(name, volume=VOLUME, reason="NotHealed") == since
    assert value(name, volume=VOLUME, reason="ConnectionGivenUp") is None
    host.waits.over(VOLUME)
    value.watch.on_healed(VOLUME)
    assert value("volumes_healed_total") == 1
    assert value(name, volume=VOLUME, reason="NotHealed") is None
