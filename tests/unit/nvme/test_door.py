"""One knock for all who wait for the same target."""

import asyncio

import pytest

from rds_csi.model.contexts import Endpoint
from rds_csi.nvme.door import Door


def at(address: str, port: int = 4420) -> Endpoint:
    return Endpoint(address, port, "nqn.2000-02.com.mikrotik:pvc")


@pytest.mark.looptime
async def test_who_asks_at_once_gets_one_answer() -> None:
    asked: list[Endpoint] = []

    async def ask(endpoint: Endpoint) -> bool:
        asked.append(endpoint)
        await asyncio.sleep(3)
        return True

    door = Door(ask)
    found = await asyncio.gather(*(door.open(at("10.0.0.1")) for _ in range(50)))
    assert found == [True] * 50
    assert asked == [at("10.0.0.1")]
    await asyncio.gather(door.open(at("10.0.0.1", 4421)), door.open(at("10.0.0.2")))
    assert len(asked) == 3


@pytest.mark.looptime
async def test_an_answer_is_good_for_a_second() -> None:
    answer = [False]

    async def ask(_endpoint: Endpoint) -> bool:
        return answer[0]

    door = Door(ask)
    assert not await door.open(at("10.0.0.1"))
    answer[0] = True
    await asyncio.sleep(0.9)
    assert not await door.open(at("10.0.0.1"))
    await asyncio.sleep(0.1)
    assert await door.open(at("10.0.0.1"))


@pytest.mark.looptime
async def test_who_leaves_while_he_asks_keeps_nobody_out() -> None:
    forever = asyncio.Event()

    async def ask(_endpoint: Endpoint) -> bool:
        await forever.wait()
        return True

    door = Door(ask)
    asker = asyncio.create_task(door.open(at("10.0.0.1")))
    await asyncio.sleep(1)
    asker.cancel()
    forever.set()
    assert await door.open(at("10.0.0.1"))
