"""The fake RDS does what its docstrings say."""

from pathlib import Path

import asyncssh
import pytest

from tests.unit.fakes.ssh import FakeRds, Process, key, succeed


async def connect(rds: FakeRds, private: asyncssh.SSHKey) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1",
        rds.port,
        username="csi",
        client_keys=[private],
        known_hosts=([each.convert_to_public() for each in rds.host_keys], [], []),
        config=None,
        agent_path=None,
    )


async def test_it_answers_with_the_nonce_and_keeps_the_command(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        connection = await connect(rds, rds.client_keys[0])
        result = await connection.run(':put "CSI-OK-0123456789abcdef"')
        connection.close()
        await connection.wait_closed()
    assert result.stdout == "CSI-OK-0123456789abcdef\r\n"
    assert result.exit_status == 0
    assert rds.commands == [':put "CSI-OK-0123456789abcdef"']
    assert rds.most_running == 1


async def test_it_refuses_another_key(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        with pytest.raises(asyncssh.PermissionDenied):
            await connect(rds, key())


async def test_an_answer_that_fails_is_kept_and_cuts_nothing(tmp_path: Path) -> None:
    async def fail(process: Process, nonce: str, command: str) -> None:
        process.exit(1)
        raise ZeroDivisionError

    async with FakeRds(tmp_path) as rds:
        rds.answer = fail
        connection = await connect(rds, rds.client_keys[0])
        assert (await connection.run("one")).exit_status == 1
        rds.answer = succeed
        assert (await connection.run("two")).exit_status == 0
        connection.close()
        await connection.wait_closed()
    assert [type(each) for each in rds.errors] == [ZeroDivisionError]


async def test_drop_cuts_connections_and_a_stopped_one_starts_on_the_same_port(
    tmp_path: Path,
) -> None:
    async with FakeRds(tmp_path) as rds:
        connection = await connect(rds, rds.client_keys[0])
        rds.drop()
        await connection.wait_closed()
        port = rds.port
        await rds.stop()
        with pytest.raises(OSError):
            await connect(rds, rds.client_keys[0])
        await rds.start()
        assert rds.port == port
        (await connect(rds, rds.client_keys[0])).abort()
