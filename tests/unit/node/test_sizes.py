"""A volume in use: NodeGetVolumeStats and NodeExpandVolume."""

import asyncio
from pathlib import Path

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.errors import (
    OPEN,
    Code,
    CommandFailed,
    CommandStuck,
    CommandTimeout,
    DriverError,
    Internal,
    InvalidRequest,
    NotGrown,
    PathNotFound,
    SizeOutOfRange,
    Unavailable,
)
from rds_csi.model.access import AccessMode
from rds_csi.nvme.sysfs import Namespace
from rds_csi.runtime.causes import collect
from rds_csi.runtime.process import Result
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import Disk
from tests.unit.node.calls import OTHER, SIZE, VOLUME, Calls, nqn, published

# Stats


async def test_a_file_system_tells_bytes_and_inodes(host: FakeHost) -> None:
    calls = await published(host)
    for path in (calls.target_path, calls.stage_path):
        size, inodes = await calls.stats(path)
        assert size.unit is csi.VolumeUsageUnit.BYTES
        assert (size.total, size.used, size.available) == (4096000, 400 * 4096, 500 * 4096)
        assert inodes.unit is csi.VolumeUsageUnit.INODES
        assert (inodes.total, inodes.used, inodes.available) == (100, 10, 90)


async def test_a_raw_device_tells_its_size(host: FakeHost) -> None:
    calls = await published(host, block=True)
    (size,) = await calls.stats()
    assert (size.unit, size.total, size.used) == (csi.VolumeUsageUnit.BYTES, SIZE, 0)


@pytest.mark.parametrize(
    "path", ["some/path", "/etc", "{kubelet}/none", "{kubelet}", "{kubelet}/other"]
)
async def test_another_path_is_not_found(host: FakeHost, path: str) -> None:
    calls = await published(host)
    await published(host, volume=OTHER, stage_name="stage-2", target_name="other")
    with pytest.raises(PathNotFound) as caught:
        await calls.stats(path.format(kubelet=host.kubelet))
    assert caught.value.code is Code.NOT_FOUND


async def test_an_unknown_volume_is_not_found(host: FakeHost) -> None:
    calls = await published(host)
    with pytest.raises(PathNotFound):
        await calls.but(volume=OTHER).stats()
    await calls.unpublish()
    with pytest.raises(PathNotFound):
        await calls.stats()


async def test_a_missing_path_is_a_bad_request(host: FakeHost) -> None:
    request = csi.NodeGetVolumeStatsRequest(volume_id=VOLUME)
    with pytest.raises(InvalidRequest, match="volume_path"):
        await host.node().node_get_volume_stats(request)


async def test_a_device_that_is_gone_is_said(host: FakeHost) -> None:
    calls = await published(host)
    host.unplug(nqn(VOLUME))
    assert await calls.stats() == []
    health = await calls.health()
    assert {"NotConnected", "StaleMount"} == {each.reason for each in health}


async def test_a_file_system_that_does_not_answer_costs_the_deadline_only(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = await published(host)
    asked: list[object] = []

    async def run(*_args: object, **how: object) -> Result:
        asked.append(how["timeout"])
        raise CommandTimeout("stat took too long")

    monkeypatch.setattr(host, "run", run)
    with pytest.raises(CommandTimeout):
        await calls.stats()
    assert asked == [5.0]


async def test_an_answer_that_makes_no_sense_is_not_believed(host: FakeHost) -> None:
    calls = await published(host)
    host.statfs = Result(0, "4096 1000\n", "")
    with pytest.raises(Internal, match="stat says"):
        await calls.stats()


# Growth


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
async def test_a_file_system_grows_with_its_device(host: FakeHost, fs_type: str) -> None:
    calls = await published(host, fs_type=fs_type)
    calls.disk.size = 2 * SIZE
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    assert calls.disk.fs_size == 2 * SIZE
    host.calls.clear()
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    assert not [call for call in host.calls if call[0] == "resize2fs" or call[1:2] == ("-d",)]


async def test_growth_by_the_staging_path(host: FakeHost) -> None:
    calls = await published(host)
    calls.disk.size = 2 * SIZE
    await calls.expand(2 * SIZE, path=calls.stage_path)
    assert calls.disk.fs_size == 2 * SIZE


async def test_a_raw_device_has_only_to_show_its_size(host: FakeHost) -> None:
    calls = await published(host, block=True)
    calls.disk.size = 2 * SIZE
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    (host.kubelet / "stage-map").mkdir()
    assert await calls.expand(2 * SIZE, path=host.kubelet / "stage-map") == 2 * SIZE


async def test_without_a_wish_the_size_is_told(host: FakeHost) -> None:
    calls = await published(host)
    assert await calls.expand(0) == SIZE


@pytest.mark.looptime
async def test_the_new_size_is_waited_for(host: FakeHost) -> None:
    calls = await published(host)
    calls.disk.size = 2 * SIZE
    host.rescans_until_seen = 5
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    assert calls.disk.fs_size == 2 * SIZE


@pytest.mark.looptime
async def test_a_device_that_does_not_grow_keeps_no_pod_from_starting(host: FakeHost) -> None:
    """After any other code the kubelet mounts it for no pod until it has grown: maybe never."""
    calls = await published(host)
    with pytest.raises(NotGrown, match=f"still has {SIZE} bytes") as caught:
        await calls.expand(2 * SIZE)
    assert caught.value.code is Code.FAILED_PRECONDITION
    calls.disk.size = 2 * SIZE
    await calls.expand(2 * SIZE)
    assert calls.disk.fs_size == 2 * SIZE


async def test_a_device_above_the_limit_is_out_of_range(host: FakeHost) -> None:
    calls = await published(host)
    with pytest.raises(SizeOutOfRange, match="limit_bytes"):
        await calls.expand(SIZE // 4, limit=SIZE // 2)


async def test_a_read_only_file_system_is_not_grown(host: FakeHost) -> None:
    calls = await published(host, mode=AccessMode.MULTI_NODE_READER_ONLY)
    calls.disk.size = 2 * SIZE
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    assert calls.disk.fs_size == SIZE


@pytest.mark.parametrize("program", ["resize2fs", "dumpe2fs"])
async def test_a_failing_tool_keeps_no_pod_from_starting_and_is_told_by_health(
    host: FakeHost, program: str
) -> None:
    calls = await published(host)
    calls.disk.size = 2 * SIZE
    host.refusals[program] = Result(1, "", "it does not work")
    with pytest.raises(NotGrown, match="it does not work") as caught:
        await calls.expand(2 * SIZE)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert [each.reason for each in await calls.health()] == ["NotGrown"]
    host.refusals.clear()
    assert await calls.expand(2 * SIZE) == calls.disk.fs_size == 2 * SIZE
    assert await calls.health() == []


@pytest.mark.parametrize(
    "failure",
    [
        CommandFailed("rescan_controller could not be written", returncode=1),
        CommandTimeout("sh took longer than 5 s and was killed"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_a_size_that_cannot_be_asked_for_keeps_no_pod_from_starting(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, failure: DriverError
) -> None:
    calls = await published(host)

    async def fail(_nqn: str, *, volume: str = "") -> None:
        del volume
        raise failure

    monkeypatch.setattr(host, "rescan", fail)
    with pytest.raises(NotGrown, match=failure.what):
        await calls.expand(2 * SIZE)
    assert await calls.expand(SIZE) == SIZE, "and where the size is there, nobody minds"


async def test_a_program_that_hangs_is_no_growth_that_failed(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume stays locked: FAILED_PRECONDITION would let the kubelet go on."""
    calls = await published(host)
    calls.disk.size = 2 * SIZE
    original = host._outcome

    async def hang(words: tuple[str, ...]) -> Result:
        if words[0] == "resize2fs":
            raise CommandStuck("resize2fs hangs")
        return await original(words)

    monkeypatch.setattr(host, "_outcome", hang)
    with pytest.raises(CommandStuck) as caught:
        await calls.expand(2 * SIZE)
    assert caught.value.code in OPEN


async def test_growth_that_the_tool_only_claims_is_an_error(host: FakeHost) -> None:
    calls = await published(host)
    calls.disk.size = 2 * SIZE
    host.refusals["resize2fs"] = Result(0, "", "")
    with pytest.raises(NotGrown, match="reported success"):
        await calls.expand(2 * SIZE)


@pytest.mark.parametrize("block", [False, True])
async def test_growth_of_what_is_not_there_is_not_found(host: FakeHost, block: bool) -> None:
    calls = Calls(host=host, block=block)
    with pytest.raises(PathNotFound):
        await calls.expand(SIZE)
    calls = await published(host, block=block)
    for path in (Path("some/path"), host.kubelet / "none", Path("/etc")):
        with pytest.raises(PathNotFound):
            await calls.expand(SIZE, path=path)


async def test_a_device_that_goes_away_meanwhile_is_said(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = await published(host)

    async def vanish(nqn: str, *, volume: str = "") -> None:
        del volume
        host.unplug(nqn)

    monkeypatch.setattr(host, "rescan", vanish)
    with pytest.raises(Unavailable, match="gone"):
        await calls.expand(SIZE)


@pytest.mark.looptime
async def test_a_deadline_while_a_device_does_not_grow_knows_its_size(host: FakeHost) -> None:
    calls = await published(host)
    causes = collect()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await calls.expand(2 * SIZE)
    assert causes.texts == [f"its device still had {SIZE} bytes instead of {2 * SIZE}"]


async def test_a_device_that_came_back_under_another_number_is_not_grown(host: FakeHost) -> None:
    """The mount still is of the former one: resize2fs would be given what it is not of."""
    calls = await published(host)
    calls.disk.size = 2 * SIZE
    host.acts.clear()

    def again() -> None:
        host.unplug(nqn(VOLUME))
        host._plug(nqn(VOLUME))

    host.steps.at, host.steps.then = "before rescan", again
    with pytest.raises(Unavailable, match="under another number"):
        await calls.expand(2 * SIZE)
    assert host.acts == []
    assert calls.disk.fs_size == SIZE


async def test_the_size_of_a_device_that_is_gone_is_not_told(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes just after the look that showed its new size."""
    calls = await published(host, block=True)
    calls.disk.size = 2 * SIZE
    other = nqn("pvc-ffffffffffffffffffffffffffff")
    host.rds[other] = Disk(4 * SIZE)
    original = host.find

    def find(wanted: str) -> Namespace | None:
        found = original(wanted)
        if found is not None and found.size == 2 * SIZE:
            host.swap(nqn(VOLUME), other)
        return found

    monkeypatch.setattr(host, "find", find)
    with pytest.raises(Unavailable, match="not its device any more"):
        await calls.expand(2 * SIZE)
