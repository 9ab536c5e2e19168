"""``/system`` in the simulator: resource, package, identity."""

from pathlib import Path

from rds_csi.simulator import Simulator
from tests.simulator.reading import read

GIB = 1024**3


async def test_internal_storage_is_small(rds: Simulator) -> None:
    assert await rds.run('/file/add name=note.txt contents="x"') == ""
    assert rds.files["note.txt"] == 1
    resource = await read(rds, "/system/resource/print as-value")
    assert resource["free-hdd-space"] == resource["total-hdd-space"] - 1
    line = "/disk/add type=file slot=f file-path=big.img file-size=1G"
    assert "space" in await rds.run(line)


async def test_resource(rds: Simulator) -> None:
    resource = await read(rds, "/system/resource/print as-value")
    assert resource["version"] == "7.24.2 (stable)"
    assert resource["board-name"].startswith("RDS2216")
    assert resource["uptime"].startswith("00:00:0")
    assert await rds.run(":put [/system/resource/get version]") == "7.24.2 (stable)\r\n"
    wrong = await rds.run(":put [/system/resource/get nope]")
    assert wrong == (
        "input does not match any value of value-name (/system/resource/get (value-name); line 1)\n"
    )
    text = await rds.run("/system resource print")
    assert "            version: 7.24.2 (stable)\r\n" in text


async def test_packages(rds: Simulator, tmp_path: Path) -> None:
    query = '/system/package/print detail as-value where name="rose-storage"'
    (row,) = await read(rds, query)
    assert row["version"] == "7.24.2"
    bare = Simulator(tmp_path / "bare", rose_storage=False)
    assert await read(bare, query) == []
    refused = await bare.run("/disk/set x nvme-tcp-export=yes")
    assert refused == "expected end of command (line 1 column 13)\n"


async def test_identity(rds: Simulator) -> None:
    assert await rds.run("/system/identity/set name=lab") == ""
    assert await rds.run("/system/identity/print") == "  name: lab\r\n"
    assert await rds.run(":put [/system/identity/get name]") == "lab\r\n"
