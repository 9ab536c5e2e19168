"""The control socket, in this process; in one of its own it is in ``test_command.py``."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rds_csi.simulator import Simulator
from rds_csi.simulator.control import Control, ControlServer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


@pytest.fixture
async def rds(tmp_path: Path, path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds", pools={"raid10": 2**34}) as simulator:
        server = ControlServer(simulator, path)
        await server.start()
        yield simulator
        await server.stop()


async def do(path: Path, act: str, **arguments: Any) -> Any:
    """As a test in another process does it."""

    def ask() -> Any:
        with Control(path, timeout=10) as control:
            return control.do(act, **arguments)

    return await asyncio.to_thread(ask)


async def test_several_requests_of_one_client_are_answered_in_order(
    rds: Simulator, path: Path
) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    requests = [{"do": "run", "with": {"line": f":put {n}"}} for n in range(3)]
    writer.write(b"".join(json.dumps(each).encode() + b"\n" for each in requests))
    answers = [json.loads(await reader.readline()) for _ in requests]
    assert answers == [{"ok": f"{n}\r\n"} for n in range(3)]
    writer.close()


async def test_a_mistake_names_itself_and_leaves_the_connection_usable(
    rds: Simulator, path: Path
) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    for request, said in (
        (b'{"do": "nope"}', "KeyError"),
        (b"{", "JSONDecodeError"),
        (b'{"do": "quirk", "with": {"name": "nope", "value": 1}}', "unknown quirk"),
        (b'{"do": "fault", "with": {"kind": "garbage", "when": 1}}', "TypeError"),
    ):
        writer.write(request + b"\n")
        assert said in json.loads(await reader.readline())["error"]
    writer.write(b'{"do": "run", "with": {"line": ":put still"}}\n')
    assert json.loads(await reader.readline()) == {"ok": "still\r\n"}
    writer.close()


def planned(rds: Simulator) -> tuple[int, bool]:
    """How many faults wait, and whether every key is refused."""
    return len(rds.faults.pending), rds.faults.refuse_auth


async def test_acts_reach_the_device(rds: Simulator, path: Path) -> None:
    await do(path, "quirk", name="slot-limit", value=32)
    assert rds.quirks.slot_limit == 32
    await do(path, "fault", kind="garbage", match="/disk", count=0)
    [fault] = rds.faults.pending
    assert (fault.kind, fault.match, fault.count) == ("garbage", "/disk", 0)
    await do(path, "refuse-auth")
    assert planned(rds) == (1, True)
    await do(path, "clear-faults")
    assert planned(rds) == (0, False)
    await do(path, "make-directory", name="raid10/csi")
    assert "raid10/csi" in rds.files
    await do(path, "fill-pool", pool="raid10", free=5)
    assert rds.free("raid10") == 5
    await rds.run("/disk/add type=file slot=a file-path=raid10/a.img file-size=5")
    await do(path, "discard", slot="a", offset=0, length=3)
    assert rds.free("raid10") == 3
    await do(path, "quirk", name="kind-target", value="yes")
    assert rds.quirks.growth == "announced"
    await do(path, "version", version="7.20")
    assert await do(path, "run", line=":put [/system/resource/get version]") == "7.20 (stable)\r\n"


async def test_the_status_says_what_there_is(rds: Simulator, path: Path) -> None:
    await rds.run(
        "/disk/add type=file slot=a file-path=raid10/a.img file-size=1M nvme-tcp-export=yes "
        'nvme-tcp-server-nqn="nqn.x:a"'
    )
    status = await do(path, "status")
    assert status["exported"] == ["a"]
    assert status["nqns"] == ["nqn.x:a"]
    assert status["waiting"] == []
    told = rds.namespaces["a"]
    assert status["namespaces"] == {"a": {"size": 2**20, "uuid": told.uuid, "serial": told.serial}}
    assert status["disks"]["a"]["size"] == 2**20
    assert status["files"]["raid10/a.img"] == 2**20
    assert status["host_key"] == rds.host_key_line
    assert (status["execs"], status["port"]) == (rds.journal.count, rds.port)


async def test_the_status_says_what_is_still_to_come_up(rds: Simulator, path: Path) -> None:
    rds.quirks.export_spacing = 3600
    for slot in ("a", "b", "c"):
        line = f"/disk/add type=file slot={slot} file-path=raid10/{slot}.img file-size=1M"
        await rds.run(f"{line} nvme-tcp-export=yes")
    await do(path, "reboot")
    status = await do(path, "status")
    assert (status["exported"], status["waiting"]) == (["a"], ["b", "c"])
    assert list(status["namespaces"]) == ["a"]


@pytest.fixture
def left(path: Path) -> Callable[[], int | None]:
    """A file stands in the way, as a killed simulator leaves it; the mode of what stands there."""
    path.write_text("left")

    def mode() -> int | None:
        return stat.S_IMODE(path.stat().st_mode) if path.exists() else None

    return mode


async def test_a_socket_of_an_earlier_run_is_replaced_and_none_is_left(
    tmp_path: Path, path: Path, left: Callable[[], int | None]
) -> None:
    async with Simulator(tmp_path / "rds") as simulator:
        server = ControlServer(simulator, path)
        await server.start()
        assert left() == 0o600
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"do": "run", "with": {"line": ":put 1"}}\n')
        assert json.loads(await reader.readline()) == {"ok": "1\r\n"}
        await server.stop()
        assert left() is None
        async with asyncio.timeout(10):
            assert await reader.read() == b"", "whoever is connected is hung up on"
        writer.close()


async def test_a_simulator_that_hangs_up_is_an_error(path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path)
    with pytest.raises(RuntimeError, match="the simulator hung up"):
        await do(path, "status")
    server.close()
