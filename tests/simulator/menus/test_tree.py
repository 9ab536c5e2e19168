"""Which version of RouterOS knows what, and who runs between two commands of a line."""

import asyncio
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator
from rds_csi.simulator.simulator import parse_version

ADD = "/disk/add type=file slot=a file-path=raid10/a.img file-size=1M"
DISK = "/disk/add type=file slot=a file-path=raid10/csi/a.img file-size=1G mount-filesystem=no"
SERIALIZE = ":put [:serialize to=json value=1]"


@pytest.mark.parametrize(
    ("line", "since"),
    [
        (":onerror e in={} do={}", "7.13"),
        (SERIALIZE, "7.13"),
        (SERIALIZE.replace("=1", "=1 options=json.pretty"), "7.16"),
        (SERIALIZE.replace("=1", "=1 options=json.no-string-conversion"), "7.17"),
        (ADD, "7.17"),
        ("/disk/set [find slot=none] mount-filesystem=no", "7.17"),
        ("/disk/set [find slot=none] compress=no", "7.18"),
        ("/disk/set [find slot=none] nvme-tcp-server-nqn=x", "7.21"),
        ('/disk/print where nvme-tcp-server-nqn="x"', "7.21"),
        (":onerror e in={ /file/copy a name=b } do={}", "7.23"),
    ],
)
async def test_a_version_before_kills_the_whole_line(tmp_path: Path, line: str, since: str) -> None:
    major, minor = parse_version(since)
    new = Simulator(tmp_path / "new", version=since)
    await new.run(f":put ran; {line}")
    assert new.journal.execs[-1].outcome == "ok"
    old = Simulator(tmp_path / "old", version=f"{major}.{minor - 1}")
    output = await old.run(f":put ran; {line}")
    assert old.journal.execs[-1].outcome == "parse-error"
    assert "ran" not in output
    assert "(line 1 column " in output


async def test_file_add_lost_copy_from(tmp_path: Path) -> None:
    line = ":onerror e in={ /file/add name=x copy-from=y } do={}"
    for version, outcome in (("7.17", "ok"), ("7.18", "parse-error")):
        rds = Simulator(tmp_path / version, version=version)
        await rds.run(line)
        assert rds.journal.execs[-1].outcome == outcome


@pytest.mark.parametrize(("version", "has"), [("7.19", False), ("7.20", True)])
async def test_flags_are_in_as_value_since_7_20(tmp_path: Path, version: str, has: bool) -> None:
    rds = Simulator(tmp_path, version=version)
    query = ":put [:serialize to=json value=[/disk/print detail as-value where mounted]]"
    assert ('"mounted":true' in await rds.run(query)) is has


@pytest.mark.parametrize(("version", "form"), [("7.20", "*"), ("7.21", "**")])
async def test_file_ids_changed_in_7_21(tmp_path: Path, version: str, form: str) -> None:
    rds = Simulator(tmp_path, version=version)
    output = await rds.run(":put [:pick [/file/find] 0]")
    assert output.rstrip("0123456789ABCDEF\r\n") == form


@pytest.mark.parametrize(("version", "shown"), [("7.20", True), ("7.21", False)])
async def test_secrets_are_hidden_since_7_21(tmp_path: Path, version: str, shown: bool) -> None:
    rds = Simulator(tmp_path, version=version)
    await rds.run(f"{ADD} nvme-tcp-server-password=hunter2")
    query = ":put [:serialize to=json value=[/disk/print detail as-value]]"
    assert ("hunter2" in await rds.run(query)) is shown


async def test_interleaving_lets_other_lines_in(rds: Simulator) -> None:
    await rds.run(DISK)
    line = (
        ':if ([/disk/get a comment] = "") do={ /disk/set a comment=NAME; :put won } '
        "else={ :put lost }"
    )
    both = [line.replace("NAME", name) for name in ("x", "y")]
    outcomes = await asyncio.gather(*(rds.run(text) for text in both))
    assert sorted(outcomes) == ["lost\r\n", "won\r\n"]
    await rds.run('/disk/set a comment=""')
    rds.quirks.interleave = True
    outcomes = await asyncio.gather(*(rds.run(text) for text in both))
    assert outcomes == ["won\r\n", "won\r\n"]
