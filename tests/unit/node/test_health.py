"""What is wrong with a volume is found, named and told apart; a healthy one has nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.errors import PathNotFound
from rds_csi.model.health import Problem, Severity
from rds_csi.nvme.baseline import Doubt
from rds_csi.nvme.counters import Verdict
from rds_csi.rpc.convert import add_condition
from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import OTHER, VOLUME, Calls, nqn, published

NQN = nqn(VOLUME)


async def reasons(calls: Calls, *paths: Path) -> dict[str, str]:
    return {each.reason: each.status.name for each in await calls.health(*paths)}


@pytest.mark.parametrize("block", [True, False])
async def test_nothing_is_wrong(host: FakeHost, block: bool) -> None:
    calls = await published(host, block=block)
    assert await calls.health() == []
    if not block:
        assert await calls.health(calls.target_path, calls.stage_path) == []


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("state", ["connecting", "resetting"])
async def test_the_kernel_is_reconnecting(host: FakeHost, block: bool, state: str) -> None:
    calls = await published(host, block=block)
    host.states[NQN] = state
    (found,) = await calls.health()
    assert (found.status.name, found.reason) == ("INACCESSIBLE", "Reconnecting")
    assert state in found.message
    assert "10.0.0.1:4420" in found.message
    assert "every 5 s" in found.message
    assert await calls.stats() == []
    host.states.clear()
    assert await calls.health() == []


@pytest.mark.parametrize(
    ("addresses", "down"),
    [("10.0.0.1", ""), ("10.0.0.1,10.0.0.2", "10.0.0.2"), ("10.0.0.3,10.0.0.1", "10.0.0.3")],
)
async def test_a_path_is_down(host: FakeHost, addresses: str, down: str) -> None:
    calls = await published(host)
    context = {**calls.publish_context, "nvmeAddress": addresses}
    calls = calls.but(published=context)
    await calls.stage()
    found = await calls.health()
    assert [(each.reason, each.status.name) for each in found] == (
        [("PathDown", "DEGRADED")] if down else []
    )
    assert not down or f"nothing reaches it over {down};" in found[0].message
    # Where none is live, its I/O waits, and that is what is told.
    host.states[NQN] = "connecting"
    assert await reasons(calls) == {"Reconnecting": "INACCESSIBLE"}


async def test_the_kernel_gave_up(host: FakeHost) -> None:
    calls = await published(host)
    host.unplug(NQN)
    assert await reasons(calls) == {"NotConnected": "INACCESSIBLE", "StaleMount": "INACCESSIBLE"}


async def test_the_target_came_back_without_the_volume(host: FakeHost) -> None:
    calls = await published(host)
    host.without_namespace.add(NQN)
    assert "NamespaceMissing" in await reasons(calls)


async def test_another_device_took_its_place(host: FakeHost) -> None:
    calls = await published(host)
    host.unplug(NQN)
    host._plug(NQN)
    assert await reasons(calls) == {"StaleMount": "INACCESSIBLE"}


@pytest.mark.parametrize("block", [True, False])
async def test_the_target_began_anew(host: FakeHost, block: bool) -> None:
    calls = await published(host, block=block)
    host.doubts[VOLUME] = Doubt(verdict=Verdict.BOOTED, since=1e9, until=1e9 + 60)
    (found,) = await calls.health()
    assert (found.status.name, found.reason) == ("DEGRADED", "TargetRestarted")
    assert "between 2001-09-09T01:46:40+00:00 and 2001-09-09T01:47:40+00:00" in found.message
    assert "stop the pods" in found.message
    assert await calls.stats(), "it can be used, and that it should not be is said"
    # What cannot be told is no problem that is known.
    host.doubts[VOLUME] = Doubt(verdict=Verdict.UNKNOWN, since=1e9, until=1e9 + 60)
    assert await calls.health() == []


async def test_the_mount_is_lost(host: FakeHost) -> None:
    calls = await published(host)
    host.table.run(["umount", str(calls.target_path)])
    assert await reasons(calls) == {"MountLost": "INACCESSIBLE"}
    assert await reasons(calls, calls.stage_path) == {}


async def test_the_file_system_went_read_only(host: FakeHost) -> None:
    calls = await published(host)
    host.table.entries = [
        replace(entry, super={"mode": "ro"}) if entry.point.startswith(str(host.kubelet)) else entry
        for entry in host.table.entries
    ]
    host.table._write()
    assert await reasons(calls) == {"FileSystemReadOnly": "DEGRADED"}
    assert await calls.stats(), "a file system that can be read has its usage"


async def test_a_volume_that_is_not_here(host: FakeHost) -> None:
    calls = await published(host)
    with pytest.raises(PathNotFound):
        await calls.but(volume=OTHER).health()


async def test_a_path_that_is_not_the_volumes(host: FakeHost) -> None:
    calls = await published(host)
    await published(host, volume=OTHER, stage_name="stage-2", target_name="other")
    with pytest.raises(PathNotFound):
        await calls.health(host.kubelet / "other")


async def storage(host: FakeHost) -> list[tuple[str, str]]:
    reply = await host.node().node_get_storage_health(csi.NodeGetStorageHealthRequest())
    return [(each.status.name, each.reason) for each in reply.backend_health]


async def test_the_storage_is_judged_by_all_connections(host: FakeHost) -> None:
    assert await storage(host) == []
    await published(host)
    await published(host, volume=OTHER, stage_name="stage-2", target_name="other")
    assert await storage(host) == []
    host.states[NQN] = "connecting"
    assert await storage(host) == [("STORAGE_DEGRADED", "ConnectionsLost")]
    host.states[nqn(OTHER)] = "connecting"
    assert await storage(host) == [("STORAGE_UNREACHABLE", "TargetUnreachable")]


async def test_an_address_without_which_each_volume_is_reached_is_no_outage(host: FakeHost) -> None:
    await published(host)
    await published(host, volume=OTHER, stage_name="stage-2", target_name="other")
    host.more_paths[NQN] = {"10.0.0.2": "connecting"}
    assert await storage(host) == [("STORAGE_DEGRADED", "ConnectionsLost")]
    host.more_paths[NQN] = {"10.0.0.2": "live"}
    host.states[NQN] = "connecting"
    assert await storage(host) == [("STORAGE_DEGRADED", "ConnectionsLost")]
    host.states[nqn(OTHER)] = "connecting"
    assert await storage(host) == [("STORAGE_UNREACHABLE", "TargetUnreachable")]


def old_condition(data: bytes) -> tuple[bool, str]:
    """Field 2 of the message, read as the VolumeCondition of CSI 1.12."""
    position = data.index(b"\x12")
    length, body = data[position + 1], data[position + 2 :]
    assert length == len(body)
    abnormal = body.startswith(b"\x08\x01")
    text = body[4 if abnormal else 2 :]
    return abnormal, text.decode()


async def test_older_kubelets_are_told_in_their_words(host: FakeHost) -> None:
    calls = await published(host, block=True)
    reply = csi.NodeGetVolumeStatsResponse()
    add_condition(reply, [])
    assert old_condition(bytes(reply)) == (False, "healthy")
    reply = csi.NodeGetVolumeStatsResponse()
    add_condition(reply, [Problem(Severity.INACCESSIBLE, "Gone", "it is gone")])
    assert old_condition(bytes(reply)) == (True, "Gone: it is gone")
    host.states[NQN] = "connecting"
    stats = await host.node().node_get_volume_stats(
        csi.NodeGetVolumeStatsRequest(volume_id=VOLUME, volume_path=str(calls.target_path))
    )
    assert b"Reconnecting" in bytes(stats)
