"""What asyncssh does that one would not expect (S1 to S12), each with what we make of it."""

import asyncio
import inspect
from pathlib import Path

import asyncssh
import pytest

from rds_csi.errors import (
    DriverError,
    NotAuthorised,
    OutcomeUnknown,
    ReplyTooLong,
    Unavailable,
    UntrustedHostKey,
)
from rds_csi.routeros import connection, exchange
from rds_csi.routeros import session as session_module
from rds_csi.routeros.connection import connect_error
from rds_csi.routeros.session import Session
from tests.unit.fakes.ssh import FakeRds, Gate, Process, key, public_text, succeed, until


async def test_s1_a_connection_lost_mid_command_is_an_unknown_outcome(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.answer = gate = Gate()
        session = Session(rds.settings())
        running = asyncio.create_task(session.execute("x", volume="pvc-1"))
        await gate.entered.wait()
        rds.drop()
        with pytest.raises(OutcomeUnknown, match="volume pvc-1") as caught:
            await running
        assert not caught.value.transient
        assert not session.connected
        await session.close()


async def test_s1_a_reply_cut_before_its_marker_is_an_unknown_outcome(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:

        async def cut(process: Process, nonce: str, command: str) -> None:
            process.stdout.write(b"disk\r\n[]\r\n")
            await process.stdout.drain()
            await asyncio.sleep(0.01)
            rds.drop()

        rds.answer = cut
        session = Session(rds.settings())
        with pytest.raises(OutcomeUnknown, match="without its marker"):
            await session.execute("x")
        await session.close()


async def test_s2_without_exit_status_only_the_marker_is_proof(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:

        async def silent_end(process: Process, nonce: str, command: str) -> None:
            if command.startswith(":onerror e in={ good"):
                process.stdout.write(f"CSI-OK-{nonce}\r\n".encode())
            else:
                process.stdout.write(b"bad command name foo (line 1 column 2)\r\n")
            process.close()

        rds.answer = silent_end
        session = Session(rds.settings())
        assert (await session.execute("good")).lines == ()
        with pytest.raises(OutcomeUnknown, match="connection lost"):
            await session.execute("bad")
        await session.close()


async def test_s3_invalid_utf8_harms_neither_the_reply_nor_the_connection(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        gate = Gate()

        async def answer(process: Process, nonce: str, command: str) -> None:
            if "slow" in command:
                await gate(process, nonce, command)
                return
            process.stdout.write(b"caf\xe9\xff\r\n")
            await succeed(process, nonce, command)

        rds.answer = answer
        session = Session(rds.settings())
        slow = asyncio.create_task(session.execute("slow"))
        await gate.entered.wait()
        assert (await session.execute("x")).lines == ("caf\ufffd\ufffd",)
        gate.open.set()
        await slow
        assert session.statistics.connects == 1
        await session.close()


async def test_s4_an_incomplete_last_character_is_not_dropped(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:

        async def answer(process: Process, nonce: str, command: str) -> None:
            process.stdout.write(b"half \xe2\x82")
            process.exit(0)

        rds.answer = answer
        session = Session(rds.settings())
        with pytest.raises(OutcomeUnknown, match="half \ufffd"):
            await session.execute("x")
        await session.close()


async def test_s5_a_cancelled_command_closes_its_channel_at_once(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        closed = asyncio.Event()

        async def endless(process: Process, nonce: str, command: str) -> None:
            await process.wait_closed()
            closed.set()

        rds.answer = endless
        session = Session(rds.settings(channels=1))
        running = asyncio.create_task(session.execute("x"))
        await until(lambda: rds.commands)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(closed.wait(), 5)
        await until(lambda: not session.statistics.running)
        rds.answer = succeed
        await session.execute("y")
        assert session.statistics.connects == 1
        await session.close()


async def test_s5_one_cancelled_while_its_channel_opens_leaves_none_behind(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings(channels=1))
        await session.execute("first")
        cancelled = asyncio.create_task(session.execute("second"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await session.execute("third")
        assert rds.running == 0
        assert [word for line in rds.commands for word in ("second",) if word in line] == []
        await session.close()


async def test_s6_the_far_side_runs_on_so_a_timeout_is_an_unknown_outcome(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.answer = gate = Gate()
        session = Session(rds.settings(command_timeout=2.0))
        with pytest.raises(OutcomeUnknown, match=r"within 2 s"):
            await session.execute("x")
        assert rds.running == 1
        gate.open.set()
        await until(lambda: rds.running == 0)
        await session.close()


async def test_s7_timeouts_are_ours_and_unsent_ones_say_so(tmp_path: Path) -> None:
    for module in (connection, exchange, session_module):
        source = inspect.getsource(module)
        assert "ProcessError" not in source
        assert ".run(check" not in source
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings(channels=1, command_timeout=0.1))
        await session._channels.acquire()
        with pytest.raises(Unavailable, match="no free channel") as caught:
            await session.execute("x")
        assert not isinstance(caught.value, OutcomeUnknown)
        assert rds.commands == []
        await session.close()


async def test_s8_a_dead_link_is_noticed_by_keepalive(tmp_path: Path) -> None:
    assert FakeRds(tmp_path).settings().keepalive_interval == 10
    assert FakeRds(tmp_path).settings().keepalive_count == 2
    async with FakeRds(tmp_path) as rds:
        blocked = asyncio.Event()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                if blocked.is_set():
                    continue
                writer.write(data)
            writer.close()

        writers: list[asyncio.StreamWriter] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", rds.port)
            writers.extend((writer, far_writer))
            await asyncio.gather(
                relay(reader, far_writer), relay(far_reader, writer), return_exceptions=True
            )

        middle = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = middle.sockets[0].getsockname()[1]
        rds.answer = gate = Gate()
        session = Session(rds.settings(port=port, keepalive_interval=0.1, keepalive_count=1))
        running = asyncio.create_task(session.execute("x"))
        await gate.entered.wait()
        blocked.set()
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(running, 3)
        assert not session.connected
        gate.open.set()
        await session.close()
        for writer in writers:
            writer.close()
        middle.close()
        await middle.wait_closed()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError("refused"), Unavailable),
        (TimeoutError(), Unavailable),
        (OSError(113, "No route to host"), Unavailable),
        (asyncssh.ConnectionLost("lost"), Unavailable),
        (asyncssh.HostKeyNotVerifiable("x"), UntrustedHostKey),
        (asyncssh.KeyExchangeFailed("x"), UntrustedHostKey),
        (asyncssh.PermissionDenied("x"), NotAuthorised),
    ],
)
def test_s9_every_way_not_to_connect_has_one_meaning(
    tmp_path: Path, error: Exception, kind: type[DriverError]
) -> None:
    meant = connect_error(FakeRds(tmp_path).settings(port=2222), error)
    assert type(meant) is kind
    assert "127.0.0.1:2222" in str(meant)


async def test_s10_nothing_of_the_machines_own_ssh_setup_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text("Host *\n  User somebody\n  Port 1\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    async with FakeRds(tmp_path) as rds:
        (home / ".ssh" / "known_hosts").write_text(
            f"127.0.0.1 {public_text(rds.host_keys[0])}\n[127.0.0.1]:{rds.port} "
            f"{public_text(rds.host_keys[0])}\n"
        )
        session = Session(rds.settings())
        await session.execute("x")
        await session.close()
        # A key the machine's own known_hosts trusts is not thereby pinned.
        stranger = Session(rds.settings(host_keys=(public_text(key()),)))
        with pytest.raises(NotAuthorised, match="not pinned"):
            await stranger.execute("x")


async def test_s11_endless_output_is_cut_at_the_limit(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:

        async def endless(process: Process, nonce: str, command: str) -> None:
            while True:
                process.stdout.write(b"x" * 65536)
                await process.stdout.drain()
                await asyncio.sleep(0)

        rds.answer = endless
        session = Session(rds.settings(maximum_output=1_000_000))
        with pytest.raises(ReplyTooLong, match=r"more than 1000000 bytes .* how many disks does"):
            await session.execute("x")
        with pytest.raises(ReplyTooLong, match="more than 70000 bytes"):
            await session.execute("x", largest=70_000)
        rds.answer = succeed
        await session.execute("still usable")
        await session.close()


async def test_s12_a_process_that_nobody_knows_the_user_of_logs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the controller's image: no entry in passwd, and no variable that says who or where."""

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    async with FakeRds(tmp_path) as rds:
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.setattr("pwd.getpwuid", nobody)
        with pytest.raises((ValueError, OSError), match="sername"):
            await asyncssh.connect("127.0.0.1", rds.port, username="x", config=None)
        session = Session(rds.settings())
        await session.execute("x")
        await session.close()
