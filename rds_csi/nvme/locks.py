"""One lock per NQN, which a program that cannot be killed keeps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from rds_csi.errors import CommandStuck


class NqnLocks:
    """Serialises what is done to one subsystem; different ones do not wait for each other."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._keepers: set[asyncio.Task[None]] = set()

    def locked(self, nqn: str) -> bool:
        """Whether something is being done to the subsystem, or hangs at it."""
        lock = self._locks.get(nqn)
        return lock is not None and lock.locked()

    @asynccontextmanager
    async def hold(self, nqn: str) -> AsyncIterator[None]:
        """Wait for the lock and hold it.

        :class:`CommandStuck` leaving the block keeps it locked until the program is gone: what
        hangs in the kernel may still connect or disconnect.
        """
        lock = self._locks.get(nqn)
        if lock is None:
            lock = self._locks[nqn] = asyncio.Lock()
        await lock.acquire()
        try:
            yield
        except CommandStuck as stuck:
            keeper = asyncio.create_task(_release(lock, stuck.gone), name=f"stuck at {nqn}")
            self._keepers.add(keeper)
            keeper.add_done_callback(self._keepers.discard)
            raise
        except BaseException:
            lock.release()
            raise
        lock.release()


async def _release(lock: asyncio.Lock, gone: asyncio.Event) -> None:
    await gone.wait()
    lock.release()
