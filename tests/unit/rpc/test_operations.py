"""Locks, deadlines, leftovers and the end of operations, in virtual time."""

import asyncio

import pytest

from rds_csi.errors import (
    OPEN,
    Code,
    CommandStuck,
    DeadlineExceeded,
    Internal,
    OperationPending,
    OutcomeUnknown,
    RouterOSError,
    ShuttingDown,
    Unavailable,
    VolumeNotFound,
)
from rds_csi.rpc import Operations
from rds_csi.runtime.causes import noting
from rds_csi.runtime.retry import retrying
from rds_csi.runtime.scope import Scope

pytestmark = pytest.mark.looptime


@pytest.fixture
def operations():
    return Operations()


async def run(operations, work, *, rpc="NodeStageVolume", volume="v", seconds=10.0, scope=""):
    return await operations.run(rpc, work, timeout=seconds, volume=volume, scope=scope)


def sleeping(seconds, value=None):
    async def work():
        await asyncio.sleep(seconds)
        return value

    return work


def raising(error):
    async def work():
        raise error

    return work


async def test_the_answer_is_the_works(operations):
    assert await run(operations, sleeping(1, "yes")) == "yes"


async def test_the_error_is_the_works(operations):
    error = VolumeNotFound("gone")
    with pytest.raises(VolumeNotFound) as caught:
        await run(operations, raising(error))
    assert caught.value is error


async def test_one_at_a_time_per_volume(operations):
    first = asyncio.create_task(run(operations, sleeping(9)))
    await asyncio.sleep(2.5)
    await run(operations, sleeping(0), volume="other")
    with pytest.raises(OperationPending, match=r"volume v: NodeStageVolume .* for 7\.5 s"):
        await run(operations, sleeping(0), rpc="NodeUnstageVolume")
    await first
    await run(operations, sleeping(0))


async def test_the_controller_and_the_node_do_not_block_each_other(operations):
    first = asyncio.create_task(run(operations, sleeping(5), scope="csi.v1.Controller"))
    await asyncio.sleep(1)
    await run(operations, sleeping(0), scope="csi.v1.Node")
    await first


async def test_reading_takes_no_lock(operations):
    first = asyncio.create_task(run(operations, sleeping(5)))
    await asyncio.sleep(1)
    await run(operations, sleeping(0), volume="", rpc="NodeGetVolumeStats")
    await first


async def test_the_lock_is_free_as_soon_as_the_answer_is_there(operations):
    for _ in range(50):
        await run(operations, sleeping(0))


async def test_the_lock_is_freed_after_an_error(operations):
    with pytest.raises(VolumeNotFound):
        await run(operations, raising(VolumeNotFound("gone")))
    assert not operations.locked("v")


async def test_the_time_is_up(operations):
    loop = asyncio.get_running_loop()
    with pytest.raises(DeadlineExceeded, match=r"volume v: NodeStageVolume .* 10\.0 s"):
        await run(operations, sleeping(60))
    assert loop.time() == pytest.approx(10.0)
    assert not operations.locked("v")


async def test_the_lock_is_kept_while_late_work_tidies_up(operations):
    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(9)

    late = asyncio.create_task(run(operations, work))
    await asyncio.sleep(11)
    with pytest.raises(OperationPending):
        await run(operations, sleeping(0))
    with pytest.raises(DeadlineExceeded):
        await late
    assert asyncio.get_running_loop().time() == pytest.approx(19.0)


async def test_an_error_while_tidying_up_does_not_hide_that_the_time_is_up(operations):
    async def work():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RouterOSError("broken pipe") from None

    # INTERNAL would tell the provisioner that no volume exists.
    with pytest.raises(DeadlineExceeded, match="broken pipe"):
        await run(operations, work)


async def refused():
    raise Unavailable("RDS 192.0.2.1:22 cannot be reached: refused", advice="is it up?")


async def test_a_deadline_amid_retries_names_the_last_cause_and_its_advice(operations):
    """Also through a task of its own and the scope, as connects are run."""
    scope = Scope()

    def connect():
        return scope.run(lambda: retrying(refused, what="connect"))

    with pytest.raises(DeadlineExceeded) as caught:
        await run(operations, connect)
    assert str(caught.value) == (
        "volume v: NodeStageVolume did not end within 10.0 s; the last attempt failed: "
        "RDS 192.0.2.1:22 cannot be reached: refused (is it up?; it is safe to repeat)"
    )
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_an_operation_that_is_stopped_amid_retries_names_the_last_cause(operations):
    task = asyncio.create_task(run(operations, lambda: retrying(refused, what="x"), seconds=100))
    await asyncio.sleep(5)
    await operations.close(0, 1)
    with pytest.raises(OutcomeUnknown, match=r"was stopped; the last attempt failed: RDS .*is it"):
        await task


async def test_causes_are_those_of_one_operation_and_of_failures_that_lasted(operations):
    attempts = []

    async def late():
        attempts.append(1)
        if len(attempts) == 1:
            await refused()

    async def recovers():
        await retrying(late, what="x")
        await asyncio.sleep(60)

    first = asyncio.create_task(run(operations, recovers, volume="v"))
    second = asyncio.create_task(run(operations, lambda: retrying(refused, what="x"), volume="w"))
    with pytest.raises(DeadlineExceeded) as caught:
        await first
    assert "last attempt" not in str(caught.value)
    with pytest.raises(DeadlineExceeded, match="last attempt failed: RDS"):
        await second


async def test_what_was_waited_for_is_named_innermost_first(operations):
    async def attempt():
        with noting("its device had not appeared"):
            if asyncio.get_running_loop().time() < 5:
                raise Unavailable("refused")
            await asyncio.sleep(60)

    with pytest.raises(
        DeadlineExceeded,
        match=r"10\.0 s; its device had not appeared; the last attempt failed: refused \(it is",
    ):
        await run(operations, lambda: retrying(attempt, what="x"))


async def test_a_timeout_of_the_work_itself_passes(operations):
    with pytest.raises(TimeoutError):
        await run(operations, raising(TimeoutError()))


async def test_cancelled_from_inside(operations):
    with pytest.raises(OutcomeUnknown, match="cancelled from inside"):
        await run(operations, raising(asyncio.CancelledError()))
    assert not operations.locked("v")


async def test_the_work_goes_on_without_its_caller(operations):
    done = asyncio.Event()

    async def work():
        await asyncio.sleep(3)
        done.set()

    caller = asyncio.create_task(run(operations, work))
    await asyncio.sleep(1)
    for _ in range(4):
        caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    assert operations.locked("v")
    await done.wait()
    await asyncio.sleep(0)
    assert not operations.locked("v")


async def test_a_caller_who_leaves_at_once_leaves_nothing_behind(operations):
    for steps in range(4):
        caller = asyncio.create_task(run(operations, sleeping(1), volume=f"v{steps}"))
        reader = asyncio.create_task(run(operations, sleeping(1), volume=""))
        for _ in range(steps):
            await asyncio.sleep(0)
        caller.cancel()
        reader.cancel()
    await asyncio.sleep(2)
    assert not operations.running
    assert not any(operations.locked(f"v{steps}") for steps in range(4))


async def test_reading_ends_with_its_caller_and_is_cancelled_once(operations):
    cancelled = 0

    async def work():
        nonlocal cancelled
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            await asyncio.sleep(1)
            raise

    caller = asyncio.create_task(run(operations, work, volume=""))
    await asyncio.sleep(1)
    caller.cancel()
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(2)
    assert cancelled == 1
    assert not operations.running


# What cannot be ended keeps its volume locked.


@pytest.mark.requirement("PIT-01")
@pytest.mark.parametrize("wrap", ["plain", "cause", "context", "group"])
async def test_a_stuck_program_keeps_the_lock_until_it_is_gone(operations, wrap):
    gone = asyncio.Event()
    stuck = CommandStuck("mkfs.ext4 does not die", gone=gone, volume="v")

    async def work():
        if wrap == "plain":
            raise stuck
        if wrap == "cause":
            raise Internal("formatting failed") from stuck
        if wrap == "group":
            raise ExceptionGroup("several", [ValueError(), stuck])
        try:
            raise stuck
        except CommandStuck:
            raise Internal("formatting failed") from None

    with pytest.raises(Unavailable, match="does not") as caught:
        await run(operations, work)
    assert caught.value.code in OPEN, "the program may still do its work"
    await asyncio.sleep(30)
    with pytest.raises(OperationPending, match="left a program that does not end"):
        await run(operations, sleeping(0))
    gone.set()
    await asyncio.sleep(0.1)
    await run(operations, sleeping(0))


async def test_a_program_found_stuck_when_the_time_is_up_keeps_the_lock(operations):
    gone = asyncio.Event()

    async def work():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise CommandStuck("umount does not die", gone=gone) from None

    with pytest.raises(DeadlineExceeded):
        await run(operations, work)
    assert operations.locked("v")
    gone.set()
    await asyncio.sleep(0.1)
    assert not operations.locked("v")


async def test_a_program_gone_by_then_keeps_nothing(operations):
    gone = asyncio.Event()
    gone.set()
    with pytest.raises(CommandStuck):
        await run(operations, raising(CommandStuck("was stuck", gone=gone)))
    assert not operations.locked("v")


# The end.


async def test_no_work_after_the_end(operations):
    assert await operations.close(10, 1) == []
    with pytest.raises(ShuttingDown):
        await run(operations, sleeping(0))


async def test_the_end_waits_for_what_runs(operations):
    running = asyncio.create_task(run(operations, sleeping(5, "done")))
    await asyncio.sleep(1)
    assert await operations.close(10, 1) == []
    assert await running == "done"
    assert asyncio.get_running_loop().time() == pytest.approx(5.0)


async def test_the_end_stops_what_takes_too_long(operations):
    running = asyncio.create_task(run(operations, sleeping(60), seconds=100))
    await asyncio.sleep(1)
    assert await operations.close(3, 1) == []
    with pytest.raises(OutcomeUnknown, match="was stopped"):
        await running


async def test_the_end_names_what_does_not_stop(operations):
    async def stubborn():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(60)

    running = asyncio.create_task(run(operations, stubborn, seconds=100))
    await asyncio.sleep(1)
    assert await operations.close(3, 1) == ["NodeStageVolume v"]
    with pytest.raises(OutcomeUnknown):
        await running


async def test_the_end_takes_no_longer_than_its_budgets(operations):
    running = asyncio.create_task(run(operations, sleeping(60), seconds=100))
    await asyncio.sleep(0)
    closing = asyncio.create_task(operations.close(3, 1))
    await asyncio.sleep(4.5)
    assert closing.done()
    await asyncio.wait({running})
    assert isinstance(running.exception(), OutcomeUnknown)
