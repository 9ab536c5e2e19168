"""NodePublishVolume: what it does, refuses, undoes, and leaves alone."""

import json

import pytest

from rds_csi.errors import (
    OPEN,
    CommandFailed,
    CommandStuck,
    FailedPrecondition,
    Internal,
    NotUndone,
    VolumeInUse,
    VolumeMismatch,
)
from rds_csi.model.access import AccessMode
from rds_csi.runtime.process import Result
from tests.unit.fakes.mounts import DEVTMPFS, Entry
from tests.unit.fakes.node_host import FakeBlockDevices, FakeHost
from tests.unit.node.calls import OTHER, SIZE, VOLUME, Calls, nqn


@pytest.fixture(params=["mount", "block"])
async def staged(request: pytest.FixtureRequest, host: FakeHost) -> Calls:
    """A staged volume of either kind."""
    calls = Calls(host=host, block=request.param == "block")
    calls.create("blank" if calls.block else "ext4")
    await calls.stage()
    return calls


@pytest.fixture
async def calls(host: FakeHost) -> Calls:
    calls = Calls(host=host)
    calls.create("ext4")
    await calls.stage()
    return calls


@pytest.fixture
async def block(host: FakeHost) -> Calls:
    calls = Calls(host=host, block=True)
    calls.create()
    await calls.stage()
    return calls


def ro(host: FakeHost) -> str:
    return (host._block / "259:1" / "ro").read_text().strip()


async def test_published_unpublished_and_both_again(staged: Calls, host: FakeHost) -> None:
    await staged.publish()
    (shown,) = host.table.at(str(staged.target_path))
    assert shown.options[0] == "rw"
    assert staged.target_path.is_dir() is not staged.block
    if staged.block:
        assert (shown.devno, shown.root) == (DEVTMPFS, "/nvme1n1")
    before = host.table.path.read_bytes()
    host.steps.passed.clear()
    await staged.publish()
    await staged.publish()
    assert host.steps.passed == []
    assert host.table.path.read_bytes() == before
    await staged.unpublish()
    await staged.unpublish()
    await staged.unstage()
    assert host.leaks() == []


async def test_read_only_is_read_only(staged: Calls, host: FakeHost) -> None:
    await staged.but(readonly=True).publish()
    (shown,) = host.table.at(str(staged.target_path))
    assert "ro" in shown.options
    assert ro(host) == ("1" if staged.block else "0")


async def test_a_read_only_mode_is_enough(host: FakeHost) -> None:
    calls = Calls(host=host, mode=AccessMode.MULTI_NODE_READER_ONLY)
    calls.create("ext4")
    await calls.stage()
    await calls.publish()
    (shown,) = host.table.at(str(calls.target_path))
    assert "ro" in shown.options


@pytest.mark.parametrize("first", [True, False])
async def test_published_in_another_way_already_exists(
    staged: Calls, host: FakeHost, first: bool
) -> None:
    await staged.but(readonly=first).publish()
    before = host.table.path.read_bytes()
    with pytest.raises(VolumeMismatch, match="it is published"):
        await staged.but(readonly=not first).publish()
    assert host.table.path.read_bytes() == before


async def test_a_lost_record_is_written_again(staged: Calls, host: FakeHost) -> None:
    await staged.publish()
    path = host.state / f"{VOLUME}.json"
    path.unlink()
    await staged.publish()
    assert json.loads(path.read_text())["targets"] == [[str(staged.target_path), False]]
    assert [call[0] for call in host.calls].count("mount") == (1 if staged.block else 2)


async def test_publish_without_stage_is_refused(host: FakeHost) -> None:
    for block in (False, True):
        calls = Calls(host=host, block=block)
        calls.create("ext4")
        with pytest.raises(FailedPrecondition, match="not staged"):
            await calls.publish()
    assert host.leaks() == []


async def test_publish_of_a_connected_but_unmounted_file_system_is_refused(calls: Calls) -> None:
    calls.host.table.run(["umount", str(calls.stage_path)])
    with pytest.raises(FailedPrecondition, match="is not a mount"):
        await calls.publish()
    assert not calls.target_path.exists()


async def test_publish_of_a_device_that_was_replaced_is_refused(calls: Calls) -> None:
    calls.host.unplug(nqn(VOLUME))
    calls.host._plug(nqn(VOLUME))
    with pytest.raises(FailedPrecondition, match="another device"):
        await calls.publish()
    await calls.stage()
    await calls.publish()


async def test_publish_as_block_of_what_is_mounted_is_refused(calls: Calls) -> None:
    with pytest.raises(FailedPrecondition, match="staged as a file system"):
        await calls.but(block=True).publish()


@pytest.mark.parametrize(
    ("mode", "block", "second"),
    [
        *((AccessMode.SINGLE_NODE_WRITER, block, False) for block in (False, True)),
        *((AccessMode.SINGLE_NODE_SINGLE_WRITER, block, False) for block in (False, True)),
        *((AccessMode.SINGLE_NODE_READER_ONLY, block, False) for block in (False, True)),
        *((AccessMode.SINGLE_NODE_MULTI_WRITER, block, True) for block in (False, True)),
        *((AccessMode.MULTI_NODE_READER_ONLY, block, True) for block in (False, True)),
        (AccessMode.MULTI_NODE_MULTI_WRITER, True, True),
        (AccessMode.MULTI_NODE_SINGLE_WRITER, True, True),
    ],
)
async def test_a_second_target_by_mode(
    host: FakeHost, mode: AccessMode, second: bool, block: bool
) -> None:
    calls = Calls(host=host, mode=mode, block=block)
    calls.create("ext4")
    await calls.stage()
    await calls.publish()
    again = calls.but(target_name="target-2")
    if second:
        await again.publish()
        assert len(host.table.points()) == (2 if block else 3)
        await again.unpublish()
    else:
        with pytest.raises(FailedPrecondition, match="allows one target"):
            await again.publish()
        assert not again.target_path.exists()
    await calls.publish()
    await calls.unpublish()
    await calls.unstage()
    assert host.leaks() == []


async def test_a_writable_and_a_read_only_target_of_one_file_system(
    calls: Calls, host: FakeHost
) -> None:
    await calls.publish()
    await calls.but(readonly=True, target_name="target-2").publish()
    modes = [
        host.table.at(str(host.kubelet / name))[0].options[0] for name in ("target", "target-2")
    ]
    assert modes == ["rw", "ro"]


async def test_a_raw_device_is_read_only_for_the_whole_node_or_not_at_all(
    block: Calls, host: FakeHost
) -> None:
    await block.publish()
    reader = block.but(readonly=True, target_name="target-2")
    with pytest.raises(VolumeInUse, match="one or the other"):
        await reader.publish()
    assert ro(host) == "0"
    await block.unpublish()
    await reader.publish()
    assert ro(host) == "1"
    with pytest.raises(VolumeInUse, match="published read-only"):
        await block.publish()
    await reader.unpublish()
    await block.publish()
    assert ro(host) == "0"


async def test_a_staged_reader_is_not_published_for_writing(host: FakeHost) -> None:
    calls = Calls(host=host, mode=AccessMode.SINGLE_NODE_READER_ONLY)
    calls.create("ext4")
    await calls.stage()
    with pytest.raises(FailedPrecondition, match="staged read-only"):
        await calls.but(mode=AccessMode.SINGLE_NODE_MULTI_WRITER).publish()


async def test_something_else_at_the_target_is_left_alone(calls: Calls, host: FakeHost) -> None:
    other = Calls(host=host, volume=OTHER, stage_name="stage-2")
    other.create("ext4")
    await other.stage()
    await other.publish()
    before = host.table.path.read_bytes()
    with pytest.raises(FailedPrecondition, match="belongs to"):
        await calls.publish()
    with pytest.raises(FailedPrecondition, match="belongs to"):
        await calls.unpublish()
    calls.target_path.with_name("foreign").mkdir()
    host.table.entries.append(
        Entry((8, 1), "/srv", str(host.kubelet / "foreign"), ("rw",), "ext4", "/dev/sda1")
    )
    (host._block / "8:1").mkdir()
    host.table._write()
    with pytest.raises(VolumeMismatch, match="/dev/sda1 is mounted"):
        await calls.but(target_name="foreign").publish()
    assert host.table.path.read_bytes().startswith(before)


async def test_a_directory_of_the_volume_at_the_target_is_not_the_volume(
    calls: Calls, host: FakeHost
) -> None:
    calls.target_path.mkdir()
    host.table.entries.append(
        Entry((259, 1), "/sub", str(calls.target_path), ("rw",), "ext4", "/dev/nvme1n1")
    )
    host.table._write()
    with pytest.raises(VolumeMismatch):
        await calls.publish()


async def test_a_dead_device_at_the_target_is_replaced(staged: Calls, host: FakeHost) -> None:
    await staged.publish()
    host.unplug(nqn(VOLUME))
    await staged.stage()
    await staged.publish()
    (shown,) = host.table.at(str(staged.target_path))
    assert (shown.devno, shown.root) == (
        (DEVTMPFS, "/nvme2n1") if staged.block else ((259, 2), "/")
    )


async def test_a_device_node_that_is_another_device_is_not_shown(
    block: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's own /dev may hold an old node under the device's name."""
    monkeypatch.setattr(FakeBlockDevices, "number_of", lambda *_: (259, 77))
    with pytest.raises(Internal, match="host's own /dev"):
        await block.publish()
    assert not block.target_path.exists()


# Failures


@pytest.mark.parametrize("made", [True, False])
async def test_a_failed_bind_leaves_what_was_there(
    staged: Calls, host: FakeHost, made: bool
) -> None:
    if not made:
        staged.target_path.touch() if staged.block else staged.target_path.mkdir()
    host.refusals["mount"] = Result(32, "", "it does not work")
    with pytest.raises(CommandFailed, match="it does not work"):
        await staged.publish()
    assert staged.target_path.exists() is not made
    assert json.loads((host.state / f"{VOLUME}.json").read_text())["targets"] == []
    host.refusals.clear()
    await staged.publish()


async def test_a_bind_that_stays_writable_is_undone(
    staged: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.table, "_remount", lambda _options, _point: Result(0, "", ""))
    with pytest.raises(Internal, match="did not become read-only"):
        await staged.but(readonly=True).publish()
    assert host.table.at(str(staged.target_path)) == []
    assert not staged.target_path.exists()


async def test_a_bind_of_something_else_is_undone(
    staged: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = host.table._bind

    def elsewhere(source: str, point: str) -> Result:
        result = original(source, point)
        host.table.entries[-1].devno = (8, 1)
        return result

    monkeypatch.setattr(host.table, "_bind", elsewhere)
    with pytest.raises(Internal, match="shows"):
        await staged.publish()
    assert host.table.at(str(staged.target_path)) == []
    assert not staged.target_path.exists()


async def test_an_undoing_that_fails_makes_the_answer_an_open_one(
    staged: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a final code the kubelet never asks for an unpublish of the mount that is left."""
    original = host.table._bind

    def elsewhere(source: str, point: str) -> Result:
        result = original(source, point)
        host.table.entries[-1].devno = (8, 1)
        return result

    monkeypatch.setattr(host.table, "_bind", elsewhere)
    host.refusals["umount"] = Result(32, "", "target is busy")
    with pytest.raises(NotUndone, match=r"shows.*; .*target is busy") as caught:
        await staged.publish()
    assert caught.value.code in OPEN
    assert host.table.at(str(staged.target_path)) != []


async def test_a_stuck_mount_is_not_undone(
    staged: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(_args: object) -> Result:
        raise CommandStuck("mount hangs")

    monkeypatch.setattr(host.table, "run", hang)
    with pytest.raises(CommandStuck) as caught:
        await staged.publish()
    assert caught.value.code in OPEN
    assert staged.target_path.exists()


async def test_a_target_that_cannot_be_made_is_said(calls: Calls) -> None:
    with pytest.raises(FailedPrecondition, match="no directory can be made"):
        await calls.but(target_name="missing/target").publish()
    calls.target_path.write_text("a file")
    with pytest.raises(FailedPrecondition, match="File exists"):
        await calls.publish()
    assert calls.target_path.read_text() == "a file"


async def test_the_size_of_the_device_does_not_matter_for_publishing(block: Calls) -> None:
    block.disk.size = 2 * SIZE
    await block.publish()
