"""Maps are found, made, led elsewhere and removed by their dm UUID alone."""

import shutil
from pathlib import Path

import pytest

from rds_csi.errors import (
    CommandFailed,
    FailedPrecondition,
    Internal,
    NotReady,
    Unavailable,
    VolumeInUse,
)
from rds_csi.model.record import owner_tag
from rds_csi.pathlayer.maps import MapIdentity
from rds_csi.runtime.process import Result
from tests.unit.fakes.device_mapper import FakeTable
from tests.unit.pathlayer.mapped import OTHER, OWNER, SECTORS, SIZE, VOLUME, Node, nqn

TAG = owner_tag(OWNER)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_an_identity_is_read_back_and_nothing_else_is_one() -> None:
    for volume in (VOLUME, "pvc-01234567-89ab-cdef-0123-456789abcdef"):
        identity = MapIdentity(TAG, volume, 7)
        assert identity.uuid == f"RDSCSI-{TAG}-{volume}.7"
        assert MapIdentity.parse(identity.uuid) == identity
        assert len(identity.uuid) < 128, "DM_NAME_LEN and DM_UUID_LEN of the kernel"
    for other in (
        "",
        f"mpath-{VOLUME}",
        f"RDSCSI-{TAG}-{VOLUME}",
        f"RDSCSI-{TAG}-{VOLUME}.",
        f"RDSCSI-{TAG}-{VOLUME}.07",
        f"RDSCSI-{TAG}-{VOLUME}.-1",
        f"RDSCSI-{TAG}-pvc-1.1",
        f"RDSCSI-{TAG}-{VOLUME}.1.1",
        f"RDSCSI-{TAG.upper()}G-{VOLUME}.1",
        f"RDSCSI-{TAG}-{VOLUME}.1-part1",
    ):
        assert MapIdentity.parse(other) is None, other


def test_a_running_multipathd_leaves_our_maps_alone(node: Node) -> None:
    """Its own have UUIDs that begin with ``mpath-`` (multipath-tools, libmultipath/devmapper.c)."""
    assert not node.identity().uuid.startswith("mpath-")


async def test_a_map_is_made_and_found(node: Node) -> None:
    device = node.plug(3, nqn(VOLUME))
    made = await node.maps.create(node.identity(), SIZE, device)
    assert (made.paths, made.size, made.suspended) == (((259, 3),), SIZE, False)
    assert (made.device, made.devno) == (node.dev / "dm-0", (253, 0))
    assert node.maps.all() == node.maps.of(VOLUME) == [made]
    assert node.maps.find(VOLUME) == node.maps.find(VOLUME, 1) == made
    assert node.maps.find(VOLUME, 2) is None
    assert node.maps.find(OTHER) is None
    assert await node.maps.table(made) == (await node.maps.table(made))
    assert (await node.maps.status(made)).works(made.paths)


async def test_it_is_made_once(node: Node) -> None:
    device = node.plug(3, nqn(VOLUME))
    made = await node.maps.create(node.identity(), SIZE, device)
    node.calls.clear()
    assert await node.maps.create(node.identity(), SIZE, device) == made
    assert [words[1] for words in node.calls] == ["table"]


async def test_maps_of_others_are_not_seen(node: Node) -> None:
    for number, uuid in enumerate(
        ("", "mpath-x", "LVM-abc", f"RDSCSI-00000000-{VOLUME}.1", f"RDSCSI-{TAG}-{VOLUME}")
    ):
        node.mapper.add(f"name-{number}", uuid, FakeTable(SECTORS, [], queues=True))
    (node.sys / "block/sda").mkdir()
    assert node.maps.all() == []


async def test_the_highest_generation_is_the_volumes(node: Node) -> None:
    for generation, minor in ((9, 1), (10, 2)):
        device = node.plug(minor, nqn(VOLUME, generation))
        await node.maps.create(node.identity(generation=generation), SIZE, device)
    found = node.maps.find(VOLUME)
    assert found is not None
    assert found.identity.generation == 10
    assert [each.identity.generation for each in node.maps.of(VOLUME)] == [9, 10]


async def test_another_volumes_device_gets_into_no_map(node: Node) -> None:
    device = node.plug(3, nqn(VOLUME))
    shutil.rmtree(node.sys / "devices")
    (node.sys / "dev/block/259:3").unlink()
    node.plug(3, nqn(OTHER))
    with pytest.raises(Unavailable, match="not its device any more"):
        await node.maps.create(node.identity(), SIZE, device)
    assert node.mapper.maps == {}


async def test_another_volumes_device_gets_into_no_map_that_is_there(node: Node) -> None:
    device = node.plug(3, nqn(VOLUME))
    made = await node.maps.create(node.identity(), SIZE, device)
    other = node.plug(4, nqn(OTHER))
    wrong = type(device)(other.path, other.devno, device.nqn, device.host_nqn)
    with pytest.raises(Unavailable, match="not its device any more"):
        await node.maps.reload(made, wrong, SECTORS)
    assert node.maps.all() == [made]


@pytest.mark.parametrize("command", ["load", "resume"])
async def test_a_device_swapped_while_it_is_reloaded_is_no_success(
    node: Node, command: str
) -> None:
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    again = node.plug(4, nqn(VOLUME))

    def swap(words: tuple[str, ...]) -> None:
        if words[1] == command:
            (node.sys / "devices/nvme-subsys4/subsysnqn").write_text(nqn(OTHER))

    node.then = swap
    with pytest.raises(Unavailable, match="not its device any more"):
        await node.maps.reload(made, again, SECTORS)


async def test_a_map_is_led_to_the_device_that_came_back(node: Node) -> None:
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    node.mapper.lose((259, 3))
    lost = node.maps.find(VOLUME)
    assert lost is not None
    assert lost.paths == ()
    assert not (await node.maps.status(lost)).works(made.paths)
    back = node.plug(4, nqn(VOLUME))
    led = await node.maps.reload(lost, back, 2 * SECTORS)
    assert (led.paths, led.size) == (((259, 4),), 2 * SIZE)
    assert led.devno == made.devno


async def test_a_map_never_becomes_smaller(node: Node) -> None:
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    node.calls.clear()
    with pytest.raises(FailedPrecondition, match="fewer than"):
        await node.maps.reload(made, node.plug(4, nqn(VOLUME)), SECTORS - 1)
    assert node.calls == []


async def test_a_reload_that_was_interrupted_is_repeated(node: Node) -> None:
    """Killed between load and resume: the loaded table waits, and holds its device."""
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    node.mapper.lose((259, 3))
    back = node.plug(4, nqn(VOLUME))
    node.refusals["resume"] = Result(1, "", "Command failed.")
    with pytest.raises(CommandFailed):
        await node.maps.reload(made, back, SECTORS)
    node.refusals.clear()
    again = await node.maps.reload(made, back, SECTORS)
    assert again.paths == ((259, 4),)


async def test_waiting_ends_and_begins(node: Node) -> None:
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    await node.maps.fail(made)
    assert not (await node.maps.table(made)).waits
    await node.maps.queue(made)
    assert (await node.maps.table(made)).waits


async def test_a_map_is_removed_and_proven_gone(node: Node) -> None:
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    await node.maps.remove(made)
    assert node.maps.all() == []
    node.calls.clear()
    await node.maps.remove(made)
    assert node.calls == []


async def test_a_map_in_use_stays(node: Node) -> None:
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    node.mapper.open.add(made.devno)
    with pytest.raises(VolumeInUse, match=r"its map .*dm-0 is still in use") as caught:
        await node.maps.remove(made)
    assert "grep 253:0" in caught.value.advice
    assert node.maps.all() == [made]


async def test_a_removal_is_not_taken_at_its_word(node: Node) -> None:
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    node.refusals["remove"] = Result(0, "", "")
    with pytest.raises(Internal, match="stays"):
        await node.maps.remove(made)
    node.refusals["remove"] = Result(1, "", "Command failed.")
    with pytest.raises(CommandFailed):
        await node.maps.remove(made)


async def test_a_node_without_the_module_says_what_to_do(node: Node) -> None:
    await node.maps.require_possible(volume=VOLUME)
    node.mapper.targets = "striped          v1.6.0\n"
    with pytest.raises(NotReady, match="no dm-multipath") as caught:
        await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    assert "modprobe -a dm-multipath dm-round-robin" in caught.value.advice
    assert "pathLayer.enabled" in caught.value.advice
    node.refusals["targets"] = Result(1, "", "Failure to communicate with kernel device-mapper.")
    with pytest.raises(NotReady):
        await node.maps.require_possible(volume=VOLUME)


async def test_a_device_that_somebody_holds_gets_no_map(node: Node) -> None:
    device = node.plug(3, nqn(VOLUME))
    node.mapper.held.add(device.devno)
    with pytest.raises(VolumeInUse, match="something holds it") as caught:
        await node.maps.create(node.identity(), SIZE, device)
    assert "multipathd" in caught.value.advice


async def test_a_device_that_is_in_a_map_gets_no_second_one(node: Node) -> None:
    """The kernel would make it, and two maps would write to one device."""
    device = node.plug(3, nqn(VOLUME))
    made = await node.maps.create(node.identity(), SIZE, device)
    node.calls.clear()
    with pytest.raises(VolumeInUse, match="dm-0 holds it"):
        await node.maps.create(node.identity(generation=2), SIZE, device)
    other = await node.maps.create(node.identity(OTHER), SIZE, node.plug(4, nqn(OTHER)))
    node.calls.clear()
    with pytest.raises(VolumeInUse, match="dm-0 holds it"):
        await node.maps.reload(other, device, SECTORS)
    assert node.calls == []
    assert node.maps.all() == [made, other]


async def test_a_map_that_multipathd_made_meanwhile_is_no_success(node: Node) -> None:
    """Between the look and the create it may have taken the device."""

    def take(words: tuple[str, ...]) -> None:
        if words[1] == "create":
            node.mapper.add("mpatha", "mpath-x", FakeTable(SECTORS, [(259, 3)], queues=True))

    node.then = take
    with pytest.raises(VolumeInUse, match="dm-1 holds it"):
        await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))


async def test_what_a_killed_create_left_is_cleared_away(node: Node) -> None:
    """A map without a table: no sysfs shows it, and it has the name."""
    uuid = node.identity().uuid
    node.mapper.add(uuid, uuid)
    assert node.maps.all() == []
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    assert node.maps.all() == [made]
    assert len(node.mapper.maps) == 1


async def test_a_table_that_waits_to_be_swapped_in_counts(node: Node) -> None:
    """What is in use is right, and what the next resume would bring is not."""
    device = node.plug(3, nqn(VOLUME))
    made = await node.maps.create(node.identity(), SIZE, device)
    node.plug(4, nqn(OTHER))
    node.mapper.maps[0].loaded = FakeTable(SECTORS, [(259, 4)], queues=True)
    node.mapper._show(node.mapper.maps[0])
    assert await node.maps.table(made)
    with pytest.raises(FailedPrecondition, match="it leads to 259:3, 259:4"):
        await node.maps.create(node.identity(), SIZE, device)


async def test_what_dmsetup_cannot_do_for_other_reasons_is_told(node: Node) -> None:
    node.refusals["create"] = Result(1, "", "Command failed.")
    with pytest.raises(CommandFailed, match=r"Command failed\."):
        await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    node.refusals["create"] = Result(0, "", "")
    with pytest.raises(Internal, match="gone"):
        await node.maps.create(node.identity(), SIZE, node.plug(4, nqn(VOLUME)))


@pytest.mark.parametrize(
    ("sectors", "paths"),
    [(SECTORS, []), (SECTORS, [(259, 4)]), (SECTORS, [(259, 3), (259, 4)]), (8, [(259, 3)])],
)
async def test_a_map_of_another_make_is_not_taken_for_ours(
    node: Node, sectors: int, paths: list[tuple[int, int]]
) -> None:
    device = node.plug(3, nqn(VOLUME))
    node.plug(4, nqn(OTHER))
    uuid = node.identity().uuid
    node.mapper.add(uuid, uuid, FakeTable(sectors, paths, queues=True))
    with pytest.raises(FailedPrecondition, match="not as this driver makes it"):
        await node.maps.create(node.identity(), SIZE, device)


async def test_a_table_of_another_target_is_nobodys(node: Node) -> None:
    made = await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    node.refusals["table"] = node.refusals["status"] = Result(0, "0 8 linear 259:3 0\n", "")
    with pytest.raises(FailedPrecondition, match="not as this driver makes it"):
        await node.maps.table(made)
    with pytest.raises(FailedPrecondition, match="not as this driver makes it"):
        await node.maps.status(made)


async def test_what_goes_away_while_it_is_looked_at_is_passed_over(node: Node) -> None:
    await node.maps.create(node.identity(), SIZE, node.plug(3, nqn(VOLUME)))
    for attribute in ("dev", "size"):
        (node.sys / "block/dm-0" / attribute).unlink()
        assert node.maps.all() == []
        node.mapper._show(node.mapper.maps[0])
    shutil.rmtree(node.sys / "block")
    assert node.maps.all() == []
