"""One volume brought back: what is proven first, and an end at any step of it."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.errors import ConnectFailed, DriverError, FailedPrecondition, Unavailable
from rds_csi.node.ways import Way
from tests.unit.fakes.node_kernel import Connection, Disk, Killed, Steps
from tests.unit.node.mapped_host import ADDRESS, OTHER, SIZE, UUID, VOLUME, MappedHost, nqn

OTHER_UUID = "88888888-2222-4333-8444-555555555555"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """That records are durable is tested with the store."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def host(tmp_path: Path) -> MappedHost:
    return MappedHost(tmp_path)


async def lost(host: MappedHost) -> None:
    await host.staged()
    host.lose()


async def failed(host: MappedHost) -> None:
    """A path that failed over a device that is there."""
    await host.staged()
    active = host.map().active
    assert active is not None
    active.lost.update(active.paths)


async def empty(host: MappedHost) -> None:
    await host.staged()
    host.hide(nqn())


async def moved(host: MappedHost) -> None:
    await host.staged()
    host.states[nqn()] = "connecting"
    host.at[nqn()] = "10.9.9.9"


async def grown(host: MappedHost) -> None:
    await lost(host)
    host.rds[nqn()].size = 2 * SIZE


async def renumbered(host: MappedHost) -> None:
    """Another volume has the name and the number that were the volume's."""
    await lost(host)
    host._numbers = 0
    host.rds[nqn(OTHER)] = Disk(SIZE, "ext4", UUID)
    host.connections.pop(nqn(OTHER), None)
    host._plug(nqn(OTHER), 7)
    host._numbers = 7


ILLS: list[Callable[[MappedHost], object]] = [lost, failed, empty, moved, grown, renumbered]


@pytest.mark.parametrize("ill", ILLS, ids=lambda ill: ill.__name__)
async def test_a_volume_is_brought_back(host: MappedHost, ill: Callable[..., object]) -> None:
    await ill(host)  # type: ignore[misc]
    assert await host.mender.mend(VOLUME)
    assert host.leads_home()
    assert await host.way() is Way.WELL
    assert host.maps.find(VOLUME).size == host.rds[nqn()].size  # type: ignore[union-attr]
    host.check()
    assert not await host.mender.mend(VOLUME)


@pytest.mark.parametrize("how", ["kill", "cancel"])
@pytest.mark.parametrize("ill", ILLS, ids=lambda ill: ill.__name__)
async def test_ended_at_any_step_the_next_one_brings_it_back(
    tmp_path: Path, ill: Callable[..., object], how: str
) -> None:
    stop = 0
    while True:
        stop += 1
        host = MappedHost(tmp_path / str(stop))
        await ill(host)  # type: ignore[misc]
        host.steps.passed.clear()
        host.steps.stop, host.steps.how = stop, how
        with suppress(Killed, asyncio.CancelledError):
            await host.mender.mend(VOLUME)
        uncancel()
        if stop > len(host.steps.passed):
            assert stop > 6
            return
        host.check()
        host.steps = _without_stop(host)
        await host.mender.mend(VOLUME)
        assert host.leads_home(), host.steps.passed
        assert host.map().loaded is None
        host.check()


def _without_stop(host: MappedHost) -> Steps:
    host.steps.stop, host.steps.at = 0, ""
    return host.steps


def uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    while task.uncancel():
        pass


async def test_a_kernel_that_is_at_it_is_left_alone(host: MappedHost) -> None:
    await host.staged()
    host.states[nqn()] = "connecting"
    calls = len(host.calls)
    assert not await host.mender.mend(VOLUME)
    assert not host.attempts
    assert [call[:2] for call in host.calls[calls:]] == [("dmsetup", "status")]


async def test_a_volume_without_a_map_is_not_touched(host: MappedHost) -> None:
    await host.record()
    assert not await host.mender.mend(VOLUME)
    assert not host.attempts


async def refused(host: MappedHost, why: str, kind: type[DriverError] = FailedPrecondition) -> None:
    """Nothing is brought back, and the map goes on as it was."""
    before = replace(host.map())
    with pytest.raises(kind, match=why):
        await host.mender.mend(VOLUME)
    assert host.map() == before
    assert not host.leads_home()
    host.check()


async def test_what_is_barred_is_not_even_connected(host: MappedHost) -> None:
    await host.staged(superseded=2)
    host.lose()
    await refused(host, "not brought back: it was handed over since")
    assert not host.attempts


async def test_a_smaller_device_is_another_one(host: MappedHost) -> None:
    await lost(host)
    host.rds[nqn()].size = SIZE // 2
    await refused(host, "not brought back: .* fewer than the")


@pytest.mark.parametrize(
    ("content", "uuid", "shown"),
    [
        ("ext4", OTHER_UUID, f"ext with the UUID {OTHER_UUID}"),
        ("xfs", UUID, "xfs with"),
        ("blank", "", "neither"),
        ("half", "", "neither"),
    ],
)
async def test_another_file_system_is_another_content(
    host: MappedHost, content: str, uuid: str, shown: str
) -> None:
    await lost(host)
    host.rds[nqn()].content, host.rds[nqn()].uuid = content, uuid
    await refused(host, shown)


async def test_an_unfinished_file_system_is_another_content(host: MappedHost) -> None:
    await host.staged(fs_type="xfs")
    host.lose()
    host.rds[nqn()].content = "half xfs"
    await refused(host, "xfs with")


async def test_what_cannot_be_read_is_not_brought_back(host: MappedHost) -> None:
    await lost(host)
    unreadable = Connection(99, Disk(SIZE, readable=False), SIZE)
    host.refusals["probe"] = host._inspect(unreadable)
    await refused(host, "probe", DriverError)


async def test_raw_block_needs_no_file_system(host: MappedHost) -> None:
    await host.staged(fs_type="", uuid="")
    host.lose()
    host.rds[nqn()].content = "whatever a guest wrote"
    assert await host.mender.mend(VOLUME)
    assert host.leads_home()
    assert not [call for call in host.calls if call[0] == "probe"]


@pytest.mark.parametrize("read_only", ["0", "1"])
async def test_a_map_that_refuses_writes_goes_on_refusing_them(
    host: MappedHost, read_only: str
) -> None:
    """The kernel takes them again with every table that is not said to be read-only."""
    await host.staged(fs_type="", uuid="", read_only=read_only == "1")
    shown = host.sys / "block" / host.map().node / "ro"
    shown.write_text(f"{read_only}\n")
    host.lose()
    assert await host.mender.mend(VOLUME)
    assert host.leads_home()
    assert shown.read_text() == f"{read_only}\n"


async def test_a_released_map_stays_released(host: MappedHost) -> None:
    await lost(host)
    await host.maps.fail(await host.found())
    await refused(host, "it was released")
    assert not host.attempts


async def test_a_device_swapped_after_it_was_proven_gets_into_no_map(host: MappedHost) -> None:
    host.rds[nqn(OTHER)] = Disk(SIZE, "ext4", UUID)
    await lost(host)
    host.steps.passed.clear()
    host.steps.at, host.steps.then = "after probe", lambda: host.swap(nqn(), nqn(OTHER))
    await refused(host, "not its device any more", Unavailable)
    host.steps.then = None
    assert await host.mender.mend(VOLUME)
    assert host.leads_home()


@pytest.mark.parametrize("step", ["before connect", "after connect", "after probe"])
async def test_a_device_lost_again_leaves_the_map_waiting(host: MappedHost, step: str) -> None:
    await lost(host)

    def away() -> None:
        host.rds.pop(nqn(), None)
        if nqn() in host.connections:
            host.unplug(nqn())

    disk = host.rds[nqn()]
    host.steps.passed.clear()
    host.steps.at, host.steps.then = step, away
    with pytest.raises(DriverError):
        await host.mender.mend(VOLUME)
    active = host.map().active
    assert active is not None
    assert active.queues
    host.steps.then = None
    host.rds[nqn()] = disk
    assert await host.mender.mend(VOLUME)


async def test_a_refused_connect_is_told_as_it_is(host: MappedHost) -> None:
    await lost(host)
    del host.rds[nqn()]
    await refused(host, "connection refused", ConnectFailed)


# Where the volume is


async def test_the_nodes_setting_replaces_an_address_that_no_class_names(tmp_path: Path) -> None:
    host = MappedHost(tmp_path, address="10.0.0.2")
    await lost(host)
    host.address = "10.0.0.2"
    assert await host.mender.mend(VOLUME)


async def test_an_address_that_the_class_names_is_believed(tmp_path: Path) -> None:
    host = MappedHost(tmp_path, address="10.0.0.2")
    await host.staged(pinned=True)
    host.lose()
    assert await host.mender.mend(VOLUME)


async def test_a_moved_address_is_followed_under_the_map(tmp_path: Path) -> None:
    host = MappedHost(tmp_path, address="10.0.0.2")
    await host.staged()
    host.at[nqn()] = ADDRESS
    host.address = "10.0.0.2"
    host.states[nqn()] = "connecting"
    assert await host.way() is Way.MOVED
    assert await host.mender.mend(VOLUME)
    assert host.leads_home()


async def test_a_pinned_volumes_connection_is_left_to_the_kernel(tmp_path: Path) -> None:
    host = MappedHost(tmp_path, address="10.0.0.2")
    await host.staged(pinned=True)
    host.at[nqn()] = ADDRESS
    host.states[nqn()] = "connecting"
    assert await host.way() is Way.KERNEL


async def test_a_released_maps_connection_is_not_given_up(tmp_path: Path) -> None:
    """Without a map that holds it, its I/O would fail."""
    host = MappedHost(tmp_path, address="10.0.0.2")
    await host.staged()
    host.at[nqn()] = ADDRESS
    host.states[nqn()] = "connecting"
    await host.maps.fail(await host.found())
    await refused_released(host)
    assert nqn() in host.connections


async def refused_released(host: MappedHost) -> None:
    with pytest.raises(FailedPrecondition, match="it was released"):
        await host.mender.mend(VOLUME)
