"""Each operation against RouterOS over real SSH: what it does, refuses, and in how many execs."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from rds_csi.errors import (
    ConcurrentChange,
    FailedPrecondition,
    InvalidRequest,
    NotOurs,
    NotReady,
    PoolFull,
    RouterOSError,
    VolumeInUse,
    VolumeNotFound,
)
from rds_csi.routeros import Disk, Disks, clauses
from rds_csi.simulator.values import RuntimeFault
from rds_csi.volume import (
    GIB,
    MIB,
    AccessMode,
    Publication,
    Record,
    owner_tag,
    round_up,
    volume_id,
)

from .conftest import BASE, OWNER, PREFIX, Rds

SLOT = volume_id("one")
LEGACY = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"
HOST = "nqn.2014-08.org.nvmexpress:uuid:9f1c0a52-7b6e-5d55-9a5e-2f3c4d5e6f70"


def record(name: str = "one", *nodes: str, owner: str = OWNER) -> Record:
    return Record(
        owner=owner,
        name=name,
        created=1700000000,
        access="ext4",
        nodes=tuple(Publication(node, AccessMode.SINGLE_NODE_WRITER) for node in nodes),
    )


def path_of(slot: str, directory: str = BASE) -> str:
    return f"{directory}/{slot}-{owner_tag(OWNER)}.img"


async def create(disks: Disks, name: str = "one", size: int = 64 * MIB) -> tuple[Disk, bool]:
    slot = volume_id(name)
    return await disks.create(
        slot=slot,
        size=size,
        file_path=path_of(slot),
        nqn=f"{PREFIX}:{slot}",
        port=4420,
        record=record(name),
    )


@pytest.fixture
async def disks(rds: Rds) -> Disks:
    """The backend on a connection that stands."""
    backend = rds.backend()
    await backend.system()
    return backend


# How many execs


async def test_every_operation_takes_one_exec(rds: Rds, disks: Disks) -> None:
    counts = {}
    operations: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: create(disks),
        "create again": lambda: create(disks),
        "get": lambda: disks.get(SLOT),
        "list": disks.list,
        "capacity": lambda: disks.capacity(BASE),
        "system": disks.system,
        "publish": lambda: disks.change(
            SLOT, record().encode(), record("one", "a"), exported=True, allowed_host=HOST
        ),
        "unpublish": lambda: disks.change(
            SLOT, record("one", "a").encode(), record(), exported=False
        ),
        "expand": lambda: disks.expand(SLOT, 128 * MIB),
        "expand again": lambda: disks.expand(SLOT, 128 * MIB),
        "delete": lambda: disks.delete(SLOT),
        "delete again": lambda: disks.delete(SLOT),
    }
    for name, operation in operations.items():
        before = rds.execs()
        await operation()
        counts[name] = rds.execs() - before
    assert counts == dict.fromkeys(counts, 1)
    assert rds.slots() == []
    assert rds.files() == []
    assert rds.simulator.device.hazards == []


async def test_ten_thousand_volumes_are_listed_in_one_exec(rds: Rds, disks: Disks) -> None:
    for number in range(10_000):
        slot = volume_id(str(number))
        rds.simulator.path(path_of(slot)).touch()
        await rds.simulator.device.add_disk(
            {
                "slot": slot,
                "type": "file",
                "file-path": path_of(slot),
                "comment": record(str(number), "worker-1").encode(),
                "nvme-tcp-server-nqn": f"{PREFIX}:{slot}",
            }
        )
    before = rds.execs()
    found = await disks.list()
    assert rds.execs() - before == 1
    assert {disk.slot for disk in found} == {volume_id(str(number)) for number in range(10_000)}
    assert all(disk.record and disk.record.nodes for disk in found)


# Create


async def test_create_makes_what_was_asked_for_and_does_not_export_it(
    rds: Rds, disks: Disks
) -> None:
    made, existed = await create(disks, size=64 * MIB)
    assert not existed
    assert made == rds.disk(SLOT)
    assert made.size == 64 * MIB
    assert made.file_path == path_of(SLOT)
    assert made.nqn == f"{PREFIX}:{SLOT}"
    assert made.record == record()
    assert not made.exported
    assert rds.simulator.exported == set()
    assert rds.simulator.disks[SLOT].properties["mount-filesystem"] is False
    assert rds.simulator.path(path_of(SLOT)).stat().st_size == 64 * MIB


@pytest.mark.parametrize("gib", [1.5, 10.1, 1025])
async def test_sizes_are_exact(disks: Disks, gib: float) -> None:
    wanted = round_up(int(gib * GIB))
    made, _ = await create(disks, size=wanted)
    assert made.size == wanted


async def test_create_finds_what_exists_and_touches_nothing(rds: Rds, disks: Disks) -> None:
    await create(disks)
    await disks.change(SLOT, record().encode(), record("one", "a"), exported=True)
    before = rds.disk(SLOT)
    again, existed = await disks.create(
        slot=SLOT,
        size=GIB,
        file_path=path_of(SLOT, "raid10/elsewhere"),
        nqn=f"{PREFIX}:other",
        port=4421,
        record=record("other"),
    )
    assert existed
    assert again == before == rds.disk(SLOT)
    assert changes(rds)[-1:] == ["/disk/set"]


def changes(rds: Rds) -> list[str]:
    verbs = ("/add", "/set", "/remove")
    return [
        run.name
        for each in rds.simulator.execs()
        for run in each.executed
        if run.name.endswith(verbs)
    ]


async def test_create_in_a_slot_of_somebody_else_is_refused(rds: Rds, disks: Disks) -> None:
    for comment in ("precious", record(owner="csi.rds-csi.io/other").encode()):
        slot = volume_id(comment)
        await rds.add_disk(slot, comment=comment)
        before = rds.disk(slot)
        with pytest.raises(NotOurs):
            await disks.create(
                slot=slot,
                size=MIB,
                file_path=path_of(slot),
                nqn=f"{PREFIX}:{slot}",
                port=4420,
                record=record(),
            )
        assert rds.disk(slot) == before


async def test_create_refuses_when_the_reserve_would_be_touched(rds: Rds) -> None:
    disks = Disks(rds.session(), owner=OWNER, base_path=BASE, reserve=GIB)
    rds.simulator.fill_pool("raid10", free=GIB + 64 * MIB - 1)
    with pytest.raises(PoolFull, match=str(GIB + 64 * MIB - 1)):
        await create(disks)
    assert rds.slots() == []
    rds.simulator.fill_pool("raid10", free=GIB + 64 * MIB)
    await create(disks)


async def test_create_names_a_missing_directory_and_how_to_make_it(rds: Rds) -> None:
    rds.simulator.path(BASE).rmdir()
    with pytest.raises(NotReady, match=re.escape(f'/file/add type=directory name="{BASE}"')):
        await create(rds.backend())


async def test_create_names_a_missing_pool(rds: Rds) -> None:
    with pytest.raises(NotReady, match="no disk raid7"):
        await rds.backend().create(
            slot=SLOT,
            size=MIB,
            file_path=path_of(SLOT, "raid7/csi"),
            nqn=f"{PREFIX}:{SLOT}",
            port=4420,
            record=record(),
        )


@pytest.mark.parametrize("text", ["failure: not enough space", "failure: no space left on device"])
async def test_a_failed_add_leaves_nothing_behind(rds: Rds, disks: Disks, text: str) -> None:
    rds.simulator.faults.add("runtime-error", text=text, command="/disk/add")
    with pytest.raises(PoolFull):
        await create(disks)
    assert rds.slots() == []
    assert rds.files() == []
    _, existed = await create(disks)
    assert not existed


async def test_a_file_that_a_failed_add_made_is_removed(
    rds: Rds, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = rds.simulator.device

    async def half(given: dict[str, object]) -> None:
        rds.simulator.path(path_of(SLOT)).write_bytes(b"half")
        raise RuntimeFault("failure: not enough space")

    monkeypatch.setattr(device, "add_disk", half)
    with pytest.raises(PoolFull):
        await create(disks)
    assert rds.files() == []


async def test_an_unknown_error_is_kept_verbatim(rds: Rds, disks: Disks) -> None:
    rds.simulator.faults.add("runtime-error", text="the dog ate it (77)", command="/disk/add")
    with pytest.raises(RouterOSError, match=r"the dog ate it \(77\)"):
        await create(disks)


async def test_a_create_that_lost_a_race_finds_the_winner(rds: Rds, disks: Disks) -> None:
    rds.simulator.quirks.interleave = True
    other = rds.backend()
    await other.system()
    results = await asyncio.gather(*(create(each) for each in (disks, other) * 3))
    assert sorted(existed for _, existed in results) == [False] + [True] * 5
    assert rds.slots() == [SLOT]
    assert rds.simulator.path(path_of(SLOT)).stat().st_size == 64 * MIB


async def test_what_shows_late_is_waited_for(rds: Rds, disks: Disks) -> None:
    rds.simulator.quirks.lag = 0.4
    made, existed = await create(disks)
    assert not existed
    assert made.size == 64 * MIB
    await disks.delete(SLOT)
    assert rds.files() == []


# Get and list


async def test_get_knows_missing_from_foreign(rds: Rds, disks: Disks) -> None:
    with pytest.raises(VolumeNotFound, match=SLOT):
        await disks.get(SLOT)
    await rds.add_disk(SLOT, comment="precious")
    with pytest.raises(NotOurs, match="precious"):
        await disks.get(SLOT)


async def test_list_shows_ours_and_the_go_drivers_and_nobody_elses(rds: Rds, disks: Disks) -> None:
    await create(disks)
    await rds.add_disk(LEGACY)
    await rds.add_disk(LEGACY.replace("0f92", "aaaa"), comment="hands off")
    await rds.add_disk("vm-storage-001")
    await rds.add_disk("xpvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8")
    await rds.add_disk(volume_id("b"), comment=record(owner="csi.rds-csi.io/test2").encode())
    await rds.add_disk(volume_id("c"), comment=record(owner="csixrds-csixio/test").encode())
    await rds.add_disk(volume_id("d"), comment=record().encode() + " trailing")
    assert sorted(disk.slot for disk in await disks.list()) == sorted([SLOT, LEGACY])


async def test_an_empty_list_is_empty(disks: Disks) -> None:
    assert await disks.list() == []


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
    monkeypatch.setattr(clauses, "TRIES", 2)
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
    await disks.delete(SLOT)
    assert changes(rds)[-3:] == ["/disk/set", "/disk/remove", "/file/remove"]


# Capacity


async def test_capacity_is_what_the_pool_says(rds: Rds, disks: Disks) -> None:
    rds.simulator.fill_pool("raid10", free=5 * GIB)
    found = await disks.capacity(BASE)
    assert found.free == 5 * GIB
    assert found.size == 16 * 1024**4
    assert found.file_system == "xfs"
    with pytest.raises(NotReady, match="no disk raid7"):
        await disks.capacity("raid7/csi")


# Requests that must not reach the RDS


async def test_what_is_no_slot_path_or_nqn_is_refused_without_an_exec(
    rds: Rds, disks: Disks
) -> None:
    good = {
        "slot": SLOT,
        "size": MIB,
        "file_path": path_of(SLOT),
        "nqn": f"{PREFIX}:{SLOT}",
        "port": 4420,
        "record": record(),
    }
    before = rds.execs()
    for bad in (
        {"slot": 'x"; /system/reboot'},
        {"slot": "a" * 33},
        {"slot": LEGACY},
        {"file_path": "raid10/csi/../x.img"},
        {"file_path": "/raid10/csi/x.img"},
        {"nqn": "iqn.2000-02.com.mikrotik:x"},
        {"size": -1},
    ):
        with pytest.raises(InvalidRequest):
            await disks.create(**{**good, **bad})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await disks.change(SLOT, "", record(), exported=True, allowed_host="$host")
    with pytest.raises(InvalidRequest):
        await disks.change(SLOT, record().encode() + "\n", record(), exported=True)
    for slot in ("", "*2B", "a b"):
        with pytest.raises(InvalidRequest):
            await disks.get(slot)
        with pytest.raises(InvalidRequest):
            await disks.delete(slot)
        with pytest.raises(InvalidRequest):
            await disks.expand(slot, MIB)
    with pytest.raises(InvalidRequest):
        await disks.capacity('raid10"/x')
    assert rds.execs() == before
