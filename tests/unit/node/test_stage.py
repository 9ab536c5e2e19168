"""NodeStageVolume and NodeUnstageVolume: what they do, refuse, undo, and leave alone."""

import asyncio
import json
from pathlib import Path

import pytest

from rds_csi.errors import (
    OPEN,
    Code,
    CommandStuck,
    ConnectFailed,
    DriverError,
    FailedPrecondition,
    Internal,
    InvalidRequest,
    NotBlank,
    NotUndone,
    VolumeInUse,
    VolumeMismatch,
)
from rds_csi.model.access import AccessMode
from rds_csi.rpc.operations import Operations
from rds_csi.runtime.process import Result
from tests.unit.fakes.mounts import DEVTMPFS, Entry
from tests.unit.fakes.node_host import FakeHost, SteppedStore
from tests.unit.node.calls import SIZE, VOLUME, Calls, nqn

OTHER = "pvc-ffffffffffffffffffffffffffff"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture
def calls(host: FakeHost) -> Calls:
    calls = Calls(host=host)
    calls.create()
    return calls


def mutations(host: FakeHost) -> list[str]:
    """The programs that were run and change something."""
    return [
        call[0] for call in host.calls if call[0] in ("mount", "umount", "blockdev", "resize2fs")
        or call[:2] == ("probe", "run")
    ]  # fmt: skip


def record(host: FakeHost) -> dict[str, object]:
    found = json.loads((host.state / f"{VOLUME}.json").read_text())
    assert isinstance(found, dict)
    return found


def reboot(host: FakeHost) -> None:
    """Connections and mounts are gone, records are not."""
    for entry in host.table.entries[2:]:
        host.table.entries.remove(entry)
    host.table._write()
    for each in list(host.connections):
        host.unplug(each)


@pytest.mark.parametrize("fs_type", ["", "ext4", "xfs"])
async def test_a_new_volume_is_connected_formatted_and_mounted(
    calls: Calls, host: FakeHost, fs_type: str
) -> None:
    await calls.but(fs_type=fs_type).stage()
    assert calls.disk.content == (fs_type or "ext4")
    (mounted,) = host.table.at(str(calls.stage_path))
    assert mounted.options == ("rw",)
    assert record(host)["formatting"] == ""
    assert record(host)["staging_path"] == str(calls.stage_path)


async def test_a_restage_of_a_live_volume_changes_nothing(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    before = host.table.path.read_bytes(), (host.state / f"{VOLUME}.json").stat().st_mtime_ns
    host.calls.clear()
    host.steps.passed.clear()
    for _ in range(3):
        await calls.stage()
    assert host.steps.passed == []
    assert before == (
        host.table.path.read_bytes(), (host.state / f"{VOLUME}.json").stat().st_mtime_ns,
    )  # fmt: skip


async def test_a_restage_of_a_live_block_volume_changes_nothing(
    calls: Calls, host: FakeHost
) -> None:
    block = calls.but(block=True)
    await block.stage()
    assert host.table.points() == []
    host.steps.passed.clear()
    await block.stage()
    assert host.steps.passed == []


async def test_a_lost_record_is_written_again(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    (host.state / f"{VOLUME}.json").unlink()
    await calls.stage()
    assert record(host)["staging_path"] == str(calls.stage_path)
    assert mutations(host).count("mount") == 1


async def test_a_lost_mount_is_mounted_again(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    host.table.run(["umount", str(calls.stage_path)])
    await calls.stage()
    assert host.table.points() == [str(calls.stage_path)]
    assert host.formats == 1


async def test_a_device_the_kernel_gave_up_is_replaced(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    host.unplug(nqn(VOLUME))
    await calls.stage()
    (mounted,) = host.table.at(str(calls.stage_path))
    assert mounted.devno == (259, 2)
    assert host.formats == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fs_type": "xfs"},
        {"mode": AccessMode.SINGLE_NODE_READER_ONLY},
        {"flags": ("noatime",)},
        {"block": True},
        {"stage_name": "stage-2"},
    ],
)
async def test_staged_in_another_way_already_exists(
    calls: Calls, host: FakeHost, change: dict[str, object]
) -> None:
    await calls.stage()
    (host.kubelet / "stage-2").mkdir()
    before = host.table.path.read_bytes()
    with pytest.raises(VolumeMismatch):
        await calls.but(**change).stage()
    assert host.table.path.read_bytes() == before
    assert list(host.connections) == [nqn(VOLUME)]


async def test_block_then_file_system_already_exists(calls: Calls, host: FakeHost) -> None:
    block = calls.but(block=True)
    await block.stage()
    await block.publish()
    with pytest.raises(VolumeMismatch, match="raw block volume"):
        await calls.stage()
    with pytest.raises(VolumeMismatch, match="published writable"):
        await block.but(mode=AccessMode.MULTI_NODE_READER_ONLY).stage()


async def test_another_device_at_the_staging_path_is_left_alone(
    calls: Calls, host: FakeHost
) -> None:
    other = calls.but(volume=OTHER)
    other.create()
    await other.stage()
    before = host.table.path.read_bytes()
    with pytest.raises(VolumeMismatch, match="another device"):
        await calls.stage()
    with pytest.raises(FailedPrecondition, match="belongs to"):
        await calls.unstage()
    assert host.table.path.read_bytes() == before
    assert nqn(VOLUME) not in host.connections


@pytest.mark.parametrize(
    ("content", "change", "match"),
    [
        ("crypto_LUKS", {}, "crypto_LUKS"),
        ("xfs", {}, "xfs, not ext4"),
        ("half", {}, "no signature"),
        ("blank", {"readable": False}, "cannot be read"),
    ],
)
async def test_what_is_not_proven_blank_is_not_formatted(
    calls: Calls, host: FakeHost, content: str, change: dict[str, object], match: str
) -> None:
    disk = calls.create(content)
    for name, value in change.items():
        setattr(disk, name, value)
    with pytest.raises(NotBlank, match=match) as caught:
        await calls.stage()
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert disk.content == content
    assert host.leaks() == []


async def test_without_its_size_it_is_not_formatted_but_used(calls: Calls, host: FakeHost) -> None:
    context = {key: value for key, value in calls.publish_context.items() if key != "size"}
    with pytest.raises(NotBlank, match="not known"):
        await calls.but(published=context).stage()
    calls.create("ext4")
    await calls.but(published=context).stage()


@pytest.mark.parametrize("content", ["blank", "ext4"])
@pytest.mark.parametrize("block", [True, False])
async def test_a_device_smaller_than_the_volume_is_not_used(
    calls: Calls, host: FakeHost, content: str, block: bool
) -> None:
    calls.create(content).size = SIZE - 512
    with pytest.raises(FailedPrecondition, match="the volume should have") as caught:
        await calls.but(block=block).stage()
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert calls.disk.content == content
    assert host.leaks() == []


async def test_a_connection_of_before_is_asked_for_its_size_again(
    calls: Calls, host: FakeHost
) -> None:
    """Attached again after it has grown, and the target did not tell who was connected."""
    calls.create("ext4").size = SIZE // 2
    host._plug(nqn(VOLUME))
    calls.disk.size = SIZE
    await calls.stage()
    assert host.connections[nqn(VOLUME)].name == "nvme1n1"
    assert host.connections[nqn(VOLUME)].size == SIZE


@pytest.mark.parametrize("content", ["blank", "ext4"])
async def test_a_volume_that_grew_since_it_was_attached_starts(calls: Calls, content: str) -> None:
    """The PublishContext has the size of the attach; there may have been an expansion since."""
    disk = calls.create(content)
    disk.size = 2 * SIZE
    await calls.stage()
    assert (disk.content, disk.fs_size) == ("ext4", 2 * SIZE)


@pytest.mark.parametrize(
    ("mode", "fs_type", "options"),
    [
        (AccessMode.SINGLE_NODE_READER_ONLY, "ext4", "ro"),
        (AccessMode.MULTI_NODE_READER_ONLY, "ext4", "ro,noload"),
        (AccessMode.MULTI_NODE_READER_ONLY, "xfs", "ro,nouuid,norecovery"),
        (AccessMode.SINGLE_NODE_WRITER, "xfs", "rw,nouuid"),
    ],
)
async def test_mount_options_by_mode(
    calls: Calls, host: FakeHost, mode: AccessMode, fs_type: str, options: str
) -> None:
    calls.create(fs_type)
    await calls.but(mode=mode, fs_type=fs_type).stage()
    (mount,) = [call for call in host.calls if call[0] == "mount"]
    assert mount[4] == options


@pytest.mark.parametrize("how", ["mode", "flag", "published"])
async def test_a_blank_volume_is_not_formatted_for_reading(
    calls: Calls, host: FakeHost, how: str
) -> None:
    changes: dict[str, dict[str, object]] = {
        "mode": {"mode": AccessMode.MULTI_NODE_READER_ONLY},
        "flag": {"flags": ("ro",)},
        "published": {"published": {**calls.publish_context, "readonly": "true"}},
    }
    with pytest.raises(FailedPrecondition, match="asked for read-only"):
        await calls.but(**changes[how]).stage()
    assert calls.disk.content == "blank"
    assert host.leaks() == []


async def test_a_write_protected_device_is_not_staged_for_writing(
    calls: Calls, host: FakeHost
) -> None:
    calls.create("ext4", write_protected=True)
    with pytest.raises(FailedPrecondition, match="cannot be made writable"):
        await calls.stage()
    assert host.leaks() == []
    await calls.but(mode=AccessMode.SINGLE_NODE_READER_ONLY).stage()


async def test_a_file_system_the_kernel_stopped_is_said(calls: Calls, host: FakeHost) -> None:
    await calls.stage()
    host.table.at(str(calls.stage_path))[0].super["mode"] = "ro"
    host.table._write()
    with pytest.raises(FailedPrecondition, match="after an error"):
        await calls.stage()
    with pytest.raises(FailedPrecondition, match="after an error"):
        await calls.publish()
    await calls.but(readonly=True).publish()


# Failures undo what the call did, and only that.


async def test_a_failed_connect_leaves_nothing(calls: Calls, host: FakeHost) -> None:
    del host.rds[nqn(VOLUME)]
    with pytest.raises(ConnectFailed):
        await calls.stage()
    assert host.leaks() == []


@pytest.mark.parametrize("program", ["blkid", "mount"])
async def test_a_failure_at_any_program_leaves_nothing(
    calls: Calls, host: FakeHost, program: str
) -> None:
    host.refusals[program] = Result(1, "", "it does not work")
    with pytest.raises(DriverError, match="it does not work"):
        await calls.stage()
    assert host.leaks() == []
    host.refusals.clear()
    await calls.stage()


async def test_what_was_on_record_before_a_failed_stage_stays(calls: Calls, host: FakeHost) -> None:
    """After a reboot: the record alone knows that the volume was formatted, and its targets."""
    await calls.stage()
    await calls.publish()
    reboot(host)
    before = record(host)
    host.refusals["mount"] = Result(32, "", "it does not work")
    with pytest.raises(FailedPrecondition, match="it does not work"):
        await calls.stage()
    assert host.connections == {}
    assert record(host) == before


@pytest.mark.parametrize("where", ["mounted", "published", "out of sight"])
@pytest.mark.parametrize("block", [False, True])
async def test_a_failure_does_not_disconnect_what_is_used_elsewhere_by_then(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch, block: bool, where: str
) -> None:
    """An administrator was faster between our connect and what failed then."""

    async def fail(_store: object, _staged: object) -> None:
        if where == "out of sight":
            host.claimed.add("nvme1n1")
        else:
            device, node = ((259, 1), "/") if where == "mounted" else (DEVTMPFS, "/nvme1n1")
            host.table.entries.append(
                Entry(device, node, "/mnt/rescue", ("rw",), "ext4", "/dev/nvme1n1", {"mode": "rw"})
            )
            host.table._write()
        raise OSError("no space left on device")

    calls.create("ext4")
    monkeypatch.setattr(SteppedStore, "write", fail)
    said = "mounted in another" if where == "out of sight" else "/mnt/rescue"
    with pytest.raises(NotUndone, match=f"no space left.*{said}"):
        await calls.but(block=block).stage()
    assert list(host.connections) == [nqn(VOLUME)]


async def test_what_cannot_be_asked_whether_it_is_held_stays_connected(
    calls: Calls, host: FakeHost
) -> None:
    host.refusals["probe"] = Result(1, "", "it does not work")
    with pytest.raises(NotUndone, match=r"cannot be read.*could not be undone"):
        await calls.stage()
    assert list(host.connections) == [nqn(VOLUME)]
    host.refusals.clear()
    await calls.stage()


async def test_a_failure_does_not_undo_what_was_there(calls: Calls, host: FakeHost) -> None:
    block = calls.but(block=True)
    await block.stage()
    assert list(host.connections) == [nqn(VOLUME)]
    host.refusals["blkid"] = Result(1, "", "it does not work")
    with pytest.raises(NotBlank):
        await calls.stage()
    assert list(host.connections) == [nqn(VOLUME)]


@pytest.mark.requirement("PIT-01")
async def test_a_stuck_program_keeps_what_it_works_on(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_device: str, _command: object) -> Result:
        raise CommandStuck("mkfs hangs")

    monkeypatch.setattr(host, "_mkfs", hang)
    with pytest.raises(CommandStuck) as caught:
        await calls.stage()
    assert caught.value.code in OPEN
    assert list(host.connections) == [nqn(VOLUME)]
    assert record(host)["formatting"]


async def test_an_undoing_that_fails_makes_the_answer_an_open_one(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a final code the kubelet never asks for an unstage of the connection that is left."""

    async def fail(_nqn: str, *, volume: str = "") -> None:
        raise Internal(f"cannot disconnect {volume}")

    monkeypatch.setattr(host, "disconnect", fail)
    host.refusals["mount"] = Result(32, "", "the mount failed")
    with pytest.raises(NotUndone, match=r"the mount failed; .*cannot disconnect") as caught:
        await calls.stage()
    assert caught.value.code in OPEN
    assert list(host.connections) == [nqn(VOLUME)]


async def test_a_failure_that_is_undone_in_full_keeps_its_own_code(
    calls: Calls, host: FakeHost
) -> None:
    host.refusals["mount"] = Result(32, "", "the mount failed")
    with pytest.raises(FailedPrecondition, match="the mount failed"):
        await calls.stage()
    assert host.leaks() == []


async def test_a_program_that_hangs_while_undoing_keeps_the_volume_locked(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = asyncio.Event()

    async def hang(_nqn: str, *, volume: str = "") -> None:
        raise CommandStuck("the disconnect hangs", gone=gone, volume=volume)

    monkeypatch.setattr(host, "disconnect", hang)
    host.refusals["mount"] = Result(32, "", "the mount failed")
    operations = Operations()
    with pytest.raises(NotUndone):
        await operations.run("NodeStageVolume", calls.stage, timeout=10, volume=VOLUME)
    assert operations.locked(VOLUME)
    gone.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not operations.locked(VOLUME)


async def test_a_mount_of_something_else_is_undone(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.create("ext4")
    original = host.table._mount_device

    def elsewhere(fs_type: str, options: list[str], device: str, point: str) -> Result:
        result = original(fs_type, options, device, point)
        host.table.entries[-1].options = ("ro",)
        return result

    monkeypatch.setattr(host.table, "_mount_device", elsewhere)
    with pytest.raises(Internal, match="mounted was"):
        await calls.stage()
    assert host.leaks() == []


# Unstage


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


# Requests


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"volume": ""}, "volume_id"),
        ({"volume": "../etc"}, "volume_id"),
        ({"fs_type": "btrfs"}, "none of ext4, xfs"),
        ({"mode": AccessMode.MULTI_NODE_MULTI_WRITER}, "corrupt"),
        ({"flags": ("noatime,exec",)}, "not allowed"),
        ({"flags": ("context=x",)}, "not allowed"),
        ({"published": {}}, "nvmeAddress"),
        ({"published": {"nvmeAddress": "10.0.0.1", "nvmePort": "4420", "nqn": nqn(OTHER)}}, "NQN"),
        ({"published": {"nvmeAddress": "10.0.0.1", "nvmePort": "4420", "nqn": "x"}}, "NQN"),
        ({"published": {"nvmeAddress": "rds", "nvmePort": "4420", "nqn": nqn(VOLUME)}}, "IP"),
    ],
)
async def test_a_bad_request_is_refused_before_anything(
    calls: Calls, host: FakeHost, change: dict[str, object], match: str
) -> None:
    with pytest.raises(InvalidRequest, match=match):
        await calls.but(**change).stage()
    assert host.steps.passed == []


@pytest.mark.requirement("NODE-01")
@pytest.mark.requirement("PIT-04")
async def test_a_bad_size_or_timer_is_refused(calls: Calls, host: FakeHost) -> None:
    for size in ("", "-1", "1.5", "1e9", "9" * 30, "½"):
        with pytest.raises(InvalidRequest, match="size"):
            await calls.but(published={**calls.publish_context, "size": size}).stage()
    request = calls.stage_request()
    for key, value in (("ctrlLossTmo", "-2"), ("reconnectDelay", "0"), ("keepAliveTmo", "x")):
        request.volume_context = {key: value}
        with pytest.raises(InvalidRequest, match=key):
            await host.node().node_stage_volume(request)
    assert host.steps.passed == []


@pytest.mark.parametrize(
    "path",
    ["", "relative", "/etc", "{kubelet}", "{kubelet}-evil/x", "{kubelet}/../x", "{kubelet}/a//b",
     "{kubelet}/./x", "{kubelet}/link/x"],
)  # fmt: skip
async def test_a_path_that_is_not_the_kubelets_is_refused(
    calls: Calls, host: FakeHost, tmp_path: Path, path: str
) -> None:
    (host.kubelet / "link").symlink_to(tmp_path)
    request = calls.stage_request()
    request.staging_target_path = path.format(kubelet=host.kubelet)
    with pytest.raises(InvalidRequest, match="staging_target_path"):
        await host.node().node_stage_volume(request)
    assert host.steps.passed == []


async def test_a_staging_path_that_is_no_directory_is_refused(calls: Calls, host: FakeHost) -> None:
    calls.stage_path.rmdir()
    with pytest.raises(FailedPrecondition, match="no directory"):
        await calls.stage()
    assert host.leaks() == []


async def test_a_volume_made_from_a_source_is_never_formatted(calls: Calls, host: FakeHost) -> None:
    request = calls.stage_request()
    request.volume_context = {"contentSource": "snap-1"}
    with pytest.raises(NotBlank, match="made from a source"):
        await host.node().node_stage_volume(request)
    assert host.leaks() == []


async def test_an_xfs_still_published_from_a_dead_device_says_who_has_to_go(
    host: FakeHost,
) -> None:
    calls = Calls(host=host, fs_type="xfs")
    calls.create("xfs")
    await calls.stage()
    await calls.publish()
    host.unplug(nqn(VOLUME))

    for _ in range(2):
        with pytest.raises(VolumeInUse, match=r"still mounted at .*target.*stop the pods"):
            await calls.stage()
    assert host.table.at(str(calls.target_path)), "it was taken from under the pod"

    await calls.unpublish()
    await calls.stage()
    await calls.publish()
