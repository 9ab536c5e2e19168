"""The fake runner keeps the promises of the real one."""

import asyncio

import pytest

from rds_csi.errors import CommandFailed, CommandStuck, CommandTimeout
from rds_csi.runtime.process import Result
from tests.unit.fakes.runner import FakeRunner


async def test_answers_by_the_first_words_and_remembers_the_call() -> None:
    runner = FakeRunner()
    runner.on("nvme", "connect", result=Result(0, "one", ""))
    runner.on("nvme", result=Result(0, "two", ""))
    assert (await runner.run(["nvme", "connect", "-t"], timeout=3, volume="v")).stdout == "one"
    assert (await runner.run(["nvme", "list"], timeout=3)).stdout == "two"
    (call,) = runner.asked("nvme", "connect")
    assert (call.args, call.timeout, call.volume) == (("nvme", "connect", "-t"), 3, "v")


async def test_an_unexpected_program_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="mkfs"):
        await FakeRunner().run(["mkfs"], timeout=1)


async def test_an_answer_is_used_up() -> None:
    runner = FakeRunner()
    runner.fail("nvme", stderr="connection refused", times=1)
    runner.on("nvme")
    with pytest.raises(CommandFailed, match="refused") as caught:
        await runner.run(["nvme"], timeout=1)
    assert (caught.value.returncode, caught.value.stderr) == (1, "connection refused")
    assert (await runner.run(["nvme"], timeout=1)).returncode == 0


async def test_check_off_returns_the_failure() -> None:
    runner = FakeRunner()
    runner.fail("blkid", status=2)
    assert (await runner.run(["blkid"], timeout=1, check=False)).returncode == 2


async def test_an_error_and_an_effect() -> None:
    runner = FakeRunner()
    seen: list[str] = []
    runner.on("a", error=OSError("x"), effect=lambda call: seen.extend(call.args))
    with pytest.raises(OSError, match="x"):
        await runner.run(["a", "b"], timeout=1)
    assert seen == ["a", "b"]


@pytest.mark.looptime
async def test_too_slow_is_killed_at_the_timeout() -> None:
    runner = FakeRunner()
    runner.on("nvme", takes=60)
    started = asyncio.get_running_loop().time()
    with pytest.raises(CommandTimeout):
        await runner.run(["nvme"], timeout=5)
    assert asyncio.get_running_loop().time() - started == 5


@pytest.mark.looptime
async def test_stuck_carries_the_event_of_its_end() -> None:
    runner = FakeRunner()
    answer = runner.on("nvme", takes=60, stuck=True)
    with pytest.raises(CommandStuck) as caught:
        await runner.run(["nvme"], timeout=5)
    assert not caught.value.gone.is_set()
    answer.gone.set()
    assert caught.value.gone.is_set()


@pytest.mark.looptime
async def test_counts_what_runs_at_once_and_what_was_cancelled() -> None:
    runner = FakeRunner()
    runner.on("nvme", takes=10)
    tasks = [asyncio.create_task(runner.run(["nvme"], timeout=20)) for _ in range(3)]
    await asyncio.sleep(1)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert runner.most_running["nvme"] == 3
    assert runner.running["nvme"] == 0
    assert len(runner.cancelled) == 1
