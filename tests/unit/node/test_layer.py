"""A volume with a map: staged, used, lost, unstaged; and one that was staged without."""

import pytest

from rds_csi.errors import FailedPrecondition, NotGrown, NotReady, Unavailable, VolumeInUse
from rds_csi.runtime.process import Result
from tests.unit.fakes.device_mapper import FakeMap, FakeTable
from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import OTHER, SIZE, VOLUME, Calls, nqn, published, reboot

KINDS = [("ext4", False), ("xfs", False), ("ext4", True)]
kinds = pytest.mark.parametrize(("fs_type", "block"), KINDS)


def the_map(host: FakeHost) -> FakeMap:
    (found,) = host.mapper.maps.values()
    return found


def uses(host: FakeHost) -> set[tuple[tuple[int, int], str]]:
    """What the mounts of the volume show: device numbers, and names of nodes."""
    return {(each.devno, each.root) for each in host.table.entries[2:]}


def dmsetup(host: FakeHost) -> list[str]:
    return [words[1] for words in host.calls if words[0] == "dmsetup"]


def lose(host: FakeHost, volume: str = VOLUME) -> None:
    """The kernel gives the device up."""
    host.unplug(nqn(volume))


def back(host: FakeHost, volume: str = VOLUME) -> None:
    """Somebody connected again, and the device has another number."""
    host._numbers += 10
    host._plug(nqn(volume))


@kinds
async def test_the_map_is_used_and_nothing_is_left(
    host: FakeHost, fs_type: str, block: bool
) -> None:
    calls = await published(host, fs_type=fs_type, block=block, path_layer=True)
    found = the_map(host)
    assert found.uuid.endswith(f"-{VOLUME}.0")
    assert found.active == FakeTable(SIZE // 512, [(259, 1)], queues=True)
    assert uses(host) == ({((0, 6), "/dm-0")} if block else {((253, 0), "/")})
    assert [act for act, _ in host.acts if act in ("mount", "bind")] == [
        "bind" if block else "mount"
    ]
    await calls.unpublish()
    await calls.unstage()
    assert host.leaks() == []
    assert host.mapper.maps == {}


@kinds
async def test_none_is_made_unless_it_is_asked_for(
    host: FakeHost, fs_type: str, block: bool
) -> None:
    await published(host, fs_type=fs_type, block=block)
    assert dmsetup(host) == []
    assert uses(host) == ({((0, 6), "/nvme1n1")} if block else {((259, 1), "/")})


@kinds
async def test_what_was_staged_without_gets_one_at_its_next_stage(
    host: FakeHost, fs_type: str, block: bool
) -> None:
    """The path layer was turned on under a running pod."""
    calls = (await published(host, fs_type=fs_type, block=block)).but(path_layer=True)
    before = uses(host)
    await calls.stage()
    await calls.publish()
    second = calls.but(target_name="second")
    await second.publish()
    assert uses(host) == before
    assert dmsetup(host) == []
    for each in (calls, second):
        await each.unpublish()
    await calls.unstage()
    await calls.stage()
    assert the_map(host).active is not None
    await calls.unstage()
    assert host.leaks() == []


@kinds
async def test_turned_off_a_volume_in_use_keeps_its_map(
    host: FakeHost, fs_type: str, block: bool
) -> None:
    calls = (await published(host, fs_type=fs_type, block=block, path_layer=True)).but(
        path_layer=False
    )
    before = uses(host)
    await calls.stage()
    await calls.publish()
    assert uses(host) == before
    await calls.unpublish()
    await calls.unstage()
    await calls.stage()
    assert host.mapper.maps == {}


async def test_an_idle_block_volume_gets_its_map_when_it_is_staged_again(host: FakeHost) -> None:
    calls = await published(host, block=True)
    await calls.unpublish()
    await calls.but(path_layer=True).stage()
    assert the_map(host).active is not None


@kinds
async def test_repeats_change_nothing(host: FakeHost, fs_type: str, block: bool) -> None:
    calls = await published(host, fs_type=fs_type, block=block, path_layer=True)
    before = uses(host), the_map(host)
    host.calls.clear()
    await calls.stage()
    await calls.publish()
    assert (uses(host), the_map(host)) == before
    assert set(dmsetup(host)) == {"table"}, "more than a look"


@kinds
async def test_after_a_reboot_it_is_made_anew(host: FakeHost, fs_type: str, block: bool) -> None:
    calls = await published(host, fs_type=fs_type, block=block, path_layer=True)
    reboot(host)
    await calls.stage()
    await calls.publish()
    assert the_map(host).active is not None
    await calls.unpublish()
    await calls.unstage()
    assert host.leaks() == []


async def test_a_node_that_cannot_refuses_and_leaves_nothing(calls: Calls, host: FakeHost) -> None:
    host.mapper.targets = "striped v1.6.0\n"
    with pytest.raises(NotReady, match="no dm-multipath") as caught:
        await calls.but(path_layer=True).stage()
    assert "modprobe -a dm-multipath dm-round-robin" in caught.value.advice
    assert host.leaks() == []
    assert host.formats == 0


@pytest.mark.parametrize("fault", ["mount", "blkid"])
async def test_a_failed_stage_takes_its_map_back(calls: Calls, host: FakeHost, fault: str) -> None:
    mapped = calls.but(path_layer=True)
    host.refusals[fault] = Result(1, "", "it does not work")
    with pytest.raises(FailedPrecondition):
        await mapped.stage()
    assert host.leaks() == []
    # Also where the connection was there before.
    host._plug(nqn(VOLUME))
    with pytest.raises(FailedPrecondition):
        await mapped.stage()
    assert host.mapper.maps == {}
    assert list(host.connections) == [nqn(VOLUME)]


@pytest.mark.looptime
@pytest.mark.usefixtures("virtual")
@kinds
async def test_while_the_map_leads_nowhere_nothing_is_begun(
    host: FakeHost, fs_type: str, block: bool
) -> None:
    """Every program that touches the device would wait, and nobody could end it."""
    calls = await published(host, fs_type=fs_type, block=block, path_layer=True)
    for disturb in (lose, back):
        disturb(host)
        before = uses(host)
        host.calls.clear()
        for call in (calls.stage, calls.publish):
            with pytest.raises(Unavailable, match=r"its I/O waits: .* leads to none"):
                await call()
        with pytest.raises(NotGrown, match="its I/O waits"):
            await calls.expand(2 * SIZE)
        assert not {words[0] for words in host.calls} & {"mount", "umount", "blockdev", "probe"}
        assert uses(host) == before
        assert the_map(host).active is not None


async def test_an_unmount_that_would_wait_for_ever_is_not_begun(host: FakeHost) -> None:
    calls = await published(host, path_layer=True)
    await calls.unpublish()
    lose(host)
    with pytest.raises(Unavailable) as caught:
        await calls.unstage()
    uuid = the_map(host).uuid
    assert f"rds-csi release {VOLUME} --yes" in caught.value.advice
    assert len(host.table.points()) == 1
    # Told to fail, it ends: what was not written is lost, and the operator was told.
    host.mapper.run(["dmsetup", "message", "--uuid", uuid, "0", "fail_if_no_path"])
    await calls.unstage()
    assert host.leaks() == []


async def test_nor_where_the_map_has_not_noticed(host: FakeHost) -> None:
    """It calls a path active until I/O has failed on it: that the device is gone, sysfs says."""
    calls = await published(host, path_layer=True)
    await calls.unpublish()
    active = the_map(host).active
    assert active is not None
    active.idle = True
    lose(host)
    with pytest.raises(Unavailable, match="its I/O waits"):
        await calls.unstage()
    assert len(host.table.points()) == 1


async def test_what_is_published_bare_gets_no_map_under_it(host: FakeHost) -> None:
    """Its record was lost: the mount table alone knows that it is used."""
    calls = await published(host, block=True)
    (host.state / f"{VOLUME}.json").unlink()
    before = uses(host)
    await calls.but(path_layer=True).stage()
    assert (uses(host), host.mapper.maps) == (before, {})


async def test_what_a_read_only_publish_left_does_not_hold_for_the_map(host: FakeHost) -> None:
    calls = await published(host, block=True, readonly=True)
    flag = host.sys / "dev/block/259:1/ro"
    assert flag.read_text() == "1\n"
    await calls.unpublish()
    await calls.but(path_layer=True, readonly=False).stage()
    assert flag.read_text() == "0\n"
    assert the_map(host).active is not None


async def test_a_map_that_was_told_to_fail_waits_again(calls: Calls, host: FakeHost) -> None:
    mapped = calls.but(path_layer=True)
    await mapped.stage()
    found = the_map(host)
    host.table.run(["umount", str(mapped.stage_path)])
    host.mapper.run(["dmsetup", "message", "--uuid", found.uuid, "0", "fail_if_no_path"])
    host.mapper.open.add(found.devno)
    await mapped.stage()
    assert the_map(host) is found
    assert found.active is not None
    assert found.active.queues


async def test_a_path_that_failed_is_none(host: FakeHost) -> None:
    """The device is there, and the map has seen it fail: nobody else tells."""
    calls = await published(host, path_layer=True)
    await calls.unpublish()
    active = the_map(host).active
    assert active is not None
    active.failed.add((259, 1))
    with pytest.raises(Unavailable, match="its I/O waits"):
        await calls.unstage()
    assert len(host.table.points()) == 1


async def test_a_block_volume_without_a_device_is_unstaged_at_once(host: FakeHost) -> None:
    """Its last close has waited; the map itself waits for nothing."""
    calls = await published(host, block=True, path_layer=True)
    lose(host)
    await calls.unpublish()
    await calls.unstage()
    assert host.leaks() == []


async def test_an_idle_map_is_never_taken_as_it_is(calls: Calls, host: FakeHost) -> None:
    """Left by a driver that was killed; it leads to what was there then."""
    mapped = calls.but(path_layer=True)
    for lost, again in ((False, False), (True, False), (True, True)):
        await mapped.stage()
        found = the_map(host)
        host.table.run(["umount", str(mapped.stage_path)])
        if lost:
            lose(host)
        if again:
            back(host)
        await mapped.stage()
        assert the_map(host) is not found
        active, connection = the_map(host).active, host.connections[nqn(VOLUME)]
        assert active is not None
        assert active.paths == [connection.devno]
        await mapped.unstage()


@pytest.mark.parametrize("gone", [False, True])
async def test_a_map_that_a_program_has_open_is_led_to_the_device(
    calls: Calls, host: FakeHost, gone: bool
) -> None:
    """An earlier call's program waits in it: it goes on, and ends, instead of for ever."""
    mapped = calls.but(path_layer=True)
    await mapped.stage()
    found = the_map(host)
    host.table.run(["umount", str(mapped.stage_path)])
    host.mapper.open.add(found.devno)
    if gone:
        lose(host)
        host._numbers += 10
    await mapped.stage()
    assert the_map(host) is found
    assert found.active is not None
    assert found.active.paths == [host.connections[nqn(VOLUME)].devno]
    assert ("load" in dmsetup(host)) == gone


async def test_of_a_former_hand_over_nothing_is_used(calls: Calls, host: FakeHost) -> None:
    await calls.but(path_layer=True, generation=1).stage()
    with pytest.raises(FailedPrecondition, match="another of its hand-overs"):
        await calls.but(path_layer=True, generation=2).stage()
    lose(host)
    with pytest.raises(FailedPrecondition, match="another of its hand-overs"):
        await calls.but(path_layer=True, generation=2).stage()
    assert uses(host) == {((253, 0), "/")}


async def test_a_former_hand_overs_idle_map_is_cleared_away(calls: Calls, host: FakeHost) -> None:
    identity = host.ports().maps.identity(VOLUME, 7)
    host._plug(nqn(VOLUME))
    host.mapper.add(identity.uuid, identity.uuid, FakeTable(SIZE // 512, [(259, 1)], queues=True))
    await calls.but(path_layer=True).stage()
    assert the_map(host).uuid.endswith(".0")


async def test_a_former_hand_overs_map_in_use_is_in_the_way(calls: Calls, host: FakeHost) -> None:
    identity = host.ports().maps.identity(VOLUME, 7)
    host._plug(nqn(VOLUME))
    old = host.mapper.add(
        identity.uuid, identity.uuid, FakeTable(SIZE // 512, [(259, 1)], queues=True)
    )
    host.mapper.open.add(old.devno)
    for path_layer in (True, False):
        with pytest.raises(VolumeInUse, match="still in use"):
            await calls.but(path_layer=path_layer).stage()
    assert host.formats == 0


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
async def test_it_grows_through_its_map(host: FakeHost, fs_type: str) -> None:
    calls = await published(host, fs_type=fs_type, path_layer=True)
    calls.disk.size = 2 * SIZE
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    assert the_map(host).size == calls.disk.fs_size == 2 * SIZE
    assert await calls.expand(2 * SIZE) == 2 * SIZE


async def test_a_block_volume_grows_through_its_map(host: FakeHost) -> None:
    calls = await published(host, block=True, path_layer=True)
    calls.disk.size = 2 * SIZE
    assert await calls.expand(2 * SIZE) == the_map(host).size == 2 * SIZE


async def test_health_and_usage_know_the_map(host: FakeHost) -> None:
    calls = await published(host, path_layer=True)
    assert await calls.health() == []
    assert (await calls.stats())[0].total == 4096 * 1000
    block = Calls(host=host, volume=OTHER, block=True, path_layer=True).but(
        stage_name="stage-2", target_name="target-2"
    )
    block.create()
    await block.stage()
    await block.publish()
    assert await block.health() == []
    assert (await block.stats())[0].total == SIZE
    lose(host)
    assert "StaleMount" not in {each.reason for each in await calls.health()}


async def test_another_volumes_map_is_left_alone(host: FakeHost) -> None:
    other = Calls(host=host, volume=OTHER, path_layer=True)
    other.create("ext4")
    await other.stage()
    calls = Calls(host=host)
    calls.create()
    with pytest.raises(FailedPrecondition, match=f"belongs to RDSCSI-.*{OTHER}"):
        await calls.unstage()
    assert len(host.table.points()) == 1
    block = other.but(block=True)
    await other.unstage()
    await block.stage()
    await block.publish()
    with pytest.raises(FailedPrecondition, match=f"belongs to RDSCSI-.*{OTHER}"):
        await calls.unpublish()
    assert len(host.table.points()) == 1
