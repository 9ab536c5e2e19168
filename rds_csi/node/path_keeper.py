"""Brings back the ways to a volume that are missing, where its RDS has several addresses.

A stage is content with one. The kernel itself tries again what was connected and is lost, for as
long as the class says. What is left is done here: an address that was down at the stage, and one
that the kernel gave up.

It never makes a first connection, and nothing here mounts, unmounts or disconnects. A node that
lost a volume to another one must not come back by itself. So a path is added only beside one that
is live, where the RDS still takes this node's I/O, or under a name that carries the generation of
the hand-over, which a former holder asks for in vain (:mod:`rds_csi.model.volume`).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from rds_csi.errors import DriverError
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.model.volume import read_nqn
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.nvme.multipath import missing
from rds_csi.nvme.sysfs import Controller
from rds_csi.runtime.clock import Clock, SystemClock
from rds_csi.runtime.retry import DelaySequence, RetryPolicy, delays

log = structlog.get_logger(__name__)

INTERVAL: Final = 15.0
"""Seconds between two looks: some reads for each volume that has several addresses."""
LONGEST_WAIT: Final = 60.0
"""Seconds after which an address that stays away is tried again."""
_AT_ONCE: Final = 4
"""Volumes that are worked on at once: connects are limited, and a stage goes before."""


class Initiator(Protocol):
    """The node's side of NVMe/TCP: :class:`rds_csi.nvme.connector.Connector`."""

    async def connect_missing(
        self,
        target: Target,
        config: ConnectionConfig,
        *,
        volume: str = "",
        confirm: Callable[[], Awaitable[bool]] | None = None,
    ) -> list[str]:
        """Connect beside what is connected; returns the addresses that are still without."""


class Subsystems(Protocol):
    """What sysfs shows: :class:`rds_csi.nvme.sysfs.Sysfs`."""

    def controllers_of(self, wanted: Callable[[str], bool]) -> list[Controller]:
        """The controllers whose NQN is wanted."""


@dataclass(slots=True)
class _Turn:
    """When a volume is tried next, by the clock that does not jump."""

    waits: DelaySequence
    due: float = 0.0


class PathKeeper:
    """Looks at the staged volumes of this node, again and again.

    The waits for an address that stays away are those of ``policy``, up to a minute. A call on the
    volume goes before: what is done here is done under the subsystem's lock, once what the call
    left is seen to want it still.
    """

    def __init__(
        self,
        *,
        initiator: Initiator,
        subsystems: Subsystems,
        store: StagingStore,
        host_nqn: str,
        interval: float = INTERVAL,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        rng: random.Random | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._initiator = initiator
        self._subsystems = subsystems
        self._store = store
        self._host_nqn = host_nqn
        self._interval = interval
        self._policy = policy
        self._rng = rng if rng is not None else random.SystemRandom()
        self._clock = clock if clock is not None else SystemClock()
        self._turns: dict[str, _Turn] = {}

    async def run(self) -> None:
        """A pass every interval, stretched by the policy's jitter so that nodes keep no step."""
        while True:
            stretch = 1.0 + self._policy.jitter * self._rng.random()
            await asyncio.sleep(self._interval * stretch)
            try:
                await self.once()
            except (DriverError, OSError) as error:
                log.warning("look for missing paths failed", error=str(error))

    async def once(self) -> None:
        """One pass: each volume that lacks a path and whose turn it is."""
        several = [each for each in await self._store.list() if _may_lack(each)]
        lacking = await asyncio.to_thread(self._lacking, several)
        names = {each.nqn for each in lacking}
        self._turns = {nqn: turn for nqn, turn in self._turns.items() if nqn in names}
        now = self._clock.monotonic()
        for each in lacking:
            self._turns.setdefault(each.nqn, _Turn(self._delays()))
        limit = asyncio.Semaphore(_AT_ONCE)
        due = [each for each in lacking if self._turns[each.nqn].due <= now]
        await asyncio.gather(*(self._bring_back(each, limit) for each in due))

    def _delays(self) -> DelaySequence:
        return delays(self._policy, limit=LONGEST_WAIT, rng=self._rng)

    def _lacking(self, several: list[StagedVolume]) -> list[StagedVolume]:
        """Those that are connected, and not at each of their addresses."""
        own: dict[str, list[Controller]] = {}
        for controller in self._own({each.nqn for each in several}):
            own.setdefault(controller.nqn, []).append(controller)
        return [
            each for each in several if each.nqn in own and missing(_target(each), own[each.nqn])
        ]

    def _own(self, nqns: set[str]) -> list[Controller]:
        if not nqns:
            return []
        found = self._subsystems.controllers_of(nqns.__contains__)
        return [each for each in found if each.hostnqn == self._host_nqn]

    async def _bring_back(self, staged: StagedVolume, limit: asyncio.Semaphore) -> None:
        async def confirm() -> bool:
            """Whether it is staged still as it was, and nobody else can have it by now."""
            now = await self._store.read(staged.volume)
            same = now is not None and _may_lack(now) and _target(now) == _target(staged)
            name = read_nqn(staged.nqn)
            fenced = name is not None and name.generation > 0
            return same and (fenced or any(each.live for each in self._own({staged.nqn})))

        async with limit:
            try:
                left = await self._initiator.connect_missing(
                    _target(staged), staged.config, volume=staged.volume, confirm=confirm
                )
            except DriverError as error:
                log.warning("path not brought back", volume=staged.volume, error=str(error))
                left = [staged.address]
        turn = self._turns[staged.nqn]
        if left:
            turn.due = self._clock.monotonic() + turn.waits.next()


def _may_lack(staged: StagedVolume) -> bool:
    """Whether paths of it are to be brought back: not those of an outdated hand-over."""
    return staged.staged and staged.superseded is None and len(staged.addresses) > 1


def _target(staged: StagedVolume) -> Target:
    return Target(staged.addresses, staged.port, staged.nqn)
