"""What becomes of a disk: its size, its export, what the device finds in it, its pool."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rds_csi.simulator import Simulator
from tests.simulator.reading import read

MIB, GIB = 1024**2, 1024**3
ADD = "/disk/add type=file slot=a file-path=raid10/csi/a.img file-size=1G mount-filesystem=no"


async def test_resize_and_its_quirks(rds: Simulator) -> None:
    await rds.run(ADD)
    with rds.path("raid10/csi/a.img").open("r+b") as file:
        file.write(b"kept")
    assert await rds.run("/disk/set a file-size=2G") == ""
    assert rds.disks["a"].size == rds.path("raid10/csi/a.img").stat().st_size == 2 * GIB
    with rds.path("raid10/csi/a.img").open("rb") as file:
        assert file.read(4) == b"kept"
    assert rds.free("raid10") == 14 * GIB
    rds.quirks.resize = "ignored"
    assert await rds.run("/disk/set a file-size=3G") == ""
    assert rds.disks["a"].size == 2 * GIB
    rds.quirks.resize = "needs-unexport"
    await rds.run("/disk/set a nvme-tcp-export=yes")
    assert "exported" in await rds.run("/disk/set a file-size=3G")
    assert rds.disks["a"].size == 2 * GIB
    await rds.run("/disk/set a nvme-tcp-export=no")
    assert await rds.run("/disk/set a file-size=3G") == ""
    assert rds.disks["a"].size == 3 * GIB


async def test_shrinking_is_done_and_noted(rds: Simulator) -> None:
    await rds.run(ADD)
    assert await rds.run("/disk/set a file-size=512M") == ""
    assert rds.free("raid10") == 16 * GIB - 512 * MIB
    assert any("shrunk" in hazard for hazard in rds.device.hazards)


async def test_slot_limit_is_a_quirk(rds: Simulator) -> None:
    long = "pvc-12345678-1234-1234-1234-123456789abc"
    assert await rds.run(ADD.replace("slot=a", f"slot={long}")) == ""
    rds.quirks.slot_limit = 32
    line = ADD.replace("a.img", "b.img")
    assert "slot" in await rds.run(line.replace("slot=a", f"slot={'x' * 33}"))
    assert await rds.run(line.replace("slot=a", f"slot={'x' * 32}")) == ""


@pytest.mark.looptime
async def test_lag_hides_a_new_disk_for_a_while(tmp_path: Path) -> None:
    rds = Simulator(tmp_path)
    rds.quirks.lag = 3.0
    assert await rds.run(f":put [{ADD.replace('csi/', '')}]") == "*2\r\n"
    assert await rds.run(":put [:len [/disk/find slot=a]]") == "0\r\n"
    assert await rds.run("/disk/set *2 comment=x") == ""
    await asyncio.sleep(3.1)
    assert await rds.run(":put [:len [/disk/find slot=a]]") == "1\r\n"


async def test_exports_follow_the_properties(rds: Simulator) -> None:
    await rds.run(ADD)
    assert rds.exported == set()
    await rds.run("/disk/set a nvme-tcp-export=yes")
    (export,) = rds.device.exporter.exports.values()
    # Without a name of its own the subsystem is called after the slot.
    assert (export.nqn, export.port, export.hosts) == ("a", 4420, ())
    await rds.run("/disk/set a nvme-tcp-export=no")
    await rds.run(
        '/disk/set a nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:a" nvme-tcp-server-port=4421 '
        'nvme-tcp-server-allow-host-name="nqn.host" nvme-tcp-export=yes'
    )
    (export,) = rds.device.exporter.exports.values()
    assert export.nqn == "nqn.2000-02.com.mikrotik:a"
    assert (export.port, export.hosts) == (4421, ("nqn.host",))
    assert export.path == rds.path("raid10/csi/a.img")
    for off, on in (
        ("nvme-tcp-export=no", "nvme-tcp-export=yes"),
        ("disabled=yes", "disabled=no"),
    ):
        await rds.run(f"/disk/set a {off}")
        assert rds.exported == set()
        await rds.run(f"/disk/set a {on}")
        assert rds.exported == {"a"}
    await rds.run("/disk/remove a")
    assert rds.exported == set()


@pytest.mark.parametrize(
    ("rename", "exported", "closed"),
    [
        ("closed", "refused", "taken"),
        ("open", "taken", "taken"),
        ("ignored", "ignored", "ignored"),
        ("refused", "refused", "refused"),
    ],
)
async def test_when_a_disk_takes_another_name(
    rds: Simulator, rename: str, exported: str, closed: str
) -> None:
    rds.quirks.set("rename", rename)
    for state, expected in (("yes", exported), ("no", closed)):
        await rds.run(f"{ADD} nvme-tcp-server-nqn=nqn.a nvme-tcp-export={state}")
        said = await rds.run("/disk/set a comment=new nvme-tcp-server-nqn=nqn.b")
        assert ("can not change nqn" in said) == (expected == "refused")
        properties = rds.disks["a"].properties
        name = "nqn.b" if expected == "taken" else "nqn.a"
        assert properties["nvme-tcp-server-nqn"] == name
        # One command is done as a whole, or not at all.
        assert properties.get("comment", "") == ("" if expected == "refused" else "new")
        names = [export.nqn for export in rds.device.exporter.exports.values()]
        assert names == ([name] if state == "yes" else [])
        # The name that it has is no other one.
        assert await rds.run(f"/disk/set a nvme-tcp-server-nqn={name}") == ""
        await rds.run("/disk/remove a; /file/remove raid10/csi/a.img")


async def test_an_exported_disk_that_routeros_mounts_is_a_hazard(rds: Simulator) -> None:
    await rds.run(f"{ADD} nvme-tcp-export=yes")
    assert rds.device.hazards == []
    await rds.run("/disk/set a mount-filesystem=yes")
    assert any("mount-filesystem" in hazard for hazard in rds.device.hazards)


SUPERBLOCKS = {"ext4": (0x438, b"\x53\xef"), "xfs": (0, b"XFSB")}


def format_disk(rds: Simulator, file_system: str) -> None:
    place, magic = SUPERBLOCKS[file_system]
    with rds.path("raid10/csi/a.img").open("r+b") as file:
        file.seek(place)
        file.write(magic)


async def shown(rds: Simulator) -> dict[str, Any]:
    query = "/disk/print as-value proplist=fs,mount-point,mounted where slot=a"
    (row,) = await read(rds, query)
    return {name: value for name, value in row.items() if name != ".id"}


@pytest.mark.parametrize("file_system", SUPERBLOCKS)
async def test_a_file_system_is_recognised_when_the_disk_is_looked_at_again(
    rds: Simulator, file_system: str
) -> None:
    """What a host writes over NVMe shows when the export ends, at boot, or by attaching it."""
    await rds.run(ADD + " nvme-tcp-export=yes")
    format_disk(rds, file_system)
    assert (await shown(rds))["fs"] == ""
    assert "fs=-" in await rds.run("/disk/print detail where slot=a")
    await rds.run("/disk/set a comment=touched")
    assert (await shown(rds))["fs"] == ""
    await rds.run("/disk/set a nvme-tcp-export=no")
    assert (await shown(rds))["fs"] == file_system
    rds.path("raid10/csi/a.img").write_bytes(bytes(GIB // 1024))
    assert (await shown(rds))["fs"] == file_system
    await rds.reboot()
    assert (await shown(rds))["fs"] == ""
    format_disk(rds, file_system)
    await rds.run("/disk/remove a")
    await rds.run(ADD.replace("file-size=1G", ""))
    assert (await shown(rds))["fs"] == file_system


async def test_a_device_that_always_looks(rds: Simulator) -> None:
    rds.quirks.set("recognise", "always")
    await rds.run(ADD + " nvme-tcp-export=yes")
    format_disk(rds, "ext4")
    assert (await shown(rds))["fs"] == "ext4"


async def test_what_is_recognised_is_mounted_unless_told_not_to(rds: Simulator) -> None:
    await rds.run(ADD.replace("mount-filesystem=no", "mount-filesystem=yes"))
    assert await shown(rds) == {"fs": "", "mounted": False}
    format_disk(rds, "xfs")
    await rds.reboot()
    assert await shown(rds) == {"fs": "xfs", "mounted": True, "mount-point": "a"}
    await rds.run("/disk/set a mount-filesystem=no")
    assert await shown(rds) == {"fs": "xfs", "mounted": False}


@pytest.mark.parametrize(("quirk", "shown"), [("absent", None), ("zero", 0), ("kept", GIB)])
async def test_a_disk_whose_file_is_out_of_reach(
    rds: Simulator, quirk: str, shown: int | None
) -> None:
    """As between a boot and the mount of its pool, which may come up late."""
    rds.quirks.set("size-without-file", quirk)
    await rds.run("/disk/add type=file slot=a file-path=raid10/a.img file-size=1G")
    await rds.unmount_pool("raid10")
    await rds.reboot()
    query = "[:serialize to=json value=[/disk/print as-value proplist=slot,size where slot=a]]"
    [disk] = json.loads(await rds.run(f":put {query}"))
    assert disk.get("size") == shown
    assert (await rds.run(":put [:len [/disk/find where slot=a size>0]]")).strip() == (
        "1" if shown else "0"
    )
    kind = (await rds.run(":put [:typeof [:tonum [/disk/get a size]]]")).strip()
    assert (kind == "num") == (shown is not None)
    await rds.mount_pool("raid10")
    [disk] = json.loads(await rds.run(f":put {query}"))
    assert disk["size"] == GIB


async def test_an_unmounted_pool(rds: Simulator) -> None:
    await rds.run(f"{ADD} nvme-tcp-export=yes")
    await rds.unmount_pool("raid10")
    assert rds.exported == set()
    assert await read(rds, '/disk/print as-value where mount-point="raid10"') == []
    (pool,) = await read(rds, "/disk/print detail as-value where slot=raid10")
    assert pool["mounted"] is False
    assert "free" not in pool
    assert await rds.run(":put [:typeof [/disk/get raid10 free]]") == "nothing\r\n"
    assert await read(rds, '/file/print as-value where name="raid10/csi/a.img"') == []
    # What is written now lands on the small internal storage.
    outcome = await rds.run(ADD.replace("slot=a", "slot=b").replace("csi/a", "b"))
    assert "directory" in outcome
    await rds.run("/file/add name=raid10 type=directory")
    line = "/disk/add type=file slot=b file-path=raid10/b.img file-size="
    assert "space" in await rds.run(f"{line}1G")
    assert await rds.run(f"{line}1M") == ""
    await rds.mount_pool("raid10")
    assert rds.exported == {"a"}
    assert await read(rds, '/file/print as-value where name="raid10/b.img"') == []


async def add_exported(rds: Simulator, *slots: str) -> None:
    for slot in slots:
        line = f"/disk/add type=file slot={slot} file-path=raid10/{slot}.img file-size=1M "
        assert await rds.run(line + "mount-filesystem=no nvme-tcp-export=yes") == ""


@pytest.mark.looptime
async def test_after_a_boot_exports_come_up_one_by_one(tmp_path: Path) -> None:
    rds = Simulator(tmp_path)
    rds.quirks.export_spacing = 60.0
    await add_exported(rds, "a", "b", "c", "d")
    await rds.device.shut_down()
    assert rds.exported == set()
    await rds.device.boot()
    assert (rds.exported, rds.waiting) == ({"a"}, {"b", "c", "d"})
    await asyncio.sleep(59)
    assert rds.exported == {"a"}
    await asyncio.sleep(2)
    assert (rds.exported, rds.waiting) == ({"a", "b"}, {"c", "d"})
    await asyncio.wait_for(rds.exports_up(), 200)
    assert (rds.exported, rds.waiting) == ({"a", "b", "c", "d"}, set())
    await rds.device.shut_down()


@pytest.mark.looptime
async def test_what_happens_to_a_disk_before_its_turn(tmp_path: Path) -> None:
    rds = Simulator(tmp_path)
    rds.quirks.export_spacing = 60.0
    await add_exported(rds, "a", "b", "c", "d", "e", "f")
    await rds.run("/disk/set f nvme-tcp-export=no")
    await rds.device.shut_down()
    await rds.device.boot()
    assert rds.waiting == {"b", "c", "d", "e"}
    # Another property does not bring it forward; turned off and on again, it is exported at once.
    await rds.run("/disk/set e comment=x")
    await rds.run("/disk/set c nvme-tcp-export=no")
    await rds.run("/disk/set d nvme-tcp-export=no; /disk/set d nvme-tcp-export=yes")
    await rds.run("/disk/remove b")
    # Who was not exported before the boot has no turn to wait for, as who is made now has none.
    await rds.run("/disk/set f nvme-tcp-export=yes")
    await add_exported(rds, "g")
    assert (rds.exported, rds.waiting) == ({"a", "d", "f", "g"}, {"e"})
    # A file that is lost holds up nobody.
    rds.path("raid10/e.img").unlink()
    await rds.exports_up()
    assert (rds.exported, rds.waiting) == ({"a", "d", "f", "g"}, set())
    await rds.device.shut_down()


@pytest.mark.looptime
async def test_going_down_again_ends_what_was_coming_up(tmp_path: Path) -> None:
    rds = Simulator(tmp_path)
    await add_exported(rds, "a", "b", "c")
    for _ in range(3):
        await rds.device.shut_down()
        await rds.device.boot()
        assert (rds.exported, rds.waiting) == ({"a"}, {"b", "c"})
    await rds.device.shut_down()
    await asyncio.sleep(1000)
    assert (rds.exported, rds.waiting) == (set(), set())


@pytest.mark.looptime
async def test_a_pool_that_comes_late_brings_its_exports_one_by_one(tmp_path: Path) -> None:
    rds = Simulator(tmp_path)
    await add_exported(rds, "a", "b")
    await rds.unmount_pool("raid10")
    assert rds.exported == set()
    await rds.mount_pool("raid10")
    assert (rds.exported, rds.waiting) == ({"a"}, {"b"})
    await rds.exports_up()
    assert rds.exported == {"a", "b"}
    await rds.device.shut_down()


async def test_a_kind_device_has_all_exports_at_once(rds: Simulator) -> None:
    rds.quirks.export_spacing = 0.0
    await add_exported(rds, "a", "b", "c")
    await rds.reboot()
    assert (rds.exported, rds.waiting) == ({"a", "b", "c"}, set())


async def test_hosts_are_told_the_size_an_export_began_with(rds: Simulator) -> None:
    await add_exported(rds, "a")
    told = rds.namespaces["a"]
    assert told.size == MIB
    await rds.run("/disk/set a file-size=2M")
    await rds.run("/disk/set a nvme-tcp-server-allow-host-name=nqn.host comment=x")
    assert (rds.disks["a"].size, rds.namespaces["a"]) == (2 * MIB, told)
    await rds.run("/disk/set a nvme-tcp-export=no")
    assert rds.namespaces == {}
    await rds.run("/disk/set a nvme-tcp-export=yes")
    again = rds.namespaces["a"]
    assert again.size == 2 * MIB
    assert again.uuid != told.uuid
    assert again.serial != told.serial


async def test_a_kind_device_tells_them_growth_and_keeps_its_identifiers(rds: Simulator) -> None:
    rds.quirks.set("growth", "announced")
    rds.quirks.set("stable-identifiers", "yes")
    await add_exported(rds, "a")
    told = rds.namespaces["a"]
    await rds.run("/disk/set a file-size=2M")
    assert rds.namespaces["a"] == replace(told, size=2 * MIB)
    await rds.reboot()
    assert rds.namespaces["a"] == replace(told, size=2 * MIB)


async def test_what_hosts_discard_is_free_until_the_file_is_gone(rds: Simulator) -> None:
    before = rds.free("raid10")
    await add_exported(rds, "a")
    rds.discard("a", 0, MIB // 4)
    assert rds.free("raid10") == before - 3 * MIB // 4
    # Another size of the file keeps what is known of its holes; its end forgets them.
    await rds.run("/disk/set a file-size=2M")
    assert rds.free("raid10") == before - 2 * MIB + MIB // 4
    await rds.run("/disk/remove a; /file/remove raid10/a.img")
    assert rds.free("raid10") == before
    await add_exported(rds, "a")
    assert rds.free("raid10") == before - MIB


async def test_a_kind_device_keeps_what_is_discarded_for_the_file(rds: Simulator) -> None:
    rds.quirks.set("discards", "kept")
    await add_exported(rds, "a")
    before = rds.free("raid10")
    rds.discard("a", 0, MIB // 2)
    assert rds.free("raid10") == before
