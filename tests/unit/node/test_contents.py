"""What was formatted is not formatted again when it reads as blank; growth that fails is no end."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rds_csi.errors import Code, CommandTimeout, FailedPrecondition, NotBlank, Unavailable
from rds_csi.filesystem.grow import Grower
from rds_csi.model.access import AccessMode
from rds_csi.runtime.process import Result
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import FINISHED, Killed
from tests.unit.node.calls import SIZE, VOLUME, Calls, nqn, reboot, record

KINDS = pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
LOST = "it had a file system .* lost or remade its file"


@pytest.fixture(params=["ext4", "xfs"])
def calls(request: pytest.FixtureRequest, host: FakeHost) -> Calls:
    calls = Calls(host=host, fs_type=request.param)
    calls.create()
    return calls


async def refused(calls: Calls) -> None:
    """Not formatted, in words that say what to do; what was formatted before was once."""
    formats, content = calls.host.formats, calls.disk.content
    with pytest.raises(
        FailedPrecondition, match=f"{LOST}.*restore it.*delete the volume"
    ) as caught:
        await calls.stage()
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert (calls.host.formats, calls.disk.content) == (formats, content)
    assert calls.host.connections == {}


# The RDS lost the file, or made it anew


@pytest.mark.parametrize("how", ["a reboot", "a lost device"])
@pytest.mark.parametrize("published", [True, False])
async def test_what_is_on_record_as_staged_is_not_formatted(
    calls: Calls, host: FakeHost, how: str, published: bool
) -> None:
    await calls.stage()
    if published and how == "a reboot":
        await calls.publish()
    if how == "a reboot":
        reboot(host)
    else:
        host.table.run(["umount", str(calls.stage_path)])
        host.unplug(next(iter(host.connections)))
    calls.create()
    for _ in range(2):
        await refused(calls)
    await refused(calls.but(mode=AccessMode.SINGLE_NODE_READER_ONLY))
    await refused(calls.but(fs_type="xfs" if calls.fs_type == "ext4" else "ext4"))


async def test_stopping_the_pod_does_not_format_what_was_refused(
    calls: Calls, host: FakeHost
) -> None:
    await calls.stage()
    reboot(host)
    calls.create()
    await refused(calls)
    await calls.unstage()
    await refused(calls)
    await calls.unstage()
    calls.create(calls.fs_type)
    await calls.stage()
    assert record(host)["lost"] == ""
    await calls.unstage()
    assert host.leaks() == []


@pytest.mark.parametrize("formatted", ["ext4", "xfs"])
@pytest.mark.parametrize("generation", [None, 1, 2])
async def test_what_the_rds_saw_a_file_system_on_is_not_formatted(
    calls: Calls, host: FakeHost, formatted: str, generation: int | None
) -> None:
    known = calls.but(formatted=formatted, generation=generation)
    await refused(known)
    assert host.leaks() == []
    calls.create(calls.fs_type)
    await known.stage()
    await known.publish()


@pytest.mark.parametrize("again", ["blank", "half"])
async def test_the_mark_of_a_format_does_not_outweigh_what_the_rds_saw(
    calls: Calls, host: FakeHost, again: str
) -> None:
    """Formatting was interrupted here, ended by another node, and what that made is gone."""
    await calls.stage()
    middle = host.steps.passed.index("in the middle of mkfs") + 1
    await calls.unstage()
    calls.create()
    host.steps.passed.clear()
    host.steps.stop = middle
    with pytest.raises(Killed):
        await asyncio.gather(calls.stage())
    host.steps.stop = 0
    reboot(host)
    if again == "blank":
        calls.create()
    await refused(calls.but(formatted="ext4", generation=3))
    assert record(host)["formatting"]


async def half_made(host: FakeHost, fs_type: str, *, marked_for: str) -> Calls:
    """The driver was killed while it formatted, and its mark names the export ``marked_for``."""
    calls = Calls(host=host, fs_type=fs_type)
    calls.create()
    host.steps.at = "in the middle of mkfs"
    with pytest.raises(Killed):
        await asyncio.gather(calls.stage())
    reboot(host)
    path = host.state / f"{VOLUME}.json"
    path.write_text(json.dumps({**record(host), "nqn": marked_for}))
    return calls


@KINDS
async def test_a_mark_outlives_the_name_of_its_generation(host: FakeHost, fs_type: str) -> None:
    """The half made file system goes on being known when the volume comes back to this node."""
    calls = await half_made(host, fs_type, marked_for=f"{nqn(VOLUME)}.7")
    await calls.stage()
    assert host.formats == 1


@KINDS
async def test_a_mark_is_only_of_the_export_it_was_made_for(host: FakeHost, fs_type: str) -> None:
    calls = await half_made(host, fs_type, marked_for=f"nqn.2001-01.org.other:{VOLUME}")
    with pytest.raises(NotBlank):
        await calls.stage()
    assert host.formats == 0


async def test_a_raw_volume_is_no_matter_of_file_systems(host: FakeHost) -> None:
    calls = Calls(host=host, block=True, formatted="ext4")
    calls.create()
    await calls.stage()
    reboot(host)
    await calls.stage()


@KINDS
@pytest.mark.parametrize("generation", [None, 0, 1, 2, 7])
async def test_a_volume_that_was_handed_over_blank_is_formatted_with_a_warning(
    host: FakeHost, fs_type: str, generation: int | None
) -> None:
    """The first holder did not come to it, or the file was lost: it cannot be told apart."""
    calls = Calls(host=host, fs_type=fs_type, generation=generation)
    calls.create()
    with capture_logs() as log:
        await calls.stage()
    assert calls.disk.content == fs_type
    warnings = [entry for entry in log if entry["log_level"] == "warning"]
    if generation is None or generation < 2:
        assert warnings == []
    else:
        (said,) = warnings
        assert (said["volume"], said["generation"]) == (VOLUME, generation)
        assert "lost or remade its file" in said["event"]


async def test_whichever_step_a_crash_comes_after_the_record_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staged without a mark: there is a file system. Mounted: it is staged without a mark."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    seen = set()
    for fs_type in ("ext4", "xfs"):
        whole = Calls(host=FakeHost(tmp_path / fs_type), fs_type=fs_type)
        whole.create()
        await whole.stage()
        for step in range(1, len(whole.host.steps.passed) + 1):
            calls = Calls(host=FakeHost(tmp_path / f"{fs_type}-{step}"), fs_type=fs_type)
            calls.create()
            calls.host.steps.stop = step
            with pytest.raises(Killed):
                await asyncio.gather(calls.stage())
            calls.host.steps.stop = 0
            path = calls.host.state / f"{VOLUME}.json"
            found = json.loads(path.read_text()) if path.exists() else {}
            formatted = bool(found.get("staging_path")) and not found["formatting"]
            assert not formatted or calls.disk.content in FINISHED
            assert formatted or not calls.host.table.points()
            seen.add(formatted)
            reboot(calls.host)
            calls.create()
            if formatted:
                await refused(calls)
            else:
                await calls.stage()
                assert calls.disk.content == fs_type
    assert seen == {True, False}


# Growth at stage


async def grown_meanwhile(calls: Calls) -> None:
    calls.create(calls.fs_type).size = 2 * SIZE


def growth_fails(host: FakeHost, how: str) -> None:
    programs = {"grow": ("resize2fs", "xfs_growfs"), "size": ("dumpe2fs", "xfs_growfs")}
    for program in programs.get(how, ("resize2fs", "xfs_growfs")):
        host.refusals[program] = Result(int(how != "nothing"), "", "it does not work")


@pytest.mark.parametrize("how", ["grow", "size", "nothing"])
async def test_a_failed_growth_does_not_fail_the_stage(
    calls: Calls, host: FakeHost, how: str
) -> None:
    await grown_meanwhile(calls)
    growth_fails(host, how)
    await calls.stage()
    noted = (host.state / f"{VOLUME}.json").stat().st_mtime_ns
    await calls.stage()
    assert (host.state / f"{VOLUME}.json").stat().st_mtime_ns == noted
    await calls.publish()
    assert calls.disk.fs_size == SIZE
    (problem,) = await calls.health()
    assert (problem.status.name, problem.reason) == ("DEGRADED", "NotGrown")
    assert await calls.stats(), "it can be used"
    host.refusals.clear()
    await calls.stage()
    assert calls.disk.fs_size == 2 * SIZE
    assert await calls.health() == []


async def test_a_growth_that_takes_too_long_does_not_fail_the_stage(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(host=host)
    calls.create("ext4").size = 2 * SIZE

    def slow(_found: object) -> Result:
        raise CommandTimeout("dumpe2fs took longer than 30 s and was killed")

    with monkeypatch.context() as patch:
        patch.setattr(host, "_dumpe2fs", slow)
        await calls.stage()
    await calls.publish()
    assert [each.reason for each in await calls.health()] == ["NotGrown"]
    await calls.expand(2 * SIZE)
    assert calls.disk.fs_size == 2 * SIZE


async def test_an_expansion_makes_up_for_a_failed_growth(calls: Calls, host: FakeHost) -> None:
    await grown_meanwhile(calls)
    growth_fails(host, "grow")
    await calls.stage()
    await calls.publish()
    assert record(host)["ungrown"]
    host.refusals.clear()
    await calls.expand(2 * SIZE)
    assert calls.disk.fs_size == 2 * SIZE
    assert await calls.health() == []
    assert record(host)["targets"] == [[str(calls.target_path), False]]


async def test_the_next_stage_makes_up_for_a_failed_growth(calls: Calls, host: FakeHost) -> None:
    await grown_meanwhile(calls)
    growth_fails(host, "grow")
    await calls.stage()
    host.refusals.clear()
    await calls.unstage()
    await calls.stage()
    assert calls.disk.fs_size == 2 * SIZE
    assert record(host)["ungrown"] == ""


@pytest.mark.parametrize("how", ["fails", "takes too long"])
async def test_a_device_that_goes_away_during_growth_fails_the_stage(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    calls = Calls(host=host)
    calls.create("ext4")

    def gone(_found: object) -> Result:
        host.unplug(nqn(VOLUME))
        if how == "takes too long":
            raise CommandTimeout("dumpe2fs took longer than 30 s and was killed")
        return Result(1, "", "no such device")

    monkeypatch.setattr(host, "_dumpe2fs", gone)
    with pytest.raises(Unavailable):
        await calls.stage()
    assert host.connections == {}


async def test_what_is_no_matter_of_growth_fails_the_stage(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def another(*_: object, **__: object) -> bool:
        raise Unavailable("the device is not the volume's any more")

    monkeypatch.setattr(Grower, "grow", another)
    with pytest.raises(Unavailable, match="any more"):
        await calls.stage()
    assert host.leaks() == []


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
async def test_features_are_pinned_unless_the_class_asks_for_the_newest(
    host: FakeHost, fs_type: str, newest: bool
) -> None:
    calls = Calls(host=host, fs_type=fs_type)
    calls.create()
    request = calls.stage_request()
    if newest:
        request.volume_context["mkfsFeatures"] = "newest"
    await host.node().node_stage_volume(request)
    [made] = [words for words in host.calls if words[0] == f"mkfs.{fs_type}" and len(words) > 1]
    pinned = {"ext4": "metadata_csum", "xfs": "nrext64=0"}[fs_type]
    assert any(pinned in word for word in made) != newest
