"""A crashing service is started again; nothing else ends it but itself or a cancel."""

import asyncio
import random

import pytest

from rds_csi.driver.supervise import supervise
from rds_csi.runtime.retry import RetryPolicy, delays

pytestmark = pytest.mark.looptime


def steady(limit: float = 60.0):
    return delays(RetryPolicy(jitter=0.0), limit=limit, rng=random.Random(1))


async def test_a_crash_is_repaired_with_growing_waits() -> None:
    starts: list[float] = []

    async def service() -> None:
        starts.append(asyncio.get_running_loop().time())
        if len(starts) < 5:
            raise RuntimeError("crash")

    began = asyncio.get_running_loop().time()
    await supervise("test", service, waits=steady())
    assert [round(at - began, 3) for at in starts] == [0, 1, 3, 7, 15]


async def test_a_healthy_time_resets_the_waits() -> None:
    lives = [1.0, 1.0, 121.0, 1.0]
    ends: list[float] = []
    starts: list[float] = []
    loop = asyncio.get_running_loop()

    async def service() -> None:
        starts.append(loop.time())
        if not lives:
            return
        await asyncio.sleep(lives.pop(0))
        ends.append(loop.time())
        raise RuntimeError("crash")

    await supervise("test", service, waits=steady())
    waits = [round(start - end, 3) for start, end in zip(starts[1:], ends, strict=True)]
    assert waits == [1, 2, 1, 2]


async def test_cancelling_ends_it_at_once() -> None:
    running = asyncio.Event()

    async def service() -> None:
        running.set()
        await asyncio.sleep(3600)

    task = asyncio.create_task(supervise("test", service))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_ends_the_wait_too() -> None:
    crashed = asyncio.Event()

    async def service() -> None:
        crashed.set()
        raise RuntimeError("crash")

    task = asyncio.create_task(supervise("test", service))
    await crashed.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
