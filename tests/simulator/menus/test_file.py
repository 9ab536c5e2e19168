"""``/file`` and ``/system`` in the simulator, and what survives a restart."""

from rds_csi.simulator import Simulator
from tests.simulator.reading import read

GIB = 1024**3


async def test_listing(rds: Simulator) -> None:
    rds.path("raid10/csi/a.img").write_bytes(b"x" * 1000)
    rds.path("raid10/csi/plain").write_bytes(b"")
    rows = await read(rds, "/file/print detail as-value")
    assert [(row["name"], row["type"], row.get("size")) for row in rows] == [
        ("raid10", "disk", None),
        ("raid10/csi", "directory", None),
        ("raid10/csi/a.img", ".img file", 1000),
        ("raid10/csi/plain", "file", 0),
    ]
    assert all(row[".id"].startswith("**") for row in rows)
    assert len({row[".id"] for row in rows}) == 4


async def test_find_by_name_and_by_pattern_agree(rds: Simulator) -> None:
    rds.path("raid10/csi/a.img").write_bytes(b"x")
    by_name = await rds.run(':put [/file/find where name="raid10/csi/a.img"]')
    by_pattern = await rds.run(':put [/file/find where name~"/a\\\\.img\\$"]')
    assert by_name == by_pattern
    assert by_name.startswith("**")
    assert await rds.run(':put [:len [/file/find where name="raid10/csi/a.img" size>5]]') == "0\r\n"


async def test_remove_by_name_id_and_folder(rds: Simulator) -> None:
    for name in ("a", "b", "c/d"):
        rds.path(f"raid10/csi/{name}").parent.mkdir(exist_ok=True)
        rds.path(f"raid10/csi/{name}").write_bytes(b"x")
    assert await rds.run("/file/remove raid10/csi/a") == ""
    assert await rds.run('/file/remove [/file/find where name="raid10/csi/b"]') == ""
    assert await rds.run('/file/remove "raid10/csi/c"') == ""
    assert rds.files == {"raid10": None, "raid10/csi": None}
    assert "no such item" in await rds.run("/file/remove raid10/csi/a")
    assert "failure" in await rds.run("/file/remove raid10")


async def test_add(rds: Simulator) -> None:
    assert await rds.run("/file/add name=raid10/new type=directory") == ""
    assert "already exists" in await rds.run("/file/add name=raid10/new type=directory")
    assert "no such directory" in await rds.run("/file/add name=raid10/x/y type=directory")
    assert await rds.run('/file/add name=raid10/new/t contents="hello"') == ""
    assert rds.path("raid10/new/t").read_bytes() == b"hello"
    assert "already exists" in await rds.run("/file/add name=raid10/new/t")
    assert "any value of type" in await rds.run("/file/add name=raid10/z type=link")
    assert await rds.run('/file/set raid10/new/t contents="hi" name=raid10/new/u') == ""
    assert rds.path("raid10/new/u").read_bytes() == b"hi"
    assert rds.free("raid10") == 16 * GIB - 2


async def test_copy_copies_bytes_and_takes_space(rds: Simulator) -> None:
    await rds.run("/disk/add type=file slot=a file-path=raid10/csi/a.img file-size=1G")
    with rds.path("raid10/csi/a.img").open("r+b") as file:
        file.seek(GIB // 2)
        file.write(b"in the middle")
    assert await rds.run('/file/copy "raid10/csi/a.img" name="raid10/csi/b.img"') == ""
    copy = rds.path("raid10/csi/b.img")
    with copy.open("rb") as file:
        file.seek(GIB // 2)
        assert file.read(13) == b"in the middle"
    assert copy.stat().st_size == GIB
    assert copy.stat().st_blocks < 1000
    assert rds.free("raid10") == 14 * GIB
    assert "already exists" in await rds.run("/file/copy raid10/csi/a.img name=raid10/csi/b.img")
    assert "no such item" in await rds.run("/file/copy raid10/csi/none name=raid10/csi/c.img")
    assert "no such file" in await rds.run("/file/copy raid10/csi name=raid10/csi/c.img")


async def test_names_cannot_leave_the_root(rds: Simulator) -> None:
    for name in ("../out", "raid10/../../out", "/../out"):
        assert "bad file name" in await rds.run(f'/file/add name="{name}" contents=x')
        assert await rds.run(f':put [:len [/file/find where name="{name}"]]') == "0\r\n"
