"""Making the connection: on demand, once for all, never in a storm, proven on both sides."""

import asyncio
import os
import random
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rds_csi.errors import (
    NotAuthorised,
    Unavailable,
    UntrustedHostKey,
)
from rds_csi.routeros.session import Session
from tests.unit.fakes.clock import FakeClock
from tests.unit.fakes.ssh import FakeRds, key, public_text, until


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


@pytest.mark.parametrize(("version", "warned"), [("7.24.1", True), ("7.24.2", False)])
async def test_a_version_with_known_holes_is_used_and_told_of(
    tmp_path: Path, *, version: str, warned: bool
) -> None:
    async with FakeRds(tmp_path) as rds:
        rds.version = f'[{{"board-name":"RDS2216","version":"{version} (stable)"}}]'
        session = Session(rds.settings())
        with capture_logs() as log:
            await session.execute("x")
        found = [each for each in log if "lacks security fixes" in each["event"]]
        assert [each["log_level"] for each in found] == ["warning"] * warned
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
    session = Session(rds.settings(), clock=(clock := FakeClock()))
    with pytest.raises(Unavailable):
        await session.execute("x")
    await rds.start()
    with pytest.raises(Unavailable):
        await session.execute("x")
    clock.time += 2
    await session.execute("x")
    await session.close()
    await rds.stop()


async def test_pauses_grow_while_it_fails_and_start_anew_after_it_worked(tmp_path: Path) -> None:
    rds = FakeRds(tmp_path)
    await rds.start()
    clock = FakeClock()
    session = Session(rds.settings(reconnect_limit=30), clock=clock, rng=random.Random(0))

    async def pause() -> float:
        with pytest.raises(Unavailable):
            await session.execute("x")
        with pytest.raises(Unavailable, match="next attempt in") as caught:
            await session.execute("x")
        wait = float(caught.value.what.split("next attempt in ")[1].split(" ")[0])
        clock.time += 100
        return wait

    for nominal in (1, 2, 4):
        await rds.stop()
        assert nominal <= await pause() <= 1.1 * nominal + 0.05
    await rds.start()
    await session.execute("x")
    await rds.stop()
    await until(lambda: not session.connected)
    assert 1 <= await pause() <= 1.15
    await session.close()


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


@pytest.mark.parametrize(
    ("kind", "signature"),
    [
        ("ssh-rsa", "rsa-sha2-256"),
        ("ssh-rsa", "rsa-sha2-512"),
        ("ssh-ed25519", "ssh-ed25519"),
        ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ],
)
async def test_a_pinned_key_is_taken_with_each_signature_that_is_safe(
    tmp_path: Path, kind: str, signature: str
) -> None:
    rds = FakeRds(tmp_path, key(kind))
    rds.signatures = (signature,)
    async with rds:
        session = Session(rds.settings())
        await session.execute("x")
        await session.close()


@pytest.mark.parametrize("signature", ["ssh-rsa", "ssh-rsa-sha224@ssh.com"])
async def test_a_pinned_rsa_key_is_not_taken_with_a_signature_that_can_be_forged(
    tmp_path: Path, signature: str
) -> None:
    """SHA-1 and its like: the SSH library would offer them, if it were not told what to offer."""
    rds = FakeRds(tmp_path, key("ssh-rsa"))
    rds.signatures = (signature,)
    async with rds:
        session = Session(rds.settings())
        with pytest.raises(UntrustedHostKey, match="agrees on no algorithm"):
            await session.execute("x")
        assert rds.greetings == 0
        await session.close()


@pytest.mark.parametrize("pinned", ["ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256"])
@pytest.mark.parametrize("shown", ["ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256"])
async def test_another_key_than_the_pinned_one_is_refused_whatever_its_type(
    tmp_path: Path, pinned: str, shown: str
) -> None:
    async with FakeRds(tmp_path, key(shown)) as rds:
        session = Session(rds.settings(host_keys=(public_text(key(pinned)),)))
        why = "not pinned" if pinned == shown else "agrees on no algorithm"
        with pytest.raises(UntrustedHostKey, match=why):
            await session.execute("x")
        assert rds.greetings == 0
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


async def test_closing_during_a_connect_ends_it(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        running = asyncio.create_task(session.execute("x"))
        await asyncio.sleep(0.002)
        await session.close()
        with pytest.raises(Unavailable):
            await running
