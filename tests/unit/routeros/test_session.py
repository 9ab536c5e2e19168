"""Commands over one connection: shared, bounded, counted, and ended."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rds_csi.errors import (
    OutcomeUnknown,
    ShuttingDown,
    Unavailable,
)
from rds_csi.routeros.session import Session
from rds_csi.runtime.causes import collect
from tests.unit.fakes.ssh import FakeRds, Gate, Process, succeed, until


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
        done = False
        async with asyncio.timeout(20):
            while not done:
                # On a busy machine the new connection alone takes longer than a command may.
                with suppress(Unavailable):
                    await session.execute("y")
                    done = True
        assert session.statistics.connects > 1
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


async def test_a_deadline_knows_whether_the_rds_had_been_asked(tmp_path: Path) -> None:
    async def never(process: Process, _nonce: str, _command: str) -> None:
        await process.wait_closed()

    async def cancelled_once(ready: Callable[[], bool]) -> list[str]:
        causes = collect()
        task = asyncio.create_task(session.execute("x"))
        await until(ready)
        task.cancel()
        await asyncio.wait([task])
        return causes.texts

    async with FakeRds(tmp_path) as rds:
        rds.answer = never
        session = Session(rds.settings(channels=1, command_timeout=60.0))
        holder = asyncio.create_task(session.execute("first"))
        await until(lambda: rds.running == 1)
        waits = await cancelled_once(lambda: session.statistics.waiting == 1)
        assert waits == ["no channel to the RDS was free or connected yet"]
        holder.cancel()
        await until(lambda: session.statistics.running == 0)
        asked = await cancelled_once(lambda: rds.running == 1)
        assert asked == ["the RDS had not answered the command"]
        await session.close()
