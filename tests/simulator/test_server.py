"""The simulator over real SSH: logins, channels, quirks and faults."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncssh
import pytest

from rds_csi.simulator import Simulator

GIB = 1024**3
ADD = "/disk/add type=file slot=a file-path=raid10/a.img file-size=1M"
KEY = asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    keys = [KEY.convert_to_public()]
    async with Simulator(tmp_path / "rds", authorized_keys=keys) as simulator:
        yield simulator


async def connect(
    rds: Simulator,
    *,
    key: asyncssh.SSHKey = KEY,
    user: str = "csi",
    keepalive: float = 0,
    password: str | None = None,
) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        rds.address,
        rds.port,
        username=user,
        client_keys=[key] if key else [],
        password=password,
        known_hosts=([rds.host_key], [], []),
        config=None,
        agent_path=None,
        keepalive_interval=keepalive,
        keepalive_count_max=2,
    )


@pytest.fixture
async def client(rds: Simulator) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with await connect(rds) as connection:
        yield connection


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the server does in its own time."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the server's counters are no events)
            await asyncio.sleep(0.005)


async def run(client: asyncssh.SSHClientConnection, line: str) -> asyncssh.SSHCompletedProcess:
    return await client.run(line, encoding=None)


async def output(client: asyncssh.SSHClientConnection, line: str) -> bytes:
    result = await run(client, line)
    assert result.stderr == b""
    assert isinstance(result.stdout, bytes)
    return result.stdout


async def test_all_text_is_on_stdout_and_the_status_is_0(
    client: asyncssh.SSHClientConnection,
) -> None:
    for line, text in (
        (":put hello", b"hello\r\n"),
        ("/nope", b"bad command name nope (line 1 column 2)\n"),
        ("/disk/get none", b"no such item (/disk/get; line 1)\n"),
    ):
        result = await run(client, line)
        assert (result.stdout, result.stderr, result.exit_status) == (text, b"", 0)


async def test_exit_status_is_a_quirk(rds: Simulator, client: asyncssh.SSHClientConnection) -> None:
    rds.quirks.exit_status = 1
    assert (await run(client, "/nope")).exit_status == 1
    assert (await run(client, "/disk/get none")).exit_status == 1
    assert (await run(client, ":put fine")).exit_status == 0
    assert (await run(client, ":onerror e in={ :error x } do={}")).exit_status == 0


async def test_bytes_beyond_ascii_pass(client: asyncssh.SSHClientConnection) -> None:
    assert await output(client, ':put "é\\E2\\9C\\85"') == "é✅\r\n".encode()


async def test_only_authorized_keys_log_in(rds: Simulator) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(rds, key=stranger)
    rds.authorize(stranger.export_public_key().decode())
    async with await connect(rds, key=stranger) as client:
        assert await output(client, ":put in") == b"in\r\n"


async def test_rsa_keys_log_in(rds: Simulator) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    rds.authorize(key.convert_to_public())
    async with await connect(rds, key=key) as client:
        assert await output(client, ":put in") == b"in\r\n"


async def test_passwords_are_not_asked_for(rds: Simulator) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(rds, key=stranger, password="x")


async def test_the_host_key_can_be_given_and_pinned(tmp_path: Path) -> None:
    host = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    other = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    keys = [KEY.convert_to_public()]
    async with Simulator(tmp_path, host_key=host, authorized_keys=keys) as rds:
        assert rds.host_key_line.startswith("ssh-rsa ")
        async with await connect(rds) as client:
            assert await output(client, ":put in") == b"in\r\n"
        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            await asyncssh.connect(
                rds.address,
                rds.port,
                username="csi",
                client_keys=[KEY],
                known_hosts=([other.convert_to_public()], [], []),
                config=None,
                agent_path=None,
            )


async def test_the_width_may_stand_in_the_login_name(rds: Simulator) -> None:
    async with await connect(rds, user="csi+ct400w") as client:
        wide = await output(client, "/disk/print detail")
    async with await connect(rds) as client:
        narrow = await output(client, "/disk/print detail")
    assert max(map(len, wide.split(b"\r\n"))) > 80 >= max(map(len, narrow.split(b"\r\n")))


async def test_the_journal_counts_and_shows_what_was_parsed_and_run(
    rds: Simulator, client: asyncssh.SSHClientConnection
) -> None:
    start = rds.journal.count
    await run(client, f':if (1=1) do={{ {ADD} comment="$(1+1)" }} else={{ /disk/remove a }}')
    await run(client, "/disk/add nope=1")
    first, second = rds.execs(start)
    assert first.parsed == [":if", "/disk/add", "/disk/remove"]
    assert [(entry.name, entry.arguments["comment"]) for entry in first.executed] == [
        ("/disk/add", "2")
    ]
    assert (first.outcome, second.outcome) == ("ok", "parse-error")
    assert second.executed == []
    assert second.output == "expected end of command (line 1 column 11)\n"
    assert rds.journal.commands["/disk/add"] == 1
    assert rds.journal.count == start + 2


async def test_drop_before_means_it_never_happened(
    rds: Simulator, client: asyncssh.SSHClientConnection
) -> None:
    rds.faults.add("drop-before", match="/disk/add")
    await output(client, ":put unharmed")
    result = await run(client, ADD)
    assert result.exit_status is None
    assert rds.disks == {}
    assert rds.execs()[-1].outcome == "dropped"
    async with await connect(rds) as again:
        assert await output(again, ADD) == b""
    assert list(rds.disks) == ["a"]


async def test_drop_after_means_it_happened(
    rds: Simulator, client: asyncssh.SSHClientConnection
) -> None:
    rds.faults.add("drop-after", match="/disk/add")
    result = await run(client, ADD)
    assert (result.exit_status, result.stdout) == (None, b"")
    assert list(rds.disks) == ["a"]
    assert rds.execs()[-1].fault == "drop-after"


@pytest.mark.parametrize(("kind", "happened"), [("stall-before", False), ("stall-after", True)])
async def test_stalls(
    rds: Simulator, client: asyncssh.SSHClientConnection, kind: str, happened: bool
) -> None:
    rds.faults.add(kind)  # type: ignore[arg-type] # a Literal, from the parameters
    async with client.create_process(ADD, encoding=None) as process:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await process.stdout.read()
        assert bool(rds.disks) is happened
    # The connection lives, and so do other channels.
    assert await output(client, ":put next") == b"next\r\n"


async def test_replies_can_be_spoiled(rds: Simulator, client: asyncssh.SSHClientConnection) -> None:
    rds.faults.add("garbage")
    assert b"interrupted" in await output(client, ":put good")
    rds.faults.add("garbage", text="so bad")
    assert await output(client, ":put good") == b"so bad"
    rds.faults.add("invalid-utf8")
    assert await output(client, ":put good") == b"good\xff\r\n"
    rds.faults.add("truncate")
    assert await output(client, ":put goodness") == b"goodn"
    rds.faults.add("no-exit-status")
    result = await run(client, ":put good")
    assert (result.stdout, result.exit_status) == (b"good\r\n", None)
    assert await output(client, ":put good") == b"good\r\n"


async def test_a_command_can_be_made_to_fail(
    rds: Simulator, client: asyncssh.SSHClientConnection
) -> None:
    rds.faults.add("runtime-error", command="/disk/set", text="failure: no luck")
    line = f":onerror e in={{ {ADD}; /disk/set a comment=x }} do={{ :put $e }}"
    assert await output(client, line) == b"failure: no luck\r\n"
    assert list(rds.disks) == ["a"]
    assert "comment" not in rds.disks["a"].properties
    rds.faults.add("runtime-error")
    assert await output(client, "/disk/print") == b"action failed (6) (/disk/print; line 1)\n"
    # Only once another was run in the same exec: the first of two alike passes.
    twice = ":put [/disk/find]; /disk/set a comment=x; :put [/disk/find]"
    rds.faults.add("runtime-error", command="/disk/find", after="/disk/set", text="too late")
    said = await output(client, f":onerror e in={{ {twice} }} do={{ :put $e }}")
    assert said.splitlines()[-1] == b"too late"
    assert rds.disks["a"].properties["comment"] == "x"


async def test_faults_strike_where_and_as_often_as_told(
    rds: Simulator, client: asyncssh.SSHClientConnection
) -> None:
    rds.faults.add("garbage", match="x$", skip=1, count=2, text="!")
    seen = [await output(client, f":put {word}") for word in ("x", "y", "x", "x", "x")]
    assert seen == [b"x\r\n", b"y\r\n", b"!", b"!", b"x\r\n"]
    rds.faults.add("garbage", count=0, text="!")
    assert [await output(client, ":put x") for _ in range(3)] == [b"!"] * 3
    rds.faults.clear()
    assert await output(client, ":put x") == b"x\r\n"


async def test_authentication_can_be_refused(rds: Simulator) -> None:
    rds.faults.refuse_auth = True
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(rds)
    rds.faults.refuse_auth = False
    async with await connect(rds) as client:
        assert await output(client, ":put in") == b"in\r\n"


async def test_latency(rds: Simulator, client: asyncssh.SSHClientConnection) -> None:
    rds.quirks.latency = 0.2
    loop = asyncio.get_running_loop()
    before = loop.time()
    await output(client, ":put x")
    assert loop.time() - before >= 0.2


async def test_too_many_connections_are_turned_away(rds: Simulator) -> None:
    rds.quirks.maximum_sessions = 1
    async with await connect(rds):
        with pytest.raises((asyncssh.Error, OSError)):
            await connect(rds)
    await until(lambda: not rds.server.connections)
    async with await connect(rds) as client:
        assert await output(client, ":put in") == b"in\r\n"


async def test_too_many_channels_hang(rds: Simulator, client: asyncssh.SSHClientConnection) -> None:
    rds.quirks.maximum_channels = 1
    rds.faults.add("stall-before", match="first")
    async with client.create_process(":put first", encoding=None):
        await until(lambda: rds.journal.count)
        async with client.create_process(":put second", encoding=None) as second:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await second.stdout.read()
    assert rds.journal.count == 1


@pytest.mark.parametrize(("quirk", "alive"), [("answer", True), ("refuse", True), ("hang", False)])
async def test_keepalive(rds: Simulator, quirk: str, alive: bool) -> None:
    rds.quirks.set("keepalive", quirk)
    client = await connect(rds, keepalive=0.1)
    rds.faults.add("stall-before", count=0)
    async with client.create_process(":put x", encoding=None) as process:
        try:
            async with asyncio.timeout(1.0):
                await process.wait()
            ended = True
        except (TimeoutError, asyncssh.Error):
            ended = client.is_closed()
    assert ended is not alive
    client.abort()
    await client.wait_closed()


async def test_a_session_without_a_command_is_refused(
    client: asyncssh.SSHClientConnection,
) -> None:
    result = await client.run(encoding=None)
    assert result.exit_status == 1
    assert b"not simulated" in (result.stdout or b"")


async def test_waiting_for_input_ends_with_the_channel(
    rds: Simulator, client: asyncssh.SSHClientConnection
) -> None:
    async with client.create_process("/disk/get", encoding=None) as process:
        async with asyncio.timeout(5):
            assert await process.stdout.read(9) == b"numbers: "
    assert await output(client, ":put next") == b"next\r\n"
    assert rds.execs()[0].outcome == "waiting-for-input"


async def test_reboot(rds: Simulator, client: asyncssh.SSHClientConnection) -> None:
    await run(client, f"{ADD} nvme-tcp-export=yes; :global g 1")
    port, boots = rds.port, rds.device.store.boots
    reboot = asyncio.create_task(rds.reboot(down=0.3))
    await client.wait_closed()
    assert rds.exported == set()
    with pytest.raises(OSError):
        await connect(rds)
    await reboot
    assert rds.exported == {"a"}
    assert (rds.port, rds.device.store.boots) == (port, boots + 1)
    async with await connect(rds) as again:
        assert await output(again, ":put [/disk/get a size]") == b"1048576\r\n"
        assert await output(again, ":global g; :put [:typeof $g]") == b"nothing\r\n"


async def test_ssh_can_go_and_come_back_alone(rds: Simulator) -> None:
    async with await connect(rds) as client:
        await run(client, f"{ADD} nvme-tcp-export=yes")
        rds.server.drop_connections()
        await client.wait_closed()
    await rds.server.stop()
    with pytest.raises(OSError):
        await connect(rds)
    assert rds.exported == {"a"}
    await rds.server.start(rds.address, 0)
    async with await connect(rds) as client:
        assert await output(client, ":put back") == b"back\r\n"


async def test_a_command_goes_on_though_its_channel_closed(rds: Simulator) -> None:
    async with await connect(rds) as client:
        async with client.create_process(f":delay 200ms; {ADD}", encoding=None):
            await until(lambda: rds.journal.count)
        assert rds.disks == {}
        await until(lambda: rds.disks)


async def test_many_channels_at_once(client: asyncssh.SSHClientConnection) -> None:
    results = await asyncio.gather(*(output(client, f":put {n}") for n in range(20)))
    assert results == [f"{n}\r\n".encode() for n in range(20)]
