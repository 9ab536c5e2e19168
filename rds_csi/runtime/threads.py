"""An event loop whose threads cannot keep the process.

A call that blocks, as ``getaddrinfo`` does while no DNS server answers, or a read of a dead disk,
is made in a thread and cannot be broken off. Those of the standard library are waited for when
the loop ends and again when the interpreter does: a driver that had said "stopped" stood there for
another minute.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, ParamSpec, TypeVar

import structlog

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

LAST_BUDGET: Final = 1.0
"""Seconds that calls in threads have at the end: to write what they are about to."""


class Threads(ThreadPoolExecutor):
    """Makes each call in a daemon thread of its own, which the interpreter does not wait for.

    A pool only by name, which asyncio insists on: nothing here runs often, and how much runs at
    once is for those to bound who call.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._running: set[Future[Any]] = set()
        self._ended = False

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call it, now. Raises RuntimeError after :meth:`shutdown`."""
        if self._ended:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._running.add(future)
        future.add_done_callback(self._running.discard)

        def call() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=call, name="call", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``wait`` those under way get :data:`LAST_BUDGET` seconds."""
        self._ended = True
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        if wait and not _end(self._running.copy()):
            log.warning("calls that hang are left behind", calls=len(self._running))


def _end(running: "set[Future[Any]]") -> bool:
    return not wait(running, timeout=LAST_BUDGET).not_done


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, but for calls in threads that hang: they end with the process."""

    async def with_threads() -> T:
        asyncio.get_running_loop().set_default_executor(Threads())
        return await main

    return asyncio.run(with_threads())
