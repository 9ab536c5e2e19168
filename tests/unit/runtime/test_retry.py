"""The one retry policy, in virtual time."""

import asyncio
import random

import pytest

from rds_csi.errors import (
    CommandFailed,
    CommandStuck,
    CommandTimeout,
    ConnectFailed,
    ConnectRejected,
    InvalidRequest,
    NotAuthorised,
    OutcomeUnknown,
    Unavailable,
)
from rds_csi.runtime.retry import (
    PERMANENT_TEXTS,
    TRANSIENT_TEXTS,
    RetryPolicy,
    delays,
    is_transient,
    retrying,
    text_is_transient,
)

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


class Attempts:
    """Fails ``failures`` times, then succeeds; remembers when it was asked."""

    def __init__(self, failures: int = 1000, error: Exception | None = None) -> None:
        self._failures = failures
        self._error = error if error is not None else Unavailable("away")
        self.instants: list[float] = []

    async def __call__(self) -> str:
        self.instants.append(now())
        if len(self.instants) <= self._failures:
            raise self._error
        return "done"

    @property
    def waits(self) -> list[float]:
        return [
            after - before for before, after in zip(self.instants, self.instants[1:], strict=False)
        ]


@pytest.mark.requirement("BACK-01")
def test_the_policy_everybody_gets() -> None:
    assert RetryPolicy() == RetryPolicy(attempts=5, initial=1.0, factor=2.0, jitter=0.1)


@pytest.mark.requirement("BACK-01")
@pytest.mark.requirement("BACK-03")
@pytest.mark.requirement("PIT-06")
async def test_exhausts_five_attempts_with_four_waits_of_1_2_4_8() -> None:
    attempts = Attempts(error=Unavailable("the last cause"))
    with pytest.raises(Unavailable, match="the last cause"):
        await retrying(attempts, what="test")
    assert len(attempts.instants) == 5
    for wait, nominal in zip(attempts.waits, (1, 2, 4, 8), strict=True):
        assert nominal <= wait < nominal * 1.1 + 1e-6


@pytest.mark.requirement("OPEN-04")
@pytest.mark.requirement("CONN-02")
@pytest.mark.requirement("ANTI-02")
async def test_the_waits_have_jitter_within_its_bounds() -> None:
    firsts = []
    for seed in range(50):
        attempts = Attempts(1)
        await retrying(attempts, what="test", rng=random.Random(seed))
        firsts.append(attempts.waits[0])
    assert all(1.0 <= wait < 1.1 + 1e-6 for wait in firsts)
    assert len({round(wait, 6) for wait in firsts}) > 40
    assert max(firsts) - min(firsts) > 0.05


@pytest.mark.requirement("BACK-03")
async def test_success_at_once() -> None:
    attempts = Attempts(0)
    assert await retrying(attempts, what="test") == "done"
    assert len(attempts.instants) == 1
    assert now() == 0


@pytest.mark.requirement("BACK-03")
async def test_retry_then_success() -> None:
    attempts, told = Attempts(2), []
    assert await retrying(attempts, what="test", on_retry=lambda: told.append(now())) == "done"
    assert len(attempts.instants) == 3
    assert len(told) == 2


@pytest.mark.requirement("BACK-03")
@pytest.mark.parametrize(
    "error",
    [
        ConnectRejected("x"),
        InvalidRequest("x"),
        OutcomeUnknown("x"),
        NotAuthorised("connection refused"),
        CommandFailed("connection refused", returncode=1),
        CommandStuck("try again"),
        ValueError("x"),
    ],
)
async def test_non_retryable_is_raised_at_once(error: Exception) -> None:
    attempts = Attempts(error=error)
    with pytest.raises(type(error)) as caught:
        await retrying(attempts, what="test")
    assert caught.value is error
    assert len(attempts.instants) == 1


@pytest.mark.requirement("BACK-03")
async def test_cancelled_in_a_wait_ends_at_once() -> None:
    attempts = Attempts()
    task = asyncio.create_task(retrying(attempts, what="test"))
    await asyncio.sleep(2.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == 2.0
    assert len(attempts.instants) == 2


async def test_cancelled_in_an_attempt_ends_at_once() -> None:
    started = 0

    async def attempt() -> None:
        nonlocal started
        started += 1
        await asyncio.sleep(100)

    task = asyncio.create_task(retrying(attempt, what="test"))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert started == 1


@pytest.mark.requirement("BACK-03")
async def test_already_cancelled_makes_at_most_one_attempt() -> None:
    attempts = Attempts()
    task = asyncio.create_task(retrying(attempts, what="test"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(attempts.instants) <= 1


async def test_a_deadline_ends_it() -> None:
    attempts = Attempts()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4):
            await retrying(attempts, what="test")
    assert now() == 4
    assert len(attempts.instants) == 3


@pytest.mark.requirement("PIT-02")
async def test_instances_that_share_a_seed_do_not_retry_at_the_same_instants() -> None:
    async def instance() -> list[float]:
        random.seed(42)
        attempts = Attempts()
        with pytest.raises(Unavailable):
            await retrying(attempts, what="test")
        return attempts.waits

    first, second = await instance(), await instance()
    assert all(one != other for one, other in zip(first, second, strict=True))


async def test_two_seeds_differ_and_one_seed_repeats_for_tests() -> None:
    async def waits(seed: int) -> list[float]:
        attempts = Attempts(3)
        await retrying(attempts, what="test", rng=random.Random(seed))
        return [round(wait, 9) for wait in attempts.waits]

    assert await waits(1) != await waits(2)
    assert await waits(1) == await waits(1)


@pytest.mark.requirement("BACK-02")
def test_all_texts_of_the_list() -> None:
    assert len(TRANSIENT_TEXTS) == 14
    for text in TRANSIENT_TEXTS:
        assert text_is_transient(f"nvme: {text.upper()}!")
        assert is_transient(Exception(f"before {text.title()} after"))
    for text in PERMANENT_TEXTS:
        assert not text_is_transient(text.upper())
        assert not text_is_transient(f"{text}: try again")
    assert set(PERMANENT_TEXTS) == {
        "permission denied",
        "invalid argument",
        "no such file or directory",
        "file exists",
    }
    assert not text_is_transient("")
    assert not text_is_transient("something else")


@pytest.mark.requirement("BACK-02")
@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (None, False),
        (Unavailable("permission denied"), True),  # the class decides first
        (ConnectFailed("x"), True),
        (ConnectRejected("connection refused"), False),
        (CommandTimeout("x"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError("No route to host"), True),
        (OSError("Permission denied"), False),
        (asyncio.CancelledError("try again"), False),
        (KeyboardInterrupt("try again"), False),
    ],
)
def test_is_transient(error: BaseException | None, transient: bool) -> None:
    assert is_transient(error) is transient


def test_delays_grow_to_a_limit_and_start_again() -> None:
    sequence = delays(RetryPolicy(jitter=0.0), limit=5.0)
    assert [sequence.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    sequence.reset()
    assert sequence.next() == 1


def test_delays_have_jitter() -> None:
    sequence = delays(RetryPolicy(), limit=1.0, rng=random.Random(1))
    waits = [sequence.next() for _ in range(20)]
    assert all(1.0 <= wait < 1.1 for wait in waits)
    assert len(set(waits)) == 20
