"""The operations under way: each in a task of its own, one at a time per volume.

grpclib cancels the handler of a call several times over when its caller leaves, which would cut
short whatever the handler does to tidy up. So the work runs in another task, behind a shield.
Work that changes something then goes on to its own end without its caller, and a repeated call
learns that it is still running; work that only reads is cancelled, once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import structlog

from rds_csi.errors import (
    OPEN,
    CommandStuck,
    DeadlineExceeded,
    DriverError,
    Internal,
    OperationPending,
    OutcomeUnknown,
    ShuttingDown,
    code_of,
)
from rds_csi.runtime.causes import Causes, collect

T = TypeVar("T")
log = structlog.get_logger(__name__)

_LEFTOVERS: Final = "an earlier call left a program that does not end"
_PATIENCE: Final = 5.0
"""Seconds that a call waits for the one before it, which mostly is about to end. Refused at once,
a pod would get a Warning, and its sidecar's next attempt is seconds away."""


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """What came of the work. A task that returns its error never warns of one nobody fetched."""

    value: T | None = None
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class Operation:
    """One piece of work under way. ``volume`` is empty where it only reads; times in seconds."""

    rpc: str
    volume: str
    started: float
    timeout: float
    task: "asyncio.Task[Any] | None" = None
    abandoned: bool = False
    cancelled: bool = False
    stuck: CommandStuck | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Whoever waits for its end may look again."""

    @property
    def mutates(self) -> bool:
        """Whether it changes something, and so holds the lock of its volume."""
        return bool(self.volume)


@dataclass(eq=False, slots=True)
class Operations:
    """The registry. ``scope`` sets its locks apart from those of other services' operations."""

    running: set[Operation] = field(default_factory=set)
    _locks: dict[tuple[str, str], Operation] = field(default_factory=dict)
    _waiters: set[asyncio.Task[None]] = field(default_factory=set)
    _closing: bool = False

    def locked(self, volume: str) -> bool:
        """Whether an operation, or what one left behind, holds any lock of the volume."""
        return any(held == volume for _, held in self._locks)

    def ages(self) -> list[tuple[str, float]]:
        """The RPC of each operation under way, and since how many seconds it is."""
        now = asyncio.get_running_loop().time()
        return [(operation.rpc, now - operation.started) for operation in self.running]

    async def run(
        self,
        rpc: str,
        work: Callable[[], Awaitable[T]],
        *,
        timeout: float,  # noqa: ASYNC109 - it must end the work, not the waiting for it
        volume: str = "",
        scope: str = "",
    ) -> T:
        """Do the work within ``timeout`` seconds; with ``volume``, holding that volume's lock.

        A lock that is taken is waited for a moment, at most half of that time. Raises
        :class:`OperationPending` if it is taken still, :class:`ShuttingDown` after
        :meth:`close`, :class:`DeadlineExceeded` when the time is up, and what the work raises.
        """
        loop = asyncio.get_running_loop()
        came = loop.time()
        if volume:
            await self._turn((scope, volume), came + min(_PATIENCE, timeout / 2))
        if self._closing:
            raise ShuttingDown("the driver is stopping", volume=volume, advice="try again")
        now = loop.time()
        operation = Operation(rpc, volume, now, timeout - (now - came))
        # Nothing is awaited between the last look at the lock and here.
        if volume:
            self._lock((scope, volume), operation)
        task = asyncio.create_task(_attempt(operation, work), name=f"{rpc} {volume}".rstrip())
        operation.task = task
        self.running.add(operation)
        # Before anybody else is told of the end, so that a caller who has the answer has the lock.
        task.add_done_callback(lambda task: self._ended((scope, volume), operation, task))
        try:
            outcome = await asyncio.shield(task)
        except asyncio.CancelledError:
            operation.abandoned = True
            if not operation.mutates and not task.done():
                self._cancel(operation)
            raise
        if outcome.error is not None:
            raise outcome.error
        return outcome.value  # type: ignore[return-value]  # of the work, which returned T

    async def _turn(self, key: tuple[str, str], until: float) -> None:
        """Wait until nobody holds the lock, or it makes no sense to wait any longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while not self._closing and (holder := self._locks.get(key)) and not holder.stuck:
                    await holder.over.wait()

    def _lock(self, key: tuple[str, str], operation: Operation) -> None:
        holder = self._locks.get(key)
        if holder is not None:
            age = operation.started - holder.started
            state = (
                f"{_LEFTOVERS} ({holder.rpc}, {age:.1f} s ago)"
                if holder.stuck
                else f"{holder.rpc} has been running for {age:.1f} s"
            )
            raise OperationPending(state, volume=operation.volume, advice="try again later")
        self._locks[key] = operation

    def _ended(
        self, key: tuple[str, str], operation: Operation, task: "asyncio.Task[_Outcome[T]]"
    ) -> None:
        self.running.discard(operation)
        ended = not task.cancelled() and task.exception() is None
        error = task.result().error if ended else None
        if operation.mutates:
            self._unlock(key, operation, error)
            if operation.abandoned:
                _report(operation, error)

    def _unlock(self, key: tuple[str, str], operation: Operation, error: Exception | None) -> None:
        operation.stuck = _stuck(error)
        operation.over.set()
        if operation.stuck is None:
            del self._locks[key]
            return
        log.error("volume stays locked", volume=operation.volume, reason=_LEFTOVERS)
        waiter = asyncio.create_task(self._unlock_later(key, operation.stuck))
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)

    async def _unlock_later(self, key: tuple[str, str], stuck: CommandStuck) -> None:
        await stuck.gone.wait()
        del self._locks[key]
        log.info("volume unlocked", volume=key[1])

    def _cancel(self, operation: Operation) -> None:
        # Once only: a second cancellation would interrupt what the first one set off.
        if operation.task is not None and not operation.cancelled:
            operation.cancelled = True
            operation.task.cancel()

    def refuse(self) -> None:
        """Take no more work, also of those who wait for their turn."""
        self._closing = True
        for operation in self.running:
            operation.over.set()

    async def close(self, budget: float, grace: float) -> list[str]:
        """Take no more work, give what runs ``budget`` seconds, then cancel it.

        Returns the names of operations that still run ``grace`` seconds after that.
        """
        self.refuse()
        await self._wait(budget)
        for operation in tuple(self.running):
            log.warning("operation cancelled", rpc=operation.rpc, volume=operation.volume)
            self._cancel(operation)
        await self._wait(grace)
        for waiter in self._waiters:
            waiter.cancel()
        return [f"{each.rpc} {each.volume}".rstrip() for each in self.running]

    async def _wait(self, seconds: float) -> None:
        tasks = [each.task for each in self.running if each.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


async def _attempt(operation: Operation, work: Callable[[], Awaitable[T]]) -> _Outcome[T]:
    timer, causes = asyncio.timeout(operation.timeout), collect()
    try:
        async with timer:
            return _Outcome(value=await work())
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - for whoever waits
        if timer.expired():
            # Whatever the work made of being stopped: the outcome is open, not an error of ours.
            what = f"{operation.rpc} did not end within {operation.timeout:.1f} s"
            return _Outcome(error=_open(DeadlineExceeded, what, operation, error, causes))
        if operation.cancelled:
            what = f"{operation.rpc} was stopped"
        elif isinstance(error, asyncio.CancelledError):
            what = f"{operation.rpc} was cancelled from inside"
        elif _stuck(error) is not None and code_of(error) not in OPEN:
            # It may still do what it was started for, whatever the work made of it.
            what = f"{operation.rpc} failed, and a program it started does not end"
        else:
            return _Outcome(error=error)
        return _Outcome(error=_open(OutcomeUnknown, what, operation, error, causes))


def _open(
    kind: type[DriverError],
    what: str,
    operation: Operation,
    cause: BaseException,
    causes: Causes,
) -> DriverError:
    said = f": {cause}" if isinstance(cause, DriverError) else ""
    advice = "; ".join(filter(None, [causes.advice, "it is safe to repeat"]))
    error = kind("; ".join([what + said, *causes.texts]), volume=operation.volume, advice=advice)
    error.__cause__ = cause
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and the members of groups on the way."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions


def _stuck(error: BaseException | None) -> CommandStuck | None:
    for each in _causes(error):
        if isinstance(each, CommandStuck) and not each.gone.is_set():
            return each
    return None


def _report(operation: Operation, error: Exception | None) -> None:
    """Log what nobody was left to be told."""
    duration = asyncio.get_running_loop().time() - operation.started
    fields = {"rpc": operation.rpc, "volume": operation.volume, "duration_s": round(duration, 3)}
    if error is None:
        log.info("operation ended after its caller had left", **fields)
    elif isinstance(error, DriverError) and not isinstance(error, Internal):
        log.warning("operation failed after its caller had left", **fields, error=str(error))
    else:
        log.error("operation failed after its caller had left", **fields, exc_info=error)
