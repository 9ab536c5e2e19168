"""Watches the maps of this node, and brings back what the kernel gave up.

Idle, it asks once a second whether anything changed: whether a connection or a block device came
or went, whether device mapper met a failure. Only then, and once in a while, all maps are looked
at. What was there before the driver was started is found in the kernel like everything else.

A volume without a way gets a task of its own, which knocks at its target, takes the volume's lock
as an RPC does, and has :class:`~rds_csi.node.mender.Mender` try; after a failure it waits as the
retry policy says, and at least as long as the attempt took: half of the time the lock is free for
whoever wants to unstage the volume. All of it ends with the driver, at any step, without harm.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from rds_csi.errors import (
    OPEN,
    DriverError,
    OperationPending,
    ShuttingDown,
    VolumeInUse,
    code_of,
)
from rds_csi.node.mender import Mender
from rds_csi.node.waiting import GIVEN_UP, NOT_HEALED, RECONNECTING, Waits
from rds_csi.node.ways import Seen, Sight, Way
from rds_csi.nvme.door import Door
from rds_csi.runtime.retry import DelaySequence, RetryPolicy, delays

log = structlog.get_logger(__name__)

TICK: Final = 1.0
"""Seconds between two questions whether anything changed."""
_WHILE_ILL: Final = 2.0
"""Seconds between two looks at all maps while one has no way."""
_WHILE_WELL: Final = 30.0
_BLIND: Final = 5.0
"""The same where the kernel does not tell of events."""
_ATTEMPT: Final = 100.0
"""Seconds for one attempt; each of its steps has a shorter limit."""
_SOON: Final = 2.0
_LATER: Final = 30.0
"""The longest waits between two attempts, in seconds: at first and while the target is away, and
after ``_PATIENCE`` refusals or where somebody has to act before anything can change."""
_PATIENCE: Final = 300
_TRYING: Final = (Way.LOST, Way.MOVED, Way.EMPTY)

Work = Callable[[], Awaitable[bool]]


class Exclusively(Protocol):
    """Who does a work with a volume's lock held: :class:`rds_csi.rpc.operations.Operations`."""

    def __call__(
        self,
        volume: str,
        work: Work,
        timeout: float,
    ) -> Coroutine[Any, Any, bool]:
        """Do it; :class:`OperationPending` while an RPC has the lock."""


def entries(root: Path = Path("/sys")) -> tuple[tuple[str, ...], ...]:
    """Which controllers and block devices the kernel has: two small reads."""
    return tuple(_names(root / name) for name in ("block", "class/nvme"))


def _names(directory: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(directory)))  # noqa: PTH208 - names are all that is asked
    except OSError:
        return ()


class Healer:
    """Brings volumes back, one task for each that has no way.

    ``entries`` and ``events`` tell whether anything changed (``events`` None: it cannot be told).
    ``exclusively`` does a work under a volume's lock; ``on_healed`` is told of each volume brought
    back: a metric.
    """

    def __init__(
        self,
        *,
        sight: Sight,
        mender: Mender,
        waits: Waits,
        exclusively: Exclusively,
        door: Door | None = None,
        events: Callable[[], bool | None] = lambda: None,
        entries: Callable[[], object] = entries,
        rng: random.Random | None = None,
        on_healed: Callable[[str], None] = lambda _volume: None,
    ) -> None:
        self._sight = sight
        self._mender = mender
        self._waits = waits
        self._exclusively = exclusively
        self._door = door or Door()
        self._events = events
        self._entries = entries
        self._rng = rng
        self._on_healed = on_healed
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch and heal, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._watch(group)
        finally:
            self._tasks.clear()

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        known: object = None
        looked = float("-inf")
        maps = False
        while True:
            now, before = self._entries(), known
            # Without a map there is nothing that an event could tell of.
            event = self._events() if maps else False
            longest = _WHILE_ILL if self._waits.all else _BLIND if event is None else _WHILE_WELL
            if now != before or event or loop.time() - looked >= longest:
                try:
                    maps = await self._look(group)
                except (DriverError, OSError) as error:
                    log.warning("cannot look at the maps", error=str(error))
                else:
                    known = now
                looked = loop.time()
            await asyncio.sleep(TICK)

    async def _look(self, group: asyncio.TaskGroup) -> bool:
        """One look at all maps, and a task for each volume that needs one; whether there are any.

        A volume that has a task is judged by it.
        """
        found = await self._sight.all()
        gone = (self._waits.all.keys() | self._tasks.keys()) - {each.volume for each in found}
        for volume in gone:  # unstaged meanwhile
            self._waits.over(volume)
            if (task := self._tasks.get(volume)) is not None:
                task.cancel()
        for volume, seen in sorted(_worst(found)):
            if volume in self._tasks:
                continue
            if self._note(seen) in _TRYING:
                task = group.create_task(self._bring_back(seen), name=f"heal {volume}")
                self._tasks[volume] = task
                task.add_done_callback(partial(self._done, volume))
        return bool(found)

    def _done(self, volume: str, _task: asyncio.Task[None]) -> None:
        self._tasks.pop(volume, None)

    def _note(self, seen: Seen) -> Way:
        """The way of a volume, which is kept for whoever asks."""
        way, why = self._mender.judge(seen)
        if way is Way.WELL:
            self._end(seen.volume)
        elif way is Way.KERNEL:
            self._say(seen.volume, RECONNECTING, why)
        elif way is Way.BARRED:
            self._say(seen.volume, NOT_HEALED, why)
        elif (known := self._waits.of(seen.volume)) is None or known.reason == RECONNECTING:
            self._say(seen.volume, GIVEN_UP, why)
        return way

    def _say(self, volume: str, reason: str, why: str, *, tried: bool = False) -> None:
        news = self._waits.note(volume, reason, why, tried=tried)
        (log.warning if news else log.debug)("its I/O waits", volume=volume, reason=reason, why=why)

    def _end(self, volume: str) -> None:
        if (waited := self._waits.over(volume)) is not None:
            log.info("its I/O flows again", volume=volume, was=waited.reason, tries=waited.tries)

    async def _bring_back(self, seen: Seen) -> None:
        """Try until the volume is back, unstaged, or somebody else's to bring back."""
        loop = asyncio.get_running_loop()
        pace = _Pace(self._rng)
        while True:
            began = loop.time()
            try:
                if not await self._reached(seen):
                    pace.begin()
                elif await self._ended(seen.volume, pace):
                    return
            except ShuttingDown:
                return
            except OperationPending as pending:
                log.debug("heals later", volume=seen.volume, why=str(pending))
            except (DriverError, OSError) as error:
                pace.failed(hopeless=self._failed(seen.volume, error))
            await asyncio.sleep(max(pace.next(), loop.time() - began))

    async def _ended(self, volume: str, pace: "_Pace") -> bool:
        """Whether there is nothing left to do, after one attempt."""
        seen = await self._sight.at(volume)
        if seen is None:
            self._waits.over(volume)
            return True
        way = self._note(seen)
        if way not in _TRYING:
            return True
        pace.empty = pace.empty + 1 if way is Way.EMPTY else 0
        if pace.empty == 1:
            return False  # the kernel may be about to find the device of a new connection
        healed = await self._exclusively(volume, lambda: self._mender.mend(volume), _ATTEMPT)
        if healed:
            self._on_healed(volume)
            self._end(volume)
        return healed

    async def _reached(self, seen: Seen) -> bool:
        """Whether the volume's target answers, at one of its addresses."""
        if seen.record is None:
            return True  # the mender says what is wrong
        endpoints = self._mender.target(seen.record).endpoints
        for endpoint in endpoints:
            if await self._door.open(endpoint):
                return True
        tried = ", ".join(f"{each.address}:{each.port}" for each in endpoints)
        self._say(seen.volume, GIVEN_UP, f"nothing answers at {tried}")
        return False

    def _failed(self, volume: str, error: Exception) -> bool:
        """Keep why an attempt failed; whether somebody has to act before anything can change."""
        # What is in use may be so for a moment: the kernel lets go of it, or udev looks at it.
        hopeless = code_of(error) not in OPEN and not isinstance(error, VolumeInUse)
        self._say(volume, NOT_HEALED if hopeless else GIVEN_UP, str(error), tried=True)
        return hopeless


class _Pace:
    """How long to wait between two attempts: the longer, the less they can be hoped to change."""

    def __init__(self, rng: random.Random | None) -> None:
        self._rng = rng
        self.empty = 0
        """How often in a row a connection without a device was seen."""
        self.begin()

    def begin(self) -> None:
        """The target is away: it is new when it comes back."""
        self._failures = 0
        self._waits = self._limited(_SOON)

    def failed(self, *, hopeless: bool) -> None:
        """The target answered, and it was in vain."""
        self._failures += 1
        if self._failures == _PATIENCE or (hopeless and self._failures < _PATIENCE):
            self._failures = max(self._failures, _PATIENCE)
            self._waits = self._limited(_LATER)

    def next(self) -> float:
        """Seconds."""
        return self._waits.next()

    def _limited(self, limit: float) -> DelaySequence:
        return delays(RetryPolicy(), limit=limit, rng=self._rng)


def _worst(found: list[Seen]) -> Iterator[tuple[str, Seen]]:
    """One map of each volume: of several, which are none of ours to heal, the newest."""
    ordered = sorted(found, key=lambda each: each.map.identity.generation)
    yield from {each.volume: each for each in ordered}.items()
