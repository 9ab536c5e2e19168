"""In what state the staged volumes are, for whoever watches the node from outside."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rds_csi.node.waiting import GIVEN_UP, NOT_HEALED, RECONNECTING
from tests.unit.fakes.sysfs import OTHER_NQN, FakeSysfs
from tests.unit.node.staged_host import VOLUME, StagedHost
from tests.unit.nvme.kernel import A, B


@pytest.fixture
def host(tmp_path: Path) -> StagedHost:
    return StagedHost(FakeSysfs(tmp_path / "fake"), tmp_path)


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
async def test_the_state_of_a_volume_is_that_of_its_controller(
    host: StagedHost, kernel: str, shown: str
) -> None:
    await host.record()
    host.tree.connect(A, state=kernel)
    assert await host.state() == shown


async def test_one_live_connection_is_enough(host: StagedHost) -> None:
    await host.record()
    host.tree.connect(A, state="connecting")
    host.tree.connect(A, state="live")
    assert await host.state() == "live"


async def test_a_volume_with_a_path_down_is_told_from_one_with_all(host: StagedHost) -> None:
    await host.record(address="192.0.2.1,192.0.2.2")
    host.tree.connect(A, address="192.0.2.1")
    assert await host.state() == "path_down"
    name = host.tree.connect(A, address="192.0.2.2", state="connecting")
    assert await host.state() == "path_down"
    host.tree.set(name, "state", "live")
    assert await host.state() == "live"
    host.mount("/stage", "ro")
    host.tree.set(name, "state", "connecting")
    assert await host.state() == "read_only", "the worse of two"


async def test_one_path_that_is_tried_again_is_waited_for(host: StagedHost) -> None:
    await host.record(address="192.0.2.1,192.0.2.2")
    host.tree.connect(A, address="192.0.2.1", state="deleting")
    name = host.tree.connect(A, address="192.0.2.2", state="connecting")
    assert await host.state() == "connecting"
    host.tree.set(name, "state", "dead")
    assert await host.state() == "deleting"


@pytest.mark.parametrize(
    ("before", "after", "reconnected"),
    [
        ("connecting", "live", 1),
        ("connecting", "path_down", 1),
        ("path_down", "live", 0),
        ("live", "path_down", 0),
    ],
)
async def test_a_path_that_comes_or_goes_is_no_outage(
    host: StagedHost, before: str, after: str, reconnected: int
) -> None:
    await host.record(address="192.0.2.1,192.0.2.2")
    first = host.tree.connect(A, address="192.0.2.1", state="connecting")
    second = host.tree.connect(A, address="192.0.2.2", state="connecting")

    def become(state: str) -> None:
        for name, live in ((first, state != "connecting"), (second, state == "live")):
            host.tree.set(name, "state", "live" if live else "connecting")

    become(before)
    assert await host.state() == before
    become(after)
    look = await host.states.look()
    assert (list(look.states), look.reconnected) == ([after], reconnected)


async def test_live_without_a_device(host: StagedHost) -> None:
    await host.record()
    host.tree.connect(A, size=None)
    assert await host.state() == "no_device"


async def test_somebody_elses_connection_is_not_ours(host: StagedHost) -> None:
    await host.record()
    host.mount("/stage")
    host.tree.connect(A, hostnqn=OTHER_NQN)
    assert await host.state() == "disconnected"


@pytest.mark.parametrize("point", ["/stage", "/target"])
async def test_mounted_without_a_connection_is_disconnected(host: StagedHost, point: str) -> None:
    await host.record(targets=(("/target", False),))
    host.mount(point)
    assert await host.state() == "disconnected"


async def test_what_a_map_holds_waits_whatever_its_connection(host: StagedHost) -> None:
    await host.record()
    host.mount("/stage")
    host.waits.note(VOLUME, RECONNECTING, "the kernel is at it")
    assert await host.state() == "disconnected"
    host.waits.note(VOLUME, NOT_HEALED, "too small")
    assert await host.state() == "waiting"
    host.tree.connect(A)
    host.waits.note(VOLUME, GIVEN_UP, "refused")
    assert await host.state() == "waiting"
    host.waits.over(VOLUME)
    assert await host.state() == "live"


async def test_a_record_that_nothing_backs_is_left_over(host: StagedHost) -> None:
    await host.record()
    host.mount("/other")
    assert await host.state() == "left_over"


@pytest.mark.parametrize(("wanted", "state"), [(False, "read_only"), (True, "live")])
async def test_a_file_system_that_the_kernel_made_read_only(
    host: StagedHost, wanted: bool, state: str
) -> None:
    await host.record(read_only=wanted)
    host.tree.connect(A)
    host.mount("/stage", "ro")
    assert await host.state() == state


@pytest.mark.parametrize(("fs_type", "state"), [("ext4", "stale_mount"), ("", "live")])
async def test_mounted_is_a_device_that_has_gone(
    host: StagedHost, fs_type: str, state: str
) -> None:
    await host.record(fs_type=fs_type)
    host.tree.connect(A)
    host.minor = 7
    host.mount("/stage")
    assert await host.state() == state


async def test_the_mark_of_an_interrupted_format_is_no_volume(host: StagedHost) -> None:
    await host.record(staging_path="", formatting="some-uuid")
    assert not (await host.states.look()).states


async def test_an_outage_is_logged_with_its_volume_and_counted_when_over(host: StagedHost) -> None:
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


async def test_a_volume_staged_after_a_reboot_did_not_reconnect(host: StagedHost) -> None:
    await host.record()
    assert await host.state() == "left_over"
    host.tree.connect(A)
    assert (await host.states.look()).reconnected == 0


async def test_each_volume_counts_in_its_own_state(host: StagedHost) -> None:
    await host.record()
    await host.record(volume=B.rpartition(":")[2], nqn=B, staging_path="/other")
    host.tree.connect(A)
    host.tree.connect(B, state="connecting")
    assert (await host.states.look()).states == {"live": 1, "connecting": 1}


async def test_what_moved_away_and_back_did_not_reconnect(host: StagedHost) -> None:
    """It is well without a connection where nothing is mounted."""
    await host.record()
    name = host.tree.connect(A)
    assert await host.state() == "live"
    host.tree.disconnect(name)
    assert await host.state() == "left_over"
    host.tree.connect(A)
    assert (await host.states.look()).reconnected == 0
