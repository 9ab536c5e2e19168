"""The one cancellation scope: what is in it ends the moment the driver stops.

In it are the long-lived services, the orphan reaper first of all, and every ``nvme connect``
with its retries: work that may be broken off at any instant, because the next start and the
kubelet's next call find what it left. What must not be broken off, like a ``mkfs``, is not in
it: that gets the drain budget (:mod:`rds_csi.driver.lifecycle`).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rds_csi.errors import ShuttingDown

T = TypeVar("T")


class Scope:
    """The tasks that :meth:`stop` cancels, now and from then on."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopped = False

    def add(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Put the task into the scope; returns it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._stopped:
            task.cancel()
        return task

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await ``work()`` inside the scope; :class:`ShuttingDown` if the scope ends it.

        A cancelled caller cancels the work. Either way it has ended when this returns, and an
        error it ended with goes before the cancellation: it may be that a program is stuck.
        """
        if self._stopped:
            raise ShuttingDown("not begun: the driver is stopping")
        task = self.add(asyncio.ensure_future(work()))
        cancellation: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancellation = error
                task.cancel()
        if cancellation is not None and (task.cancelled() or task.exception() is None):
            raise cancellation
        if task.cancelled() and self._stopped:
            raise ShuttingDown("broken off: the driver is stopping")
        return task.result()

    def stop(self) -> None:
        """Cancel what is in the scope; what comes later is not begun. Again is harmless."""
        self._stopped = True
        for task in tuple(self._tasks):
            task.cancel()
