"""NodeUnstageVolume: it ends what the stage began, and proves that it has ended."""

import pytest

from rds_csi.errors import Internal, VolumeInUse
from tests.unit.fakes.mounts import Entry
from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import OTHER, VOLUME, Calls, mutations, nqn, record


async def test_unstage_takes_all_down_and_is_repeatable(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    await calls.unstage()
    await calls.unstage()
    assert host.leaks() == []


async def test_unstage_of_what_never_was_is_proven_and_does_nothing(
    calls: Calls, host: FakeHost
) -> None:
    await calls.unstage()
    assert mutations(host) == []


async def test_unstage_without_a_record_finds_the_connection(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    (host.state / f"{VOLUME}.json").unlink()
    await calls.unstage()
    assert host.leaks() == []


@pytest.mark.parametrize("block", [False, True])
async def test_unstage_while_published_is_refused_and_changes_nothing(
    calls: Calls, host: FakeHost, block: bool
) -> None:
    used = calls.but(block=block)
    await used.stage()
    await used.publish()
    before = host.table.path.read_bytes()
    with pytest.raises(VolumeInUse, match=str(used.target_path)):
        await used.unstage()
    assert host.table.path.read_bytes() == before
    assert list(host.connections) == [nqn(VOLUME)]


async def test_unstage_while_a_foreign_mount_holds_it_is_refused(
    calls: Calls, host: FakeHost
) -> None:
    await calls.stage()
    host.table.entries.append(
        Entry((259, 1), "/", "/mnt/rescue", ("ro",), "ext4", "/dev/nvme1n1", {"mode": "rw"})
    )
    host.table._write()
    with pytest.raises(VolumeInUse, match="/mnt/rescue"):
        await calls.unstage()
    assert len(host.table.points()) == 2


@pytest.mark.looptime
async def test_unstage_while_another_mount_namespace_holds_it_is_refused(
    calls: Calls, host: FakeHost
) -> None:
    await calls.stage()
    host.claimed.add("nvme1n1")
    with pytest.raises(VolumeInUse, match="another mount namespace"):
        await calls.unstage()
    assert list(host.connections) == [nqn(VOLUME)]
    host.claimed.clear()
    await calls.unstage()
    assert host.leaks() == []


async def test_unstage_of_a_busy_mount_is_refused(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    host.table.busy.add(str(calls.stage_path))
    with pytest.raises(VolumeInUse, match="busy"):
        await calls.unstage()
    assert list(host.connections) == [nqn(VOLUME)]


async def test_unstage_after_the_kernel_gave_the_device_up(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    host.unplug(nqn(VOLUME))
    await calls.unstage()
    assert host.leaks() == []


async def test_unstage_that_leaves_a_connection_is_no_success(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calls.stage()

    async def pretend(_nqn: str, *, volume: str = "") -> None:
        del volume

    monkeypatch.setattr(host, "disconnect", pretend)
    with pytest.raises(Internal, match="still connected"):
        await calls.unstage()
    assert record(host)["staging_path"]


async def test_a_record_of_another_nqn_is_not_disconnected(calls: Calls, host: FakeHost) -> None:
    """A damaged record must not make us take down somebody else's connection."""
    other = calls.but(volume=OTHER, stage_name="stage-other")
    other.create()
    await other.stage()
    await calls.stage()
    path = host.state / f"{VOLUME}.json"
    path.write_text(path.read_text().replace(nqn(VOLUME), nqn(OTHER)))
    await calls.unstage()
    assert list(host.connections) == [nqn(OTHER)]
