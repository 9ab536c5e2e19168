"""Creating, finding and listing over real SSH: what is done, refused, and in how many execs."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from rds_csi.errors import (
    InvalidRequest,
    NotOurs,
    NotReady,
    PoolFull,
    RouterOSError,
    VolumeNotFound,
)
from rds_csi.model.volume import GIB, MIB, round_up, volume_id
from rds_csi.routeros import Disks
from rds_csi.simulator.language.values import RuntimeFault

from .conftest import BASE, OWNER, PREFIX, Rds
from .volumes import HOST, LEGACY, SLOT, changes, create, path_of, record


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
