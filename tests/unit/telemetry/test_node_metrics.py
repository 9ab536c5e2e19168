"""Real connects, disconnects, records and stuck programs change what a node shows."""

import asyncio
import os
import signal
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from rds_csi.driver.watch import NodeWatch
from rds_csi.errors import CommandStuck, DriverError
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.states import VolumeStates
from rds_csi.nvme.reaper import Reaper
from rds_csi.runtime.process import SubprocessRunner
from rds_csi.telemetry.metrics import Metrics
from rds_csi.telemetry.node_metrics import VOLUME_STATES, NodeMetrics
from tests.unit.fakes.ssh import until
from tests.unit.fakes.sysfs import HOST_NQN, OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import PREFIX, TARGET, A, Kernel

VOLUME = A.rpartition(":")[2]


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


class Host:
    """A node's records, connections and mounts, and what is seen of them."""

    def __init__(self, tree, directory):
        self.tree = tree
        self.store = StagingStore(directory / "state")
        self.table = directory / "mountinfo"
        self.mounted = {}
        self.minor = 1
        self.mount()
        mounts = Mounts(SubprocessRunner(), table=self.table)
        self.states = VolumeStates(self.store, Kernel(tree).sysfs, mounts, HOST_NQN)

    def mount(self, point=None, mode="rw"):
        if point:
            self.mounted[point] = mode
        self.table.write_text(
            "".join(
                f"{number} 1 259:{self.minor} / {point} rw - ext4 /dev/nvme0n1 {mode}\n"
                for number, (point, mode) in enumerate(self.mounted.items(), 20)
            )
        )

    async def record(self, **changes):
        staged = StagedVolume(
            volume=VOLUME,
            nqn=A,
            address="192.0.2.1",
            port=4420,
            staging_path="/stage",
            fs_type="ext4",
        )
        await self.store.write(replace(staged, **changes))

    async def state(self):
        (state,) = (await self.states.look()).states
        return state


@pytest.fixture
def host(tree, tmp_path):
    return Host(tree, tmp_path)


@pytest.mark.parametrize(
    ("kernel", "shown"),
    [
        ("live", "live"),
        ("connecting", "connecting"),
        ("resetting", "resetting"),
        ("deleting (no IO)", "deleting"),
        ("dead", "dead"),
    ],
)
async def test_the_state_of_a_volume_is_that_of_its_controller(host, kernel, shown):
    await host.record()
    host.tree.connect(A, state=kernel)
    assert await host.state() == shown


async def test_one_live_connection_is_enough(host):
    await host.record()
    host.tree.connect(A, state="connecting")
    host.tree.connect(A, state="live")
    assert await host.state() == "live"


async def test_live_without_a_device(host):
    await host.record()
    host.tree.connect(A, size=None)
    assert await host.state() == "no_device"


async def test_somebody_elses_connection_is_not_ours(host):
    await host.record()
    host.mount("/stage")
    host.tree.connect(A, hostnqn=OTHER_NQN)
    assert await host.state() == "disconnected"


@pytest.mark.parametrize("point", ["/stage", "/target"])
async def test_mounted_without_a_connection_is_disconnected(host, point):
    await host.record(targets=(("/target", False),))
    host.mount(point)
    assert await host.state() == "disconnected"


async def test_a_record_that_nothing_backs_is_left_over(host):
    await host.record()
    host.mount("/other")
    assert await host.state() == "left_over"


@pytest.mark.parametrize(("wanted", "state"), [(False, "read_only"), (True, "live")])
async def test_a_file_system_that_the_kernel_made_read_only(host, wanted, state):
    await host.record(read_only=wanted)
    host.tree.connect(A)
    host.mount("/stage", "ro")
    assert await host.state() == state


@pytest.mark.parametrize(("fs_type", "state"), [("ext4", "stale_mount"), ("", "live")])
async def test_mounted_is_a_device_that_has_gone(host, fs_type, state):
    await host.record(fs_type=fs_type)
    host.tree.connect(A)
    host.minor = 7
    host.mount("/stage")
    assert await host.state() == state


async def test_the_mark_of_an_interrupted_format_is_no_volume(host):
    await host.record(staging_path="", formatting="some-uuid")
    assert not (await host.states.look()).states


async def test_an_outage_is_logged_with_its_volume_and_counted_when_over(host):
    await host.record()
    name = host.tree.connect(A)
    with capture_logs() as log:
        for state, reconnected in (("live", 0), ("connecting", 0), ("connecting", 0), ("live", 1)):
            host.tree.set(name, "state", state)
            assert (await host.states.look()).reconnected == reconnected
    assert [(entry["log_level"], entry["volume"]) for entry in log] == [
        ("warning", VOLUME),
        ("info", VOLUME),
    ]


async def test_a_volume_staged_after_a_reboot_did_not_reconnect(host):
    await host.record()
    assert await host.state() == "left_over"
    host.tree.connect(A)
    assert (await host.states.look()).reconnected == 0


async def test_the_service_shows_what_it_sees(host, value):
    before = value("volumes_seen_timestamp_seconds")
    await host.record()
    host.tree.connect(A, state="connecting")
    services = value.watch.services(SubprocessRunner(), host.states)
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


# Programs


async def test_programs_that_do_not_die(host, value):
    pids = []
    runner = SubprocessRunner(
        term_grace=0.02, kill_grace=0.02, signal_group=lambda pid, _number: pids.append(pid)
    )
    value.watch.services(runner, host.states)
    assert value("stuck_programs") == 0
    with pytest.raises(CommandStuck) as caught:
        await runner.run(["sleep", "60"], timeout=0.02)
    assert value("stuck_programs") == 1
    os.killpg(pids[0], signal.SIGKILL)
    await caught.value.gone.wait()
    await until(lambda: value("stuck_programs") == 0)
    await runner.close()
