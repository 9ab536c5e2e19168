"""Publishing, growing and deleting over real SSH: what is done and what is refused."""

import pytest

from rds_csi.errors import (
    ConcurrentChange,
    FailedPrecondition,
    NotOurs,
    PoolFull,
    VolumeInUse,
    VolumeNotFound,
)
from rds_csi.model.record import owner_tag
from rds_csi.model.volume import GIB, MIB, volume_id
from rds_csi.routeros import Disks, fragments

from .conftest import BASE, OWNER, PREFIX, Rds
from .volumes import HOST, LEGACY, SLOT, changes, create, path_of, record


@pytest.fixture
async def disks(rds: Rds) -> Disks:
    """The backend on a connection that stands."""
    backend = rds.backend()
    await backend.system()
    return backend


# Change


async def test_change_writes_record_and_export_together(rds: Rds, disks: Disks) -> None:
    await create(disks)
    published = record("one", "a")
    disk = await disks.change(SLOT, record().encode(), published, exported=True, allowed_host=HOST)
    assert disk == rds.disk(SLOT)
    assert disk.record == published
    assert disk.exported
    assert disk.allowed_host == HOST
    assert rds.simulator.exported == {SLOT}
    disk = await disks.change(SLOT, published.encode(), record(), exported=False)
    assert disk == rds.disk(SLOT)
    assert not disk.exported
    assert disk.allowed_host == ""
    assert rds.simulator.exported == set()
    assert changes(rds) == ["/disk/add", "/disk/set", "/disk/set"]


async def test_change_of_an_outdated_record_changes_nothing_and_brings_the_current_one(
    rds: Rds, disks: Disks
) -> None:
    await create(disks)
    current = await disks.change(SLOT, record().encode(), record("one", "a"), exported=True)
    with pytest.raises(ConcurrentChange) as caught:
        await disks.change(SLOT, record().encode(), record("one", "b"), exported=True)
    assert caught.value.disk == current == rds.disk(SLOT)


async def test_a_change_that_stands_already_is_fine(rds: Rds, disks: Disks) -> None:
    await create(disks)
    first = await disks.change(SLOT, record().encode(), record("one", "a"), exported=True)
    assert await disks.change(SLOT, record().encode(), record("one", "a"), exported=True) == first
    assert changes(rds).count("/disk/set") == 1


async def test_change_of_what_is_missing_is_not_success(disks: Disks) -> None:
    with pytest.raises(VolumeNotFound):
        await disks.change(SLOT, record().encode(), record(), exported=False)


async def test_change_never_writes_on_somebody_elses_disk(rds: Rds, disks: Disks) -> None:
    for comment in ("", "precious"):
        slot = volume_id(comment or "none")
        await rds.add_disk(slot, comment=comment)
        before = rds.disk(slot)
        with pytest.raises(NotOurs):
            await disks.change(slot, comment, record("one", "a"), exported=True)
        assert rds.disk(slot) == before


async def test_change_never_writes_another_owners_record(disks: Disks) -> None:
    with pytest.raises(NotOurs):
        await disks.change(SLOT, "", record(owner="other/x"), exported=False)


async def test_a_volume_of_the_go_driver_is_adopted(rds: Rds, disks: Disks) -> None:
    await rds.add_disk(LEGACY, exported=True)
    found = await disks.get(LEGACY)
    assert found.record is None
    adopted = await disks.change(LEGACY, "", record(LEGACY, "a"), exported=True)
    assert adopted.record == record(LEGACY, "a")
    assert adopted.file_path == f"{BASE}/{LEGACY}.img"
    await disks.change(LEGACY, adopted.comment, record(LEGACY), exported=False)
    await disks.expand(LEGACY, 128 * MIB)
    await disks.delete(LEGACY)
    assert rds.slots() == []
    assert rds.files() == []


async def test_a_go_drivers_volume_elsewhere_or_with_a_comment_is_not_adopted(
    rds: Rds, disks: Disks
) -> None:
    rds.simulator.make_directory(f"{BASE}-evil")
    await rds.simulator.run(
        f'/disk/add type=file slot="{LEGACY}" file-path="{BASE}-evil/{LEGACY}.img" file-size=1M'
    )
    with pytest.raises(NotOurs):
        await disks.get(LEGACY)
    with pytest.raises(NotOurs):
        await disks.change(LEGACY, "", record(LEGACY), exported=False)
    with pytest.raises(NotOurs):
        await disks.delete(LEGACY)
    assert rds.slots() == [LEGACY]
    assert rds.files() == [f"{BASE}-evil/{LEGACY}.img"]


# Expand


async def test_expand_grows_and_never_shrinks(rds: Rds, disks: Disks) -> None:
    await create(disks)
    assert (await disks.expand(SLOT, 128 * MIB)).size == 128 * MIB
    assert (await disks.expand(SLOT, 64 * MIB)).size == 128 * MIB
    assert rds.disk(SLOT).size == 128 * MIB
    assert rds.simulator.device.hazards == []


async def test_an_expand_that_routeros_does_not_honour_is_told(
    rds: Rds, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fragments, "TRIES", 2)
    await create(disks)
    rds.simulator.quirks.resize = "ignored"
    with pytest.raises(FailedPrecondition, match="did not honour the new size"):
        await disks.expand(SLOT, 128 * MIB)


async def test_expand_keeps_the_reserve(rds: Rds) -> None:
    disks = Disks(rds.session(), owner=OWNER, base_path=BASE, reserve=GIB)
    await create(disks)
    rds.simulator.fill_pool("raid10", free=GIB + 64 * MIB - 1)
    with pytest.raises(PoolFull):
        await disks.expand(SLOT, 128 * MIB)
    rds.simulator.fill_pool("raid10", free=GIB + 64 * MIB)
    assert (await disks.expand(SLOT, 128 * MIB)).size == 128 * MIB


async def test_expand_touches_nobody_elses_disk(rds: Rds, disks: Disks) -> None:
    await rds.add_disk(SLOT, comment="precious")
    with pytest.raises(NotOurs):
        await disks.expand(SLOT, GIB)
    assert rds.disk(SLOT).size == 64 * MIB
    with pytest.raises(VolumeNotFound):
        await disks.expand(volume_id("none"), GIB)


# Delete


async def test_delete_refuses_while_published_and_names_the_nodes(rds: Rds, disks: Disks) -> None:
    await create(disks)
    await disks.change(SLOT, record().encode(), record("one", "a", "b"), exported=True)
    before = rds.disk(SLOT)
    with pytest.raises(VolumeInUse, match="a, b"):
        await disks.delete(SLOT)
    assert rds.disk(SLOT) == before
    assert rds.simulator.exported == {SLOT}
    assert rds.files() == [path_of(SLOT)]


async def test_delete_touches_nobody_elses_disk(rds: Rds, disks: Disks) -> None:
    theirs = [
        "",
        "precious",
        record(owner="csi.rds-csi.io/other").encode(),
        record(owner=OWNER + "2").encode(),
        record().encode()[:-1],
        " " + record().encode(),
    ]
    for number, comment in enumerate(theirs):
        slot = volume_id(str(number))
        await rds.add_disk(slot, comment=comment, exported=True)
        with pytest.raises((NotOurs, VolumeInUse)):
            await disks.delete(slot)
    assert len(rds.slots()) == len(rds.files()) == len(rds.simulator.exported) == len(theirs)


async def test_delete_refuses_a_disk_of_ours_over_a_file_that_is_not(
    rds: Rds, disks: Disks
) -> None:
    await rds.add_disk(SLOT, comment=record().encode())
    with pytest.raises(NotOurs, match="file"):
        await disks.delete(SLOT)
    assert rds.slots() == [SLOT]


async def test_delete_refuses_a_file_that_another_disk_uses(rds: Rds, disks: Disks) -> None:
    await create(disks)
    await rds.simulator.run(f'/disk/add type=file slot="iso" file-path="{path_of(SLOT)}"')
    with pytest.raises(FailedPrecondition, match="another disk"):
        await disks.delete(SLOT)
    assert rds.slots() == sorted(["iso", SLOT])
    await rds.simulator.run(f'/disk/remove [find where slot="{SLOT}"]')
    with pytest.raises(FailedPrecondition, match="another disk"):
        await disks.delete(SLOT)
    assert rds.files() == [path_of(SLOT)]


@pytest.mark.parametrize("directory", [BASE, "raid10/other"])
async def test_a_file_left_by_a_crash_between_disk_and_file_is_removed_in_one_exec(
    rds: Rds, disks: Disks, directory: str
) -> None:
    rds.simulator.make_directory(directory)
    await disks.create(
        slot=SLOT,
        size=MIB,
        file_path=path_of(SLOT, directory),
        nqn=f"{PREFIX}:{SLOT}",
        port=4420,
        record=record(),
    )
    await rds.simulator.run(f'/disk/remove [find where slot="{SLOT}"]')
    others = [
        f"{BASE}/{SLOT}.img",
        f"{BASE}/{SLOT}-{owner_tag('other')}.img",
        f"{path_of(SLOT)}.bak",
        f"{BASE}/x{SLOT}-{owner_tag(OWNER)}.img",
    ]
    for other in others:
        rds.simulator.path(other).write_bytes(b"theirs")
    before = rds.execs()
    await disks.delete(SLOT)
    assert rds.execs() - before == 1
    assert rds.files() == sorted(others)


async def test_two_files_of_the_name_are_a_persons_decision(rds: Rds, disks: Disks) -> None:
    rds.simulator.make_directory("raid10/backup")
    both = [path_of(SLOT), path_of(SLOT, "raid10/backup")]
    for each in both:
        rds.simulator.path(each).write_bytes(b"which?")
    with pytest.raises(FailedPrecondition, match="raid10/backup"):
        await disks.delete(SLOT)
    assert rds.files() == sorted(both)


async def test_delete_removes_its_own_file_and_not_a_copy_of_the_name(
    rds: Rds, disks: Disks
) -> None:
    await create(disks)
    rds.simulator.make_directory("raid10/backup")
    rds.simulator.path(path_of(SLOT, "raid10/backup")).write_bytes(b"copy")
    await disks.delete(SLOT)
    assert rds.files() == [path_of(SLOT, "raid10/backup")]


async def test_delete_unexports_first(rds: Rds, disks: Disks) -> None:
    await create(disks)
    await rds.simulator.run(f'/disk/set [find where slot="{SLOT}"] nvme-tcp-export=yes')
    before = len(changes(rds))
    await disks.delete(SLOT)
    assert changes(rds)[before:] == ["/disk/set", "/disk/remove", "/file/remove"]


# Records of older versions


async def first_version(rds: Rds, *nodes: str) -> str:
    """A volume as the driver's first version left it; its comment."""
    text = record("one", *nodes).encode("rds-csi/1")
    file = path_of(SLOT)
    output = await rds.simulator.run(
        f'/disk/add type=file slot={SLOT} file-path="{file}" file-size={64 * MIB} '
        f'mount-filesystem=no nvme-tcp-server-nqn="{PREFIX}:{SLOT}" comment="{text}"'
    )
    assert output == "", output
    return text


async def test_a_record_of_the_first_version_is_listed_and_upgraded_by_the_next_change(
    rds: Rds, disks: Disks
) -> None:
    old = await first_version(rds)
    assert [disk.slot for disk in await disks.list()] == [SLOT]
    assert (await disks.get(SLOT)).comment == old
    published = record("one", "a")
    assert (await disks.change(SLOT, old, published, exported=True)).record == published
    assert rds.disk(SLOT).comment.startswith("rds-csi/2 ")


async def test_a_volume_with_a_record_of_the_first_version_grows_and_is_deleted(
    rds: Rds, disks: Disks
) -> None:
    old = await first_version(rds)
    grown = await disks.expand(SLOT, 128 * MIB)
    assert (grown.size, grown.comment) == (128 * MIB, old)
    await disks.delete(SLOT)
    assert rds.slots() == []
    assert rds.files() == []


async def test_a_volume_that_the_first_version_published_is_not_deleted(
    rds: Rds, disks: Disks
) -> None:
    await first_version(rds, "a")
    with pytest.raises(VolumeInUse, match="published to a"):
        await disks.delete(SLOT)
    assert rds.slots() == [SLOT]


async def test_a_newer_record_is_not_ours_to_touch(rds: Rds, disks: Disks) -> None:
    newer = record().encode().replace("rds-csi/2", "rds-csi/4")
    await create(disks)
    await rds.simulator.run(f'/disk/set {SLOT} comment="{newer}"')
    before = rds.disk(SLOT)
    for attempt in (
        disks.get(SLOT),
        disks.change(SLOT, newer, record("one", "a"), exported=True),
        disks.expand(SLOT, 128 * MIB),
        disks.delete(SLOT),
    ):
        with pytest.raises(NotOurs):
            await attempt
    assert await disks.list() == []
    assert rds.disk(SLOT) == before
