"""Items in the simulator: how they are referred to, filtered and read."""

import pytest

from rds_csi.simulator import Simulator
from tests.simulator.reading import read

GIB = 1024**3
ADD = "/disk/add type=file slot=a file-path=raid10/csi/a.img file-size=1G mount-filesystem=no"


async def test_empty_find_succeeds_silently(rds: Simulator) -> None:
    await rds.run(ADD)
    for line in (
        "/disk/set [find where slot=none] nvme-tcp-export=yes",
        "/disk/set [find slot=none] comment=x",
        "/disk/remove [find where slot=none]",
        "/disk/remove []",
        "/file/remove [find where name=none]",
    ):
        assert await rds.run(line) == ""
        assert rds.journal.execs[-1].outcome == "ok"
    assert list(rds.disks) == ["a"]


@pytest.mark.parametrize(
    "reference", ["none", '"none"', "*99", "0", '"*2"', "[find where slot=none]"]
)
async def test_get_of_what_is_missing(rds: Simulator, reference: str) -> None:
    await rds.run(ADD)
    output = await rds.run(f":put [/disk/get {reference} slot]")
    assert output == "no such item (/disk/get; line 1)\n"


async def test_set_and_remove_by_a_missing_name_fail(rds: Simulator) -> None:
    assert await rds.run("/disk/set none comment=x") == "no such item (/disk/set; line 1)\n"
    assert await rds.run("/disk/remove none") == "no such item (/disk/remove; line 1)\n"


async def test_item_references(rds: Simulator) -> None:
    await rds.run(ADD)
    for number, reference in enumerate(
        ["a", '"a"', "*2", "[find slot=a]", "[find where slot=a]", "[/disk/find slot=a]"]
    ):
        assert await rds.run(f"/disk/set {reference} comment={number}") == ""
        assert await rds.run(f":put [/disk/get {reference} comment]") == f"{number}\r\n"
    assert await rds.run("/disk/set numbers=a comment=z") == ""
    assert (
        await rds.run(":local d [/disk/find slot=a]; :put [/disk/get ($d->0) comment]") == "z\r\n"
    )
    assert await rds.run(':local s "a"; :put [/disk/get $s comment]') == "z\r\n"


async def test_missing_reference_waits_for_ever(rds: Simulator) -> None:
    for line in ("/disk/get", "/disk/set comment=x", "/disk/remove", "/disk/monitor-traffic once"):
        assert await rds.run(f":put 1; {line}; :put 2") == "1\r\nnumbers: "
        assert rds.journal.execs[-1].outcome == "waiting-for-input"


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("slot=a", True),
        ('slot="a"', True),
        ('slot~"a"', True),
        ('slot~"^a\\$"', True),
        ("slot~b", False),
        (".id=*2", True),
        ('.id="*2"', False),
        ("comment", True),
        ("!comment", False),
        ("comment and slot=a", True),
        ("slot=a type=file", True),
        ("slot=a type=raid", False),
        ("(slot=a or slot=b) and type=file", True),
        ("size>5 and size<=1073741824", True),
        ("size=1073741824", True),
        ('size="1073741824"', True),
        ("nvme-tcp-export=no", True),
        ("!nvme-tcp-export", True),
        ("nvme-tcp-export", False),
        ("mount-filesystem=no !disabled", True),
        ('slot=("" . "a")', True),
        ("slot=[:pick xa 1]", True),
        ('comment="x y"', True),
        ("slot=$name", True),
        ("slot=$slot", True),  # the property, not the variable
        ("slot!=a", False),
    ],
)
async def test_where(rds: Simulator, where: str, found: bool) -> None:
    await rds.run(f'{ADD} comment="x y"')
    line = f":local name a; :local slot none; :put [:len [/disk/find where type=file {where}]]"
    assert await rds.run(line) == f"{int(found)}\r\n"


async def test_bare_as_value_prints_nothing(rds: Simulator) -> None:
    assert await rds.run("/disk/print as-value") == ""
    assert await rds.run("/disk/print detail as-value") == ""
    assert await rds.run(":put [/system/identity/print as-value]") == "name=rds-simulator\r\n"


async def test_plain_as_value_has_brief_columns_only(rds: Simulator) -> None:
    await rds.run(ADD)
    (brief,) = await read(rds, "/disk/print as-value where slot=a")
    (full,) = await read(rds, "/disk/print detail as-value where slot=a")
    assert set(brief) < set(full)
    assert "nvme-tcp-server-nqn" not in brief
    (chosen,) = await read(
        rds, "/disk/print as-value proplist=slot,nvme-tcp-server-port where slot=a"
    )
    assert chosen == {".id": "*2", "slot": "a", "nvme-tcp-server-port": 4420}


async def test_as_value_text_is_not_escaped(rds: Simulator) -> None:
    await rds.run(f'{ADD} comment="x;slot=fake"')
    output = await rds.run(":put [/disk/print as-value proplist=slot,comment where slot=a]")
    assert output == ".id=*2;comment=x;slot=fake;slot=a\r\n"


async def test_count_only(rds: Simulator) -> None:
    assert await rds.run("/disk/print count-only") == "1\r\n"
    assert await rds.run("/disk/print count-only where slot=none") == "0\r\n"
    assert await rds.run(":put [/disk/print count-only as-value]") == "1\r\n"
