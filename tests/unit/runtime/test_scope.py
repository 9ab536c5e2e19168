"""The cancellation scope: all of it ends at once, and nothing new begins."""

import asyncio
from typing import Any

import pytest

from rds_csi.errors import CommandStuck, ConnectFailed, ShuttingDown
from rds_csi.runtime.scope import Scope

pytestmark = pytest.mark.looptime


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(1)
        ended.append("work")


async def test_what_work_gives_and_raises_comes_through() -> None:
    scope = Scope()

    async def answers() -> int:
        return 42

    async def fails() -> int:
        raise ConnectFailed("refused")

    assert await scope.run(answers) == 42
    with pytest.raises(ConnectFailed, match="refused"):
        await scope.run(fails)


async def test_stopping_ends_all_of_it_and_waits_for_each_end() -> None:
    scope = Scope()
    ended: list[str] = []
    callers = [asyncio.create_task(scope.run(lambda: forever(ended))) for _ in range(3)]
    service = scope.add(asyncio.create_task(forever(ended)))
    await asyncio.sleep(5)
    began = asyncio.get_running_loop().time()
    scope.stop()
    scope.stop()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [ShuttingDown] * 3
    assert asyncio.get_running_loop().time() - began == pytest.approx(1)
    with pytest.raises(asyncio.CancelledError):
        await service
    assert ended == ["work"] * 4


async def test_nothing_begins_once_it_is_stopped() -> None:
    scope = Scope()
    scope.stop()

    async def work() -> None:
        pytest.fail("it was begun")

    with pytest.raises(ShuttingDown, match="stopping"):
        await scope.run(work)
    late = scope.add(asyncio.create_task(work()))
    with pytest.raises(asyncio.CancelledError):
        await late


async def test_a_cancelled_caller_takes_its_work_along() -> None:
    ended: list[str] = []
    caller = asyncio.create_task(Scope().run(lambda: forever(ended)))
    await asyncio.sleep(5)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["work"]


async def test_a_caller_cancelled_again_and_again_still_waits_for_the_end() -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def stubborn() -> None:
        tasks.append(asyncio.current_task())
        for _ in range(3):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    caller = asyncio.create_task(Scope().run(stubborn))
    for _ in range(3):
        await asyncio.sleep(1)
        caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    (work,) = tasks
    assert work is not None
    assert work.done()


async def test_a_program_that_is_stuck_is_told_before_the_cancellation() -> None:
    """For then the volume must stay locked."""

    async def stuck() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise CommandStuck("nvme hangs", gone=asyncio.Event()) from None

    scope = Scope()
    cancelled, stopped = (asyncio.create_task(scope.run(stuck)) for _ in range(2))
    await asyncio.sleep(1)
    cancelled.cancel()
    scope.stop()
    for caller in (cancelled, stopped):
        with pytest.raises(CommandStuck):
            await caller


async def test_a_deadline_of_the_caller_ends_its_work() -> None:
    ended: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await Scope().run(lambda: forever(ended))
    assert ended == ["work"]


async def test_work_that_cancels_itself_is_not_taken_for_the_end() -> None:
    async def work() -> Any:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Scope().run(work)
