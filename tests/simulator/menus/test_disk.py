"""``/disk`` in the simulator: every habit of RouterOS that has misled a driver."""

import json
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator
from rds_csi.simulator.simulator import TIB
from tests.simulator.reading import read

GIB = 1024**3
ADD = "/disk/add type=file slot=a file-path=raid10/csi/a.img file-size=1G mount-filesystem=no"


async def test_add_is_silent_and_its_value_is_the_id(rds: Simulator) -> None:
    assert await rds.run(ADD) == ""
    other = ADD.replace("slot=a", "slot=b").replace("a.img", "b.img")
    assert await rds.run(f":put [{other}]") == "*3\r\n"
    assert [row[".id"] for row in await read(rds, "/disk/print as-value")] == ["*1", "*2", "*3"]


async def test_ids_are_never_used_twice(rds: Simulator) -> None:
    await rds.run(ADD)
    await rds.run("/disk/remove a")
    assert await rds.run(f":put [{ADD}]") == "*3\r\n"


async def test_defaults_of_a_file_disk(rds: Simulator) -> None:
    await rds.run("/disk/add type=file slot=a file-path=raid10/csi/a.img file-size=1G")
    (row,) = await read(rds, "/disk/print detail as-value where slot=a")
    # RouterOS mounts what it finds inside a disk unless told not to.
    assert row["mount-filesystem"] is True
    assert row["nvme-tcp-export"] is False
    assert row["nvme-tcp-server-port"] == 4420
    assert row["nvme-tcp-server-nqn"] == ""
    assert row["nvme-tcp-server-allow-host-name"] == ""
    assert row["size"] == row["file-size"] == GIB
    assert row["type"] == "file"
    assert row["sector-size"] == 512
    assert "comment" not in row
    assert "status" not in row


async def test_path_has_a_slash_in_disk_and_none_in_file(rds: Simulator) -> None:
    await rds.run(ADD)
    (disk,) = await read(rds, "/disk/print detail as-value where slot=a")
    assert disk["file-path"] == disk["model"] == "/raid10/csi/a.img"
    assert await read(rds, '/disk/print as-value where file-path="raid10/csi/a.img"') == []
    (file,) = await read(rds, '/file/print detail as-value where name="raid10/csi/a.img"')
    assert file["size"] == GIB
    assert await read(rds, '/file/print as-value where name="/raid10/csi/a.img"') == []


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("1T", 2**40),
        ("2G", 2 * GIB),
        ("5M", 5 * 2**20),
        ("7K", 7168),
        ("1073741824", GIB),
        ("1500", 1500),
        ("1GiB", GIB),
    ],
)
async def test_suffixes_of_file_size_are_binary(tmp_path: Path, given: str, size: int) -> None:
    rds = Simulator(tmp_path, pools={"raid10": 2 * TIB})
    await rds.run(f"/disk/add type=file slot=a file-path=raid10/a.img file-size={given}")
    assert rds.disks["a"].size == rds.path("raid10/a.img").stat().st_size == size


async def test_space_is_taken_at_once_though_the_file_is_sparse(rds: Simulator) -> None:
    await rds.run(ADD)
    assert rds.free("raid10") == 15 * GIB
    assert rds.path("raid10/csi/a.img").stat().st_blocks == 0
    (pool,) = await read(rds, '/disk/print detail as-value where mount-point="raid10"')
    assert (pool["size"], pool["free"]) == (16 * GIB, 15 * GIB)
    rds.quirks.preallocate = False
    assert rds.free("raid10") == 16 * GIB


async def test_a_full_pool_refuses(rds: Simulator) -> None:
    assert "space" in await rds.run(ADD.replace("1G", "17G"))
    assert rds.disks == {}
    assert rds.files == {"raid10": None, "raid10/csi": None}
    rds.fill_pool("raid10", free=GIB - 1)
    assert "space" in await rds.run(ADD)
    rds.fill_pool("raid10", free=GIB)
    assert await rds.run(ADD) == ""
    assert rds.free("raid10") == 0
    assert "space" in await rds.run("/disk/set a file-size=2G")
    assert rds.disks["a"].size == GIB


async def test_remove_leaves_the_file(rds: Simulator) -> None:
    await rds.run(ADD)
    assert await rds.run("/disk/remove a") == ""
    assert rds.disks == {}
    assert rds.files["raid10/csi/a.img"] == GIB
    assert rds.free("raid10") == 15 * GIB
    assert await rds.run('/file/remove [find where name="raid10/csi/a.img"]') == ""
    assert rds.free("raid10") == 16 * GIB


async def test_an_existing_file_is_taken_over_with_its_content(rds: Simulator) -> None:
    rds.path("raid10/csi/a.img").write_bytes(b"somebody's data")
    assert await rds.run(ADD) == ""
    assert rds.path("raid10/csi/a.img").read_bytes()[:15] == b"somebody's data"
    assert any("existed already" in hazard for hazard in rds.device.hazards)


async def test_without_file_size_an_existing_file_is_attached(rds: Simulator) -> None:
    missing = await rds.run("/disk/add type=file slot=a file-path=raid10/csi/a.img")
    assert missing.startswith("failure: no such file")
    rds.path("raid10/csi/a.img").write_bytes(b"x" * 4096)
    assert await rds.run("/disk/add type=file slot=a file-path=/raid10/csi/a.img") == ""
    assert rds.disks["a"].size == 4096


async def test_missing_folder(rds: Simulator) -> None:
    line = ADD.replace("csi/", "new/")
    assert "no such directory" in await rds.run(line)
    assert rds.disks == {}
    rds.quirks.create_directories = True
    assert await rds.run(line) == ""
    assert rds.files["raid10/new/a.img"] == GIB


@pytest.mark.parametrize("path", ["raid10/../a.img", "/", "", "raid10//a", "..", "raid10/./a"])
async def test_paths_that_lead_astray_are_refused(rds: Simulator, path: str) -> None:
    output = await rds.run(f'/disk/add type=file slot=a file-path="{path}" file-size=1M')
    assert "bad file name" in output
    assert rds.disks == {}


async def test_duplicate_slot(rds: Simulator) -> None:
    await rds.run(ADD)
    assert "already" in await rds.run(ADD.replace("a.img", "b.img"))
    assert "raid10/csi/b.img" not in rds.files
    await rds.run(ADD.replace("slot=a", "slot=b").replace("a.img", "b.img"))
    assert "already" in await rds.run("/disk/set b slot=a")
    assert await rds.run("/disk/set b slot=c") == ""
    assert sorted(rds.disks) == ["a", "c"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("type=bogus", "input does not match any value of type (/disk/add (type); line 1)"),
        ("nvme-tcp-export=maybe", "input does not match any value of nvme-tcp-export"),
        ("nvme-tcp-server-port=x", "value of nvme-tcp-server-port contains invalid trailing"),
        ("nvme-tcp-server-port=70000", "value of nvme-tcp-server-port out of range (1..65535)"),
        ("file-size=1X", "value of file-size contains invalid trailing characters"),
        ("file-size=-1", "value of file-size contains invalid trailing characters"),
        ("compress=yes", "compression only available for btrfs"),
    ],
)
async def test_bad_values_are_runtime_errors(rds: Simulator, arguments: str, text: str) -> None:
    base = f"/disk/add slot=a file-path=raid10/csi/a.img {arguments}"
    line = base if "type=" in arguments else f"{base} type=file"
    assert (await rds.run(line)).startswith(text)
    assert rds.journal.execs[-1].outcome == "runtime-error"
    assert rds.disks == {}


async def test_type_is_fixed_and_pools_stay(rds: Simulator) -> None:
    await rds.run(ADD)
    assert "type" in await rds.run("/disk/set a type=raid")
    assert "failure" in await rds.run("/disk/remove raid10")
    assert "failure" in await rds.run("/disk/set raid10 nvme-tcp-export=yes")
    assert await rds.run("/disk/set raid10 comment=precious") == ""
    assert (await read(rds, "/disk/print as-value where slot=raid10"))[0]["comment"] == "precious"


async def test_copy_from_copies_settings_and_no_data(rds: Simulator) -> None:
    await rds.run(f"{ADD} nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:a comment=original")
    rds.path("raid10/csi/a.img").write_bytes(b"data")
    line = "/disk/add copy-from=a slot=b file-path=raid10/csi/b.img file-size=1G"
    assert await rds.run(line) == ""
    copy = rds.disks["b"]
    assert copy.properties["nvme-tcp-server-nqn"] == "nqn.2000-02.com.mikrotik:a"
    assert copy.properties["comment"] == "original"
    assert rds.path("raid10/csi/b.img").read_bytes()[:4] == b"\0\0\0\0"


async def test_monitor_traffic_once(rds: Simulator) -> None:
    output = await rds.run("/disk/monitor-traffic raid10 once")
    lines = output.split("\r\n")
    assert lines[0] == "                  slot:          raid10"
    assert lines[2] == "   read-ops-per-second:               0"
    assert lines[4] == "             read-rate:            0bps"


async def test_passwords_are_hidden(rds: Simulator) -> None:
    await rds.run(f"{ADD} nvme-tcp-server-password=hunter2")
    assert "hunter2" not in await rds.run("/disk/print detail")
    assert "hunter2" not in json.dumps(await read(rds, "/disk/print detail as-value"))
