"""The one retry policy: few attempts, exponential waits, jitter, transient errors only.

Source of the numbers: five attempts, 1 s doubling, each wait stretched by a random 0-10 %, so
that nodes which lost the same target do not come back in the same instant. ``backoff`` counts
the first call as an attempt: five attempts are four waits of 1, 2, 4 and 8 s.

Nothing here knows a deadline. Callers run under ``asyncio.timeout``; cancellation ends a wait
at once, because ``backoff`` never catches ``CancelledError``.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import backoff
import structlog

from rds_csi.errors import DriverError
from rds_csi.runtime.causes import note_failure

T = TypeVar("T")
log = structlog.get_logger(__name__)

TRANSIENT_TEXTS = (
    "connection refused",
    "connection reset",
    "connection timeout",
    "connection timed out",
    "no route to host",
    "network unreachable",
    "network is unreachable",
    "host is unreachable",
    "device did not appear",
    "i/o timeout",
    "io timeout",
    "temporary failure",
    "resource temporarily unavailable",
    "try again",
)
"""What programs say of a failure that may pass; compared without regard to case."""

PERMANENT_TEXTS = (
    "permission denied",
    "invalid argument",
    "no such file or directory",
    "file exists",
)
"""What programs say of a failure that repeating does not mend; wins over the list above."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how far apart. Times in seconds."""

    attempts: int = 5
    initial: float = 1.0
    factor: float = 2.0
    jitter: float = 0.1


def is_transient(error: BaseException | None) -> bool:
    """Whether the same attempt may succeed a moment later.

    The error's class decides first; the texts decide only for errors that are not ours, or
    whose class leaves it open (``OSError`` from the network, a program's stderr).
    """
    if error is None:
        return False
    if isinstance(error, DriverError):
        return error.transient
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    return isinstance(error, Exception) and text_is_transient(str(error))


def text_is_transient(text: str) -> bool:
    """Whether a program's message is one of a failure that may pass."""
    lowered = text.lower()
    if any(permanent in lowered for permanent in PERMANENT_TEXTS):
        return False
    return any(transient in lowered for transient in TRANSIENT_TEXTS)


async def retrying(
    attempt: Callable[[], Awaitable[T]],
    *,
    what: str,
    policy: RetryPolicy = RetryPolicy(),
    rng: random.Random | None = None,
    on_retry: Callable[[], None] | None = None,
) -> T:
    """Await ``attempt()`` until it succeeds, fails for good, or the attempts are used up.

    Raises the last attempt's own error. Cancelled, it notes with what the last attempt failed
    (:mod:`rds_csi.runtime.causes`). ``what`` names the work in the log; ``on_retry`` is
    told of each repetition (a metric).
    """
    source = rng if rng is not None else random.SystemRandom()

    def stretched(wait: float) -> float:
        return wait * (1.0 + policy.jitter * source.random())

    failed: list[BaseException] = []

    def report(details: Any) -> None:
        failed[:] = [details["exception"]]
        log.warning(
            "retrying",
            what=what,
            attempt=details["tries"],
            of=policy.attempts,
            wait_s=round(details.get("wait", 0.0), 3),
            error=str(details["exception"]),
        )
        if on_retry is not None:
            on_retry()

    decorated = backoff.on_exception(
        backoff.expo,
        Exception,
        max_tries=policy.attempts,
        jitter=stretched,
        giveup=lambda error: not is_transient(error),
        on_backoff=report,
        logger=None,
        base=policy.factor,
        factor=policy.initial,
    )

    @decorated
    async def run() -> T:
        return await attempt()

    try:
        return await run()
    except asyncio.CancelledError:
        for error in failed:
            note_failure(error)
        raise


def delays(
    policy: RetryPolicy, *, limit: float, rng: random.Random | None = None
) -> "DelaySequence":
    """Endless waits of the same shape, capped at ``limit`` seconds: for reconnect loops."""
    return DelaySequence(policy, limit, rng if rng is not None else random.SystemRandom())


class DelaySequence:
    """The waits of a loop that never gives up; ``reset`` after it worked."""

    def __init__(self, policy: RetryPolicy, limit: float, rng: random.Random) -> None:
        self._policy = policy
        self._limit = limit
        self._rng = rng
        self._next = policy.initial

    def next(self) -> float:
        """The next wait in seconds, jitter included."""
        wait = self._next
        self._next = min(self._next * self._policy.factor, self._limit)
        return wait * (1.0 + self._policy.jitter * self._rng.random())

    def reset(self) -> None:
        """Start again from the shortest wait."""
        self._next = self._policy.initial
