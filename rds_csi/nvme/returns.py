"""Watches this host's connections, and asks each target that was away what it still knows.

Asked is the target's count of what it was sent (:mod:`.counters`): once when a connection is
found, and once after each return, which the kernel tells (:mod:`.uevents`) or a look now and then
sees. In between a look reads some files of sysfs and runs nothing. Nothing here changes anything:
it logs, counts, and remembers what health answers then say of the volume.

A driver that starts anew compares with what its predecessor knew, if the connection is still the
same. What it then cannot tell is no verdict: whether the target was away meanwhile, nobody saw.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Final

import structlog

from rds_csi.errors import DriverError
from rds_csi.model.volume import read_nqn
from rds_csi.nvme.baseline import BaselineFile, Doubt, Known, Sight, compare, instant
from rds_csi.nvme.counters import CounterReader, Counters, Traffic, Verdict
from rds_csi.nvme.sysfs import Controller, Sysfs
from rds_csi.nvme.uevents import Uevents
from rds_csi.runtime.clock import Clock, SystemClock

log = structlog.get_logger(__name__)

Shown = dict[str, tuple[list[Controller], Sight]]
"""This node's connections to volumes, by NQN, and what the kernel shows of them."""

INTERVAL: Final = 15.0
"""Seconds between two looks when the kernel tells nothing. What was sent since the last look proves
nothing; and each look at 200 volumes is some thousand small reads."""
DEAF: Final = 5.0
"""The same where the kernel's events cannot be had: the default ``reconnectDelay``, so that most
outages are seen while they last."""
SETTLED: Final = 10.0
"""Seconds that a connection is live before its target is asked: a link that comes back often goes
again, and a question that is under way then lengthens what follows by the time that it has
(:mod:`.counters`)."""
_AT_ONCE: Final = 4
"""Targets asked at the same time: an RDS that comes back brings all of its volumes."""
_ATTEMPTS: Final = 3
"""Looks in which a target is asked before it counts as one that says nothing."""


class Returns:
    """Knows of every connected volume what its target said last. Use it on one event loop.

    ``exclusive`` says of a volume whether no other node uses it; ``mapped`` names the volumes whose
    users outlive their connections, because a map stands between: what was known of a connection
    that is gone counts for the next one too. ``on_verdict`` is told of each return: "kept",
    "booted" or "unknown". ``settled``: seconds of being live before a target is asked.
    """

    def __init__(
        self,
        *,
        reader: CounterReader,
        sysfs: Sysfs,
        host_nqn: str,
        file: BaselineFile,
        exclusive: Callable[[str], Awaitable[bool]],
        mapped: Callable[[], Collection[str]] = frozenset,
        on_verdict: Callable[[str], None] = lambda _verdict: None,
        uevents: Uevents | None = None,
        clock: Clock | None = None,
        settled: float = 0.0,
    ) -> None:
        self._settled = settled
        self._live_since: dict[str, float] = {}
        self._reader = reader
        self._sysfs = sysfs
        self._host_nqn = host_nqn
        self._file = file
        self._exclusive = exclusive
        self._mapped = mapped
        self._on_verdict = on_verdict
        self._uevents = uevents or Uevents()
        self._clock = clock or SystemClock()
        self._known: dict[str, Known] = {}
        self._reloaded: set[str] = set()
        """Known of a driver before this one, and not asked yet."""
        self._changed = False

    def doubt(self, volume: str) -> Doubt | None:
        """What has to be doubted of a volume as it is connected now."""
        for nqn, known in self._known.items():
            if _volume(nqn) == volume and known.doubt is not None:
                return known.doubt
        return None

    @property
    def booted(self) -> int:
        """How many volumes are connected since before their target lost its memory."""
        doubts = [known.doubt for known in self._known.values()]
        return sum(each is not None and each.verdict is Verdict.BOOTED for each in doubts)

    async def run(self) -> None:
        """Look on and on; never returns."""
        self._uevents.open()
        try:
            await self._load()
            while True:
                await self.look()
                interval = INTERVAL if self._uevents.listening else DEAF
                await self._uevents.wait(min(interval, self._settled) if self._fresh else interval)
        finally:
            self._uevents.close()

    async def look(self) -> None:
        """One look; whoever has returned is asked."""
        shown = await asyncio.to_thread(self._survey, _is_a_volumes)
        mapped = await asyncio.to_thread(self._mapped)
        # After the survey: a return that it shows may have been told meanwhile.
        returned = self._uevents.take()
        self._forget(shown, mapped)
        limit = asyncio.Semaphore(_AT_ONCE)

        async def ask(nqn: str, controller: Controller, sight: Sight) -> None:
            async with limit:
                await self._ask(nqn, controller, sight)

        async with asyncio.TaskGroup() as group:
            for nqn, (controllers, sight) in shown.items():
                live = [each for each in controllers if each.live]
                told = returned is None or any(each.name in returned for each in live)
                settled = self._is_settled(nqn, live=bool(live), told=told)
                if live and self._is_due(nqn, sight, told=told) and settled:
                    group.create_task(ask(nqn, live[0], sight))
                elif not live and nqn in self._known and not self._known[nqn].away:
                    self._know(nqn, replace(self._known[nqn], away=True))
        await self._save()

    def _survey(self, wanted: Callable[[str], bool]) -> Shown:
        """The connections whose NQN is wanted; some reads for each of them, so off the loop."""
        found: dict[str, list[Controller]] = {}
        for controller in self._sysfs.controllers_of(wanted):
            if controller.hostnqn == self._host_nqn and not controller.leaving:
                found.setdefault(controller.nqn, []).append(controller)
        return {nqn: (each, self._sight(each)) for nqn, each in found.items()}

    def _sight(self, controllers: list[Controller]) -> Sight:
        moved: dict[int, Traffic] = {}
        pending, exact = 0, True
        for controller in controllers:
            shown = self._reader.moved(controller)
            if not (instance := self._reader.instance(controller)):
                continue  # it has gone
            moved[instance] = shown.traffic
            pending += shown.pending
            exact = exact and shown.exact
        namespace = self._sysfs.namespace_of(controllers)
        return Sight(
            at=self._clock.now(),
            moved=moved,
            pending=pending,
            exact=exact,
            size=namespace.size if namespace is not None else 0,
        )

    def _forget(self, shown: Shown, mapped: Collection[str]) -> None:
        """Forget those that are connected no more, or anew: what they mount is what there is."""
        for nqn in self._live_since.keys() - shown.keys():
            del self._live_since[nqn]
        for nqn, known in list(self._known.items()):
            if nqn in shown and shown[nqn][1].shares(known.seen):
                continue
            if _volume(nqn) not in mapped:
                del self._known[nqn]
                self._reloaded.discard(nqn)
                self._changed = True
            elif not known.away:
                self._know(nqn, replace(known, away=True))

    @property
    def _fresh(self) -> bool:
        """Whether a connection became live too short a time ago for its target to be asked."""
        now = self._clock.monotonic()
        return any(now - since < self._settled for since in self._live_since.values())

    def _is_settled(self, nqn: str, *, live: bool, told: bool) -> bool:
        """Whether it has been live for long enough, as far as looks and the kernel's words go."""
        now = self._clock.monotonic()
        if not live:
            self._live_since.pop(nqn, None)
            return False
        if told or nqn not in self._live_since:
            self._live_since[nqn] = now
        return now - self._live_since[nqn] >= self._settled

    def _is_due(self, nqn: str, sight: Sight, *, told: bool) -> bool:
        """Whether a live one is to be asked; if not, what it shows is noted."""
        known = self._known.get(nqn)
        if known is None:
            return True
        if told and not known.away:
            # The last sight may be one of after the return; the one before it is not.
            known = replace(known, away=True, seen=known.earlier)
            self._know(nqn, known)
        if known.away or known.failures or nqn in self._reloaded:
            return True
        self._known[nqn] = replace(known, seen=sight, earlier=known.seen)
        return False

    async def _ask(self, nqn: str, controller: Controller, sight: Sight) -> None:
        if self._sysfs.read(controller.name, "state") != "live":
            return  # gone again: a program that asks it now would hang until it is back
        volume = _volume(nqn)
        known = self._known.get(nqn) or Known(counters=None, sight=sight, seen=sight, earlier=sight)
        try:
            after = await self._reader.read(controller, volume=volume)
        except DriverError as error:
            log.debug("a target says nothing", nqn=nqn, volume=volume, error=str(error))
            self._failed(nqn, known)
            return
        # What the kernel told of it until now is answered by what was just read.
        self._uevents.answered(controller.name)
        shown = await asyncio.to_thread(self._survey, nqn.__eq__)
        if nqn not in shown or not shown[nqn][1].shares(sight):
            return  # gone once more: the next look sees to it
        sight = shown[nqn][1]
        exclusive = await self._exclusive(volume)
        verdict = compare(known, after, sight, exclusive=exclusive)
        doubt = self._judged(nqn, known, verdict, after)
        self._know(nqn, Known(counters=after, sight=sight, seen=sight, earlier=sight, doubt=doubt))
        self._reloaded.discard(nqn)

    def _failed(self, nqn: str, known: Known) -> None:
        """It could not be asked. It is at the next looks, and then not before it returns again."""
        if known.failures + 1 < _ATTEMPTS:
            self._know(nqn, replace(known, failures=known.failures + 1))
            return
        doubt = self._judged(nqn, known, Verdict.UNKNOWN, None)
        self._know(nqn, replace(known, counters=None, away=False, failures=0, doubt=doubt))
        self._reloaded.discard(nqn)

    def _judged(
        self, nqn: str, known: Known, verdict: Verdict, after: Counters | None
    ) -> Doubt | None:
        """Say it, if it was away; the doubt that there is now."""
        if not known.away and not (nqn in self._reloaded and verdict is Verdict.BOOTED):
            return known.doubt
        now = self._clock.now()
        told = {
            "volume": _volume(nqn),
            "nqn": nqn,
            "alive_at": instant(known.seen.at),
            "back_at": instant(now),
            "before": str(known.counters),
            "after": str(after),
        }
        self._on_verdict(verdict.value)
        if verdict is Verdict.KEPT:
            log.info("the target was away and kept what it had acknowledged", **told)
            return known.doubt
        if verdict is Verdict.BOOTED:
            log.error("the target began anew: what was not flushed before is lost", **told)
        else:
            log.warning("the target was away; what it kept cannot be told", **told)
        doubt = Doubt(verdict=verdict, since=known.seen.at, until=now)
        return doubt if known.doubt is None else known.doubt.joined(doubt)

    def _know(self, nqn: str, known: Known) -> None:
        self._known[nqn] = known
        self._changed = True

    async def _load(self) -> None:
        try:
            self._known = await asyncio.to_thread(self._file.read)
        except (OSError, ValueError) as error:
            log.warning("what targets counted cannot be read", error=str(error))
        self._reloaded = set(self._known)

    async def _save(self) -> None:
        if not self._changed:
            return
        self._changed = False
        try:
            await asyncio.to_thread(self._file.write, dict(self._known))
        except OSError as error:
            log.warning("what targets counted cannot be kept", error=str(error))


def _is_a_volumes(nqn: str) -> bool:
    return read_nqn(nqn) is not None


def _volume(nqn: str) -> str:
    """The volume that an NQN of an export names."""
    name = read_nqn(nqn)
    return name.volume if name is not None else ""
