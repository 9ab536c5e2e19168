"""Why work had not ended is told by who knows, to whoever collects it."""

import asyncio

import pytest

from rds_csi.errors import ConnectFailed
from rds_csi.runtime.causes import collect, note, note_failure, noting


async def test_where_nobody_collects_nothing_is_kept() -> None:
    async def unheard() -> None:
        note("nobody hears this")

    await asyncio.create_task(unheard())
    assert collect().texts == []


async def test_each_cause_is_told_once_innermost_first() -> None:
    causes = collect()
    for text in ("inner", "outer", "inner"):
        note(text)
    assert causes.texts == ["inner", "outer"]


async def test_the_advice_is_that_of_the_first_that_has_one() -> None:
    causes = collect()
    note("a")
    note("b", advice="do this")
    note("c", advice="do that")
    assert causes.advice == "do this"


async def test_a_failed_attempt_is_told_with_its_advice() -> None:
    causes = collect()
    note_failure(ConnectFailed("refused", volume="pvc-1", advice="look there"))
    note_failure(OSError("no route"))
    assert causes.texts == ["the last attempt failed: refused", "the last attempt failed: no route"]
    assert causes.advice == "look there"


async def test_only_a_block_that_is_cancelled_tells() -> None:
    causes = collect()
    with noting("it ended"):
        pass
    with pytest.raises(ValueError, match="its own error"), noting("it failed"):
        raise ValueError("its own error")
    assert causes.texts == []
    with pytest.raises(asyncio.CancelledError), noting("it waits"):
        raise asyncio.CancelledError
    assert causes.texts == ["it waits"]


async def test_a_task_started_meanwhile_tells_the_same_collector_and_no_other() -> None:
    async def work(name: str) -> list[str]:
        causes = collect()

        async def inner() -> None:
            with noting(f"{name} waits"):
                await asyncio.Event().wait()

        child = asyncio.create_task(inner())
        await asyncio.sleep(0)
        child.cancel()
        await asyncio.wait({child})
        return causes.texts

    told = await asyncio.gather(work("a"), work("b"))
    assert list(told) == [["a waits"], ["b waits"]]
