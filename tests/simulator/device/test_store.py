"""What the simulator remembers: a kill leaves the old state or the new."""

from pathlib import Path

import pytest

from rds_csi.simulator import Quirks, Simulator
from rds_csi.simulator.device.store import Disk, Store
from rds_csi.simulator.language.values import RuntimeFault

GIB = 1024**3


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    root = tmp_path / "rds"
    async with Simulator(root, pools={"raid10": 16 * GIB}) as rds:
        await rds.run(
            "/disk/add type=file slot=a file-path=raid10/a.img file-size=1G nvme-tcp-export=yes "
            'comment="\\C3\\A9 \\"x\\""'
        )
        rds.discard("a", 0, GIB // 2)
        serial = rds.device.store.serial
    assert rds.exported == set()
    async with Simulator(root, pools={"raid10": 32 * GIB}) as rds:
        assert rds.exported == {"a"}
        assert await rds.run(":put [/disk/get a comment]") == 'é "x"\r\n'
        assert await rds.run(":put [/disk/find slot=a]") == "*2\r\n"
        assert rds.free("raid10") == 31 * GIB + GIB // 2
        assert rds.device.store.serial == serial


async def test_a_kind_device_is_the_same_to_its_hosts_after_a_restart(tmp_path: Path) -> None:
    told = []
    for line in ("/disk/add type=file slot=a file-path=raid10/a.img file-size=1G", ""):
        async with Simulator(tmp_path / "rds", quirks=Quirks(stable_identifiers=True)) as rds:
            await rds.run(line)
            await rds.run("/disk/set a nvme-tcp-export=yes")
            told.append(rds.namespaces["a"])
    assert told[0] == told[1]


async def test_state_is_written_before_the_reply(rds: Simulator) -> None:
    await rds.run("/disk/add type=file slot=a file-path=raid10/a.img file-size=1M")
    # What a kill -9 right now would leave to the next run:
    assert "a" in Store(rds.root).by_slot
    await rds.run("/disk/remove a")
    assert "a" not in Store(rds.root).by_slot


async def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="another version"):
        Simulator(tmp_path)


def test_ids_are_not_used_again_over_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pool = store.add_pool("raid10", GIB)
    disk = Disk(store.new_id(), "file", "a", 5, {"comment": "x"})
    store.add_disk(disk)
    store.remove_disk(disk)
    store.save()
    again = Store(tmp_path)
    assert again.new_id() == disk.id + 1
    assert (again.by_slot, again.disks) == ({"raid10": pool}, {})
    assert again.serial == store.serial


def test_a_pool_that_is_known_takes_the_new_size_and_stays_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pool = store.add_pool("raid10", GIB)
    assert store.add_pool("raid10", 2 * GIB) is pool
    assert pool.size == 2 * GIB
    store.add_disk(Disk(store.new_id(), "file", "a", 5))
    with pytest.raises(ValueError, match="slot a is a disk already"):
        store.add_pool("a", GIB)


def test_a_name_has_one_owner(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = (Disk(store.new_id(), "file", slot, 5) for slot in ("a", "b"))
    store.add_disk(first)
    store.add_disk(second)
    with pytest.raises(RuntimeFault, match="already exists"):
        store.rename(first, "b")
    store.rename(first, "a")
    store.rename(first, "c")
    assert store.by_slot == {"c": first, "b": second}


def test_what_changes_nothing_writes_nothing_and_a_file_half_written_is_not_read(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    store.save()
    assert not (tmp_path / "state.json").exists()
    store.add_pool("raid10", GIB)
    store.save()
    (tmp_path / "state.new").write_text('{"format": 1, "ser')
    assert list(Store(tmp_path).by_slot) == ["raid10"]


@pytest.mark.parametrize(
    ("name", "slot"), [("raid10/a", "raid10"), ("raid10", "raid10"), ("raid100/a", None)]
)
def test_the_pool_of_a_name(tmp_path: Path, name: str, slot: str | None) -> None:
    store = Store(tmp_path)
    store.add_pool("raid10", GIB).mounted = False
    found = store.pool_of(name)
    assert (found.slot if found else None) == slot
