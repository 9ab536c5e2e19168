"""NodeStageVolume: what it does, refuses, and leaves alone."""

import pytest

from rds_csi.errors import Code, FailedPrecondition, NotBlank, VolumeInUse, VolumeMismatch
from rds_csi.model.access import AccessMode
from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import OTHER, SIZE, VOLUME, Calls, mutations, nqn, record


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


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
@pytest.mark.parametrize("found", [False, True], ids=["made", "found"])
async def test_the_file_system_is_on_record_by_its_uuid(
    host: FakeHost, fs_type: str, found: bool
) -> None:
    calls = Calls(host=host).but(fs_type=fs_type)
    calls.create(fs_type if found else "blank")
    await calls.stage()
    assert record(host)["uuid"] == calls.disk.uuid != ""
    assert ["ctrlLossTmo", "-1"] in record(host)["connection"]  # type: ignore[operator]
    assert record(host)["pinned"] is False
    # A repeated call looks at no file system, and forgets none.
    await calls.stage()
    assert record(host)["uuid"] == calls.disk.uuid
    await calls.unstage()
    assert host.leaks() == []


@pytest.mark.parametrize("block", [True, False])
async def test_a_repeated_stage_asks_for_the_missing_paths(host: FakeHost, block: bool) -> None:
    calls = Calls(host=host, block=block)
    calls.create()
    both = {**calls.publish_context, "nvmeAddress": "10.0.0.1,10.0.0.2"}
    await calls.but(published=both).stage()
    assert host.asked_for_paths == []
    await calls.but(published=both).stage()
    assert [target.addresses for target in host.asked_for_paths] == [("10.0.0.1", "10.0.0.2")]
    await calls.stage()
    assert len(host.asked_for_paths) == 1, "with one address there is nothing to ask for"
    await calls.unstage()
    assert host.leaks() == []
