"""What has to be asked for is asked for in the background, and never twice at once."""

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from rds_csi.errors import Unavailable
from rds_csi.telemetry.refresh import refreshing

pytestmark = pytest.mark.looptime


@contextlib.asynccontextmanager
async def running(look):
    task = asyncio.create_task(refreshing("pool", look, interval=60))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_it_looks_at_once_and_then_after_each_interval() -> None:
    looks = []

    async def look():
        looks.append(now())
        await asyncio.sleep(5)

    async with running(look):
        await asyncio.sleep(135)
    assert [round(at) for at in looks] == [0, 65, 130]


async def test_a_look_that_hangs_is_not_repeated() -> None:
    looks = []

    async def look():
        looks.append(now())
        await asyncio.Event().wait()

    async with running(look):
        await asyncio.sleep(100_000)
    assert len(looks) == 1


async def test_an_outage_is_said_once_and_its_end_lets_the_next_be_said() -> None:
    fails = [True, True, False, True, False]

    async def look():
        if fails.pop(0):
            raise Unavailable("away")

    with capture_logs() as log:
        async with running(look):
            await asyncio.sleep(4 * 60 + 1)
    assert not fails
    assert [entry["log_level"] for entry in log] == ["warning", "debug", "warning"]


async def test_what_is_no_error_of_ours_is_a_crash() -> None:
    async def look():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await refreshing("pool", look, interval=60)
