"""Who meets a lock waits a moment for it, in virtual time; the rest is ``test_operations``."""

import asyncio

import pytest

from rds_csi.errors import DeadlineExceeded, OperationPending, ShuttingDown
from rds_csi.rpc import Operations
from tests.unit.rpc.test_operations import run, sleeping

pytestmark = pytest.mark.looptime


@pytest.fixture
def operations():
    return Operations()


async def test_an_operation_that_is_about_to_end_is_waited_for(operations):
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(run(operations, sleeping(7)))
    await asyncio.sleep(3)
    assert await run(operations, sleeping(1, "yes"), rpc="NodeUnstageVolume") == "yes"
    assert first.done()
    assert loop.time() == pytest.approx(8, abs=0.1)


async def test_waiting_takes_half_of_the_time_at_most_and_comes_off_it(operations):
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(run(operations, sleeping(5)))
    await asyncio.sleep(1)
    with pytest.raises(OperationPending):
        await run(operations, sleeping(0), seconds=4)
    assert loop.time() == pytest.approx(3, abs=0.1)
    with pytest.raises(DeadlineExceeded, match="did not end within 3"):
        await run(operations, sleeping(60), seconds=5)
    assert loop.time() == pytest.approx(8, abs=0.1)
    await first


async def test_those_who_wait_go_one_by_one(operations):
    going = []

    async def work():
        going.append("in")
        assert going.count("in") - going.count("out") == 1
        await asyncio.sleep(1)
        going.append("out")

    await asyncio.gather(*(run(operations, work) for _ in range(4)))
    assert going.count("out") == 4


async def test_who_leaves_while_waiting_has_begun_nothing(operations):
    begun = []

    async def work():
        begun.append(True)

    first = asyncio.create_task(run(operations, sleeping(3)))
    await asyncio.sleep(1)
    second = asyncio.create_task(run(operations, work))
    await asyncio.sleep(1)
    second.cancel()
    await asyncio.sleep(0)
    assert second.cancelled()
    await first
    await asyncio.sleep(10)
    assert not begun
    assert not operations.locked("v")


async def test_who_waits_at_the_end_is_told_of_it_at_once(operations):
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(run(operations, sleeping(4)))
    await asyncio.sleep(1)
    second = asyncio.create_task(run(operations, sleeping(0)))
    await asyncio.sleep(1)
    operations.refuse()
    with pytest.raises(ShuttingDown):
        await second
    assert loop.time() == pytest.approx(2, abs=0.1)
    await first
