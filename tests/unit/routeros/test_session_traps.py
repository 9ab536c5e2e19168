"""What asyncssh does that one would not expect (S1 to S11), each with what we make of it."""

import asyncio
import inspect
import os
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from rds_csi.errors import (
    DriverError,
    NotAuthorised,
    NotReady,
    OutcomeUnknown,
    ShuttingDown,
    Unavailable,
)
from rds_csi.routeros import exchange
from rds_csi.routeros import session as session_module
from rds_csi.routeros.session import Session, connect_error
from tests.unit.fakes.ssh import FakeRds, Process, key, public_text, succeed


class Gate:
    """An answer that waits until the test opens it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, process: Process, nonce: str, command: str) -> None:
        self.entered.set()
        await self.open.wait()
        await succeed(process, nonce, command)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what the tests wait for has no event
            await asyncio.sleep(0.001)


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
        session = Session(rds.settings(command_timeout=0.2))
        with pytest.raises(OutcomeUnknown, match=r"within 0\.2 s"):
            await session.execute("x")
        assert rds.running == 1
        gate.open.set()
        await until(lambda: rds.running == 0)
        await session.close()


async def test_s7_timeouts_are_ours_and_unsent_ones_say_so(tmp_path: Path) -> None:
    for module in (exchange, session_module):
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
        (asyncssh.HostKeyNotVerifiable("x"), NotAuthorised),
        (asyncssh.KeyExchangeFailed("x"), NotAuthorised),
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
        with pytest.raises(OutcomeUnknown, match="more than 1000000 bytes"):
            await session.execute("x")
        rds.answer = succeed
        await session.execute("still usable")
        await session.close()


# The life of the connection


async def test_all_commands_share_one_connection_and_its_version_is_asked_once(
    tmp_path: Path,
) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        assert session.statistics.connects == 0
        await asyncio.gather(*(session.execute(f"c{n}") for n in range(20)))
        assert len(rds.connections) == 1
        assert rds.greetings == 1
        assert session.system is not None
        assert session.system.version == "7.23.2 (stable)"
        assert session.statistics.execs == 20
        await session.close()


async def test_at_most_so_many_channels_first_come_first_served(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings(channels=2))
        await session.execute("warm")
        gate = Gate()
        rds.answer = gate
        tasks = [asyncio.create_task(session.execute(f"c{n} ")) for n in range(6)]
        await until(lambda: rds.running == 2)
        assert session.statistics.waiting == 4
        assert session.statistics.running == 2
        gate.open.set()
        await asyncio.gather(*tasks)
        assert rds.most_running == 2
        order = [line.split("in={ ")[1].split(" ")[0] for line in rds.commands[1:]]
        assert sorted(order[:2]) == ["c0", "c1"]
        assert sorted(order[2:4]) == ["c2", "c3"]
        await session.close()


async def test_it_reconnects_on_demand(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        await session.execute("x")
        rds.drop()
        await until(lambda: not session.connected)
        await session.execute("y")
        assert session.statistics.connects == 2
        assert rds.greetings == 2
        await session.close()


async def test_a_dead_rds_is_not_stormed_and_answers_fast(tmp_path: Path) -> None:
    rds = FakeRds(tmp_path)
    await rds.start()
    await rds.stop()
    session = Session(rds.settings(reconnect_limit=30))
    for _ in range(5):
        with pytest.raises(Unavailable, match="cannot be reached"):
            await session.execute("x")
    assert session.statistics.connect_failures == 1
    with pytest.raises(Unavailable, match="next attempt in"):
        await session.execute("x")
    await session.close()


async def test_an_rds_that_was_down_at_start_is_found_when_it_comes(tmp_path: Path) -> None:
    rds = FakeRds(tmp_path)
    await rds.start()
    await rds.stop()
    session = Session(rds.settings(), clock=(clock := HandClock()))
    with pytest.raises(Unavailable):
        await session.execute("x")
    await rds.start()
    with pytest.raises(Unavailable):
        await session.execute("x")
    clock.time += 2
    await session.execute("x")
    await session.close()
    await rds.stop()


class HandClock:
    time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


async def test_one_attempt_to_connect_serves_all_and_survives_a_cancelled_caller(
    tmp_path: Path,
) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        first = asyncio.create_task(session.execute("first"))
        second = asyncio.create_task(session.execute("second"))
        await until(lambda: rds.connections)
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert session.statistics.connects == 1
        assert [("first" in line) for line in rds.commands] == [False]
        await session.close()


async def test_the_client_key_is_read_anew_at_each_connect(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        await session.execute("x")
        rds.client_keys = [key("ssh-rsa")]
        rds.write_client_key(rds.client_keys[0])
        rds.drop()
        await until(lambda: not session.connected)
        await session.execute("y")
        await session.close()


async def test_a_key_the_rds_does_not_know_is_not_a_missing_volume(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.client_keys = [key()]
        session = Session(rds.settings())
        with pytest.raises(NotAuthorised, match="does not accept the key of user 'csi'"):
            await session.execute("x")
        await session.close()


async def test_two_host_keys_may_be_pinned_and_of_any_two_types_the_right_one_is_shown(
    tmp_path: Path,
) -> None:
    rsa, ed = key("ssh-rsa"), key("ssh-ed25519")
    async with FakeRds(tmp_path, rsa, ed) as rds:
        for pinned in (
            (public_text(rsa),),
            (public_text(ed),),
            (public_text(key()), public_text(ed)),
        ):
            session = Session(rds.settings(host_keys=pinned))
            await session.execute("x")
            await session.close()


async def test_known_hosts_lines_can_be_pinned(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        text = f"# RDS\n[rds.example]:2222,10.0.0.1 {public_text(rds.host_keys[0])} comment\n\n"
        session = Session(rds.settings(host_keys=(text,)))
        await session.execute("x")
        await session.close()


async def test_a_host_key_of_another_type_is_refused_as_such(tmp_path: Path) -> None:
    async with FakeRds(tmp_path, key("ssh-rsa")) as rds:
        session = Session(rds.settings(host_keys=(public_text(key("ssh-ed25519")),)))
        with pytest.raises(NotAuthorised, match="algorithm"):
            await session.execute("x")
        await session.close()


def test_without_a_pinned_key_there_is_no_session(tmp_path: Path) -> None:
    rds = FakeRds(tmp_path)
    for keys in (
        (),
        ("",),
        ("# none",),
        ("ssh-ed25519 rubbish",),
        ("@cert-authority * ssh-rsa A",),
    ):
        with pytest.raises(NotReady):
            rds.settings(host_keys=keys)
    with pytest.raises(NotReady):
        rds.settings(channels=0)


async def test_the_development_flag_is_loud_at_each_connect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings(host_keys=(), insecure_accept_any_host_key=True))
        for _ in range(2):
            await session.execute("x")
            rds.drop()
            await until(lambda: not session.connected)
        await session.close()
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("INSECURE") == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="modes are set as the owner")
@pytest.mark.parametrize("mode", [0o604, 0o620, 0o666])
async def test_a_key_file_open_to_others_is_not_used(tmp_path: Path, mode: int) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.key_file.chmod(mode)
        session = Session(rds.settings())
        with pytest.raises(NotAuthorised, match="others can use it"):
            await session.execute("x")
        assert rds.connections == []
        await session.close()


async def test_a_key_file_that_is_none_shows_nothing_of_itself(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.key_file.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nSECRET\n")
        session = Session(rds.settings())
        with pytest.raises(NotAuthorised) as caught:
            await session.execute("x")
        assert "SECRET" not in str(caught.value)
        rds.key_file.unlink()
        with pytest.raises(NotAuthorised):
            await Session(rds.settings()).execute("x")
        await session.close()


async def test_a_key_with_a_passphrase_is_opened_by_it(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.key_file.write_bytes(
            rds.client_keys[0].export_private_key("pkcs8-pem", passphrase="hunter2")
        )
        session = Session(rds.settings(key_passphrase="hunter2"))
        await session.execute("x")
        await session.close()
        wrong = Session(rds.settings(key_passphrase="hunter3"))
        with pytest.raises(NotAuthorised):
            await wrong.execute("x")


def test_settings_show_no_secret(tmp_path: Path) -> None:
    assert "hunter2" not in repr(FakeRds(tmp_path).settings(key_passphrase="hunter2"))


async def test_a_closed_session_says_so_and_closing_twice_is_fine(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.answer = gate = Gate()
        session = Session(rds.settings())
        running = asyncio.create_task(session.execute("x"))
        await gate.entered.wait()
        await session.close()
        await session.close()
        with pytest.raises(OutcomeUnknown):
            await running
        with pytest.raises(ShuttingDown):
            await session.execute("y")
        gate.open.set()


async def test_closing_during_a_connect_ends_it(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        running = asyncio.create_task(session.execute("x"))
        await asyncio.sleep(0.002)
        await session.close()
        with pytest.raises(Unavailable):
            await running


async def test_a_channel_the_rds_never_closes_costs_the_connection_not_the_place(
    tmp_path: Path,
) -> None:
    async with FakeRds(tmp_path) as rds:
        gate = Gate()

        async def deaf(process: Process, nonce: str, command: str) -> None:
            # Stops reading the connection: closing a channel gets no answer.
            transport = process.channel.get_connection()._transport
            assert transport is not None
            transport.pause_reading()
            await gate(process, nonce, command)

        rds.answer = deaf
        session = Session(rds.settings(channels=1, command_timeout=0.2, close_timeout=0.2))
        with pytest.raises(OutcomeUnknown):
            await session.execute("x")
        await until(lambda: not session.connected)
        gate.open.set()
        rds.answer = succeed
        await session.execute("y")
        assert session.statistics.connects == 2
        await session.close()


async def test_each_command_is_counted_and_reported(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings(), observe=lambda how, took: seen.append((how, took >= 0)))
        await session.execute("x")

        async def refuse(process: Process, nonce: str, command: str) -> None:
            process.stdout.write(f"CSI-ERR-{nonce} action failed (6)\r\n".encode())
            process.exit(0)

        rds.answer = refuse
        assert (await session.execute("x")).error == "action failed (6)"
        rds.drop()
        rds.answer = Gate()
        await until(lambda: not session.connected)
        running = asyncio.create_task(session.execute("x"))
        await until(lambda: len(rds.commands) == 3)
        rds.drop()
        with pytest.raises(OutcomeUnknown):
            await running
        await session.close()
        rds.answer.open.set()
    assert seen == [("ok", True), ("failed", True), ("unknown", True)]
    assert session.statistics.execs == 3
    assert session.statistics.failures == 2
