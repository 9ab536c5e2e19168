"""One lock per NQN."""

import asyncio

import pytest

from rds_csi.errors import CommandStuck
from rds_csi.nvme.locks import NqnLocks

pytestmark = pytest.mark.looptime


async def test_one_at_a_time_per_name_and_others_beside() -> None:
    locks = NqnLocks()
    trace: list[str] = []

    async def work(nqn: str, mark: str) -> None:
        async with locks.hold(nqn):
            trace.append(f"+{mark}")
            await asyncio.sleep(1)
            trace.append(f"-{mark}")

    await asyncio.gather(work("a", "1"), work("a", "2"), work("b", "3"))
    assert trace == ["+1", "+3", "-1", "-3", "+2", "-2"]
    assert not locks.locked("a")


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()])
async def test_released_after_an_error(error: BaseException) -> None:
    locks = NqnLocks()

    async def work() -> None:
        async with locks.hold("a"):
            assert locks.locked("a")
            raise error

    with pytest.raises(type(error)):
        await work()
    assert not locks.locked("a")


async def test_a_cancelled_wait_takes_nothing() -> None:
    locks = NqnLocks()

    async def work() -> None:
        async with locks.hold("a"):
            await asyncio.sleep(10)

    first, second = asyncio.create_task(work()), asyncio.create_task(work())
    await asyncio.sleep(1)
    second.cancel()
    await asyncio.wait({first, second})
    assert not locks.locked("a")


async def test_kept_while_a_program_is_stuck() -> None:
    locks = NqnLocks()
    gone = asyncio.Event()
    with pytest.raises(CommandStuck):
        async with locks.hold("a"):
            raise CommandStuck("hangs", gone=gone)
    await asyncio.sleep(1000)
    assert locks.locked("a")
    gone.set()
    async with asyncio.timeout(1), locks.hold("a"):
        pass


async def test_names_that_nobody_uses_are_forgotten() -> None:
    locks = NqnLocks()
    for number in range(100):
        async with locks.hold(str(number)):
            pass
    assert len(locks._locks) <= 1
