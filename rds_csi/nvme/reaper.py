"""Takes down connections that nobody needs any more.

A crash between connect and mount, or a lost NodeUnstage, leaves a connection behind: it holds a
queue on the RDS and blocks the volume's removal. But the host may boot from NVMe-oF, and
another call may be about to use what looks idle. So everything here is about not touching:
:func:`judge` gives a reason for each subsystem, also for each one that is left alone, and it
takes positive proof of uselessness, twice, some time apart, to get one disconnected.

Not seen from here: a program that has a raw block device open without mounting it, in a
container of its own. Such a volume has a staging record, and its device carries I/O; either
keeps it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from rds_csi.errors import DriverError
from rds_csi.nvme.arguments import is_our_nqn
from rds_csi.nvme.sysfs import BlockDevice, Subsystem
from rds_csi.runtime.clock import Clock, SystemClock

log = structlog.get_logger(__name__)

GRACE: Final = 300.0
INTERVAL: Final = 60.0
START_LIMIT: Final = 120.0
_JITTER: Final = 0.1


class Subsystems(Protocol):
    """Where the kernel's subsystems are listed: :class:`rds_csi.nvme.sysfs.Sysfs`."""

    def subsystems(self, wanted: Callable[[str], bool]) -> list[Subsystem]:
        """Every subsystem that has a controller; of those not wanted the NQN alone."""


class Disconnector(Protocol):
    """Who takes a connection down: :class:`rds_csi.nvme.connector.Connector`."""

    def busy(self, nqn: str) -> bool:
        """Whether a call is at work on the subsystem."""

    async def disconnect(
        self,
        nqn: str,
        *,
        volume: str = "",
        confirm: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Take this host's connections down, if ``confirm`` still says so under the lock."""


class Maps(Protocol):
    """What the path layer has over devices: :class:`rds_csi.driver.connections.MapsOver`."""

    def names_over(self, devno: tuple[int, int]) -> set[str]:
        """The names of the volumes' own maps over a device."""

    async def remove_over(self, nqn: str) -> None:
        """Remove the maps over a subsystem's devices; raises where one is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one subsystem. ``idle``: seconds since it was first seen useless.

    ``joined``: its connections are paths to one device.
    """

    nqn: str
    our_name: bool
    hosts: frozenset[str]
    states: tuple[str, ...]
    namespaces: int
    mounted: bool
    held: bool
    recorded: bool
    locked: bool
    joined: bool = False
    sightings: int = 1
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a subsystem, and why."""

    disconnect: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One subsystem, as a pass left it. ``error``: why the disconnect failed."""

    nqn: str
    verdict: Verdict
    error: str = ""


def judge(facts: Facts, *, host: str, grace: float, starting: bool = False) -> Verdict:
    """Whether the subsystem is to be disconnected; the reason also where it is not.

    At the start, before anything is served, nothing can be told from one look but this: a live
    connection of ours that leads to no device and is not recorded serves nobody.
    """
    reason = _reason_to_keep(facts, host)
    if reason:
        return Verdict(False, reason)
    useless = "it leads to no device" if not facts.namespaces else "nothing uses its device"
    if starting:
        if facts.namespaces:
            return Verdict(False, "it has a device; at the start that is left alone")
        return Verdict(True, useless)
    if facts.sightings < 2 or facts.idle < grace:
        return Verdict(
            False, f"{useless}, but only for {facts.idle:.0f} s of {grace:.0f} s; waiting"
        )
    return Verdict(True, f"{useless}, for {facts.idle:.0f} s")


def _reason_to_keep(facts: Facts, host: str) -> str:
    """The first thing that speaks for the subsystem, strangers before volumes in use."""
    speaks_for_it = (
        (not facts.our_name, "not the name of a volume of this driver"),
        (facts.hosts != {host}, "connected by another host identity"),
        (facts.mounted, "mounted"),
        (facts.held, "held by another block device"),
        (facts.locked, "an operation is at work on it"),
        (facts.recorded, "recorded as staged"),
        (not _settled(facts), f"the kernel is at it: {', '.join(facts.states)}"),
    )
    return next((reason for applies, reason in speaks_for_it if applies), "")


def _settled(facts: Facts) -> bool:
    """Whether no I/O can be waiting for the kernel to bring a connection back.

    One path of several may be down for as long as an address is; I/O then goes over the others.
    """
    one_path_down = facts.joined and facts.namespaces > 0 and facts.states == ("connecting", "live")
    return facts.states == ("live",) or one_path_down


@dataclass(frozen=True, slots=True)
class _Found:
    """One subsystem at one moment, and whether a device of it was mounted then."""

    subsystem: Subsystem
    mounted: bool = False


@dataclass(slots=True)
class _Sighting:
    """Since when a subsystem has been useless; anew when it changed or carried I/O."""

    mark: tuple[str, ...]
    first: float
    count: int = 1


class Reaper:
    """Looks at all subsystems from time to time.

    ``recorded`` gives the NQNs of staged volumes; when it raises, nothing is disconnected.
    ``mounted`` reads the mount table and gives who tells whether a device number is mounted;
    ``locked`` tells whether an RPC is at work on the volume of an NQN. ``on_disconnect`` is told
    of each disconnected NQN: a metric. With ``dry_run`` it only says what it would do. ``maps``
    that nothing uses are removed with the connection; ``mounted`` answers for them, too.
    """

    def __init__(
        self,
        *,
        sysfs: Subsystems,
        connector: Disconnector,
        host: str,
        nqn_prefix: str,
        recorded: Callable[[], Awaitable[Container[str]]],
        mounted: Callable[[], Callable[[tuple[int, int]], bool]],
        locked: Callable[[str], bool],
        clock: Clock | None = None,
        grace: float = GRACE,
        interval: float = INTERVAL,
        rng: random.Random | None = None,
        dry_run: bool = False,
        on_disconnect: Callable[[str], None] = lambda _nqn: None,
        maps: Maps | None = None,
    ) -> None:
        self._sysfs = sysfs
        self._connector = connector
        self._host = host
        self._prefix = nqn_prefix
        self._recorded = recorded
        self._mounted = mounted
        self._locked = locked
        self._clock = clock if clock is not None else SystemClock()
        self._grace = grace
        self._interval = interval
        self._rng = rng if rng is not None else random.SystemRandom()
        self._dry_run = dry_run
        self._on_disconnect = on_disconnect
        self._maps = maps
        self._seen: dict[str, _Sighting] = {}

    async def at_start(self, *, limit: float = START_LIMIT) -> None:
        """One pass before anything is served. Whatever goes wrong is logged, never raised."""
        try:
            async with asyncio.timeout(limit):
                await self.once(starting=True)
        except TimeoutError:
            log.warning("clean-up of connections at the start took too long", limit_s=limit)
        except Exception as error:  # noqa: BLE001 - the driver starts, come what may
            log.warning("clean-up of connections at the start failed", error=str(error))

    async def run(self) -> None:
        """A pass every interval, stretched by up to a tenth so that nodes do not march in step."""
        while True:
            await asyncio.sleep(self._interval * (1.0 + _JITTER * self._rng.random()))
            try:
                await self.once()
            except (DriverError, OSError) as error:
                log.warning("clean-up of connections failed", error=str(error))

    async def once(self, *, starting: bool = False) -> list[Finding]:
        """One pass over every subsystem: what was found, and done, with each.

        A disconnect that fails is logged and does not hold up the others.
        """
        recorded = await self._recorded()
        judged = [
            (found.subsystem.nqn, self._judge(found, recorded, starting=starting, note=True))
            for found in await asyncio.to_thread(self._look, self._is_ours)
        ]
        self._forget({nqn for nqn, _ in judged})
        orphans = [nqn for nqn, verdict in judged if verdict.disconnect]
        log.info(
            "looked for orphaned connections",
            subsystems=len(judged),
            orphans=len(orphans),
            dry_run=self._dry_run,
        )
        findings = []
        for nqn, verdict in judged:
            log.debug("judged", nqn=nqn, disconnect=verdict.disconnect, reason=verdict.reason)
            error = ""
            if verdict.disconnect and not self._dry_run:
                error = await self._disconnect(nqn, verdict, starting=starting)
            findings.append(Finding(nqn, verdict, error))
        return findings

    async def _disconnect(self, nqn: str, verdict: Verdict, *, starting: bool) -> str:
        confirmed = False

        async def confirm() -> bool:
            # Records first: while we hold the connector's lock no stage can get past it, so
            # what is seen after them is still true when the connection is taken down.
            nonlocal confirmed
            recorded = await self._recorded()
            # In one go, not in a thread: no call can end between this look and the question
            # for its lock.
            confirmed = any(
                self._judge(found, recorded, starting=starting, confirming=True).disconnect
                for found in self._look(nqn.__eq__)
                if found.subsystem.nqn == nqn
            )
            if confirmed and self._maps is not None:
                # The kernel refuses where anything has one open, seen from here or not.
                await self._maps.remove_over(nqn)
            return confirmed

        log.warning("disconnecting orphan", nqn=nqn, reason=verdict.reason)
        try:
            await self._connector.disconnect(nqn, confirm=confirm)
        except (DriverError, OSError) as error:
            log.warning("orphan not disconnected", nqn=nqn, error=str(error))
            return str(error)
        if not confirmed:
            log.info("orphan left alone after all: it is used now", nqn=nqn)
            return "it is used now"
        self._on_disconnect(nqn)
        log.warning("orphan disconnected", nqn=nqn, reason=verdict.reason)
        return ""

    def _look(self, wanted: Callable[[str], bool]) -> list[_Found]:
        """What is connected and whether it is mounted; with hundreds of volumes it takes a while.

        What has no name of ours is left alone whatever it is, so it is not looked at.
        """
        mounted = self._mounted()
        return [
            _Found(subsystem, any(mounted(device.devno) for device in subsystem.devices))
            for subsystem in self._sysfs.subsystems(wanted)
        ]

    def _is_ours(self, nqn: str) -> bool:
        return is_our_nqn(nqn, self._prefix)

    def _judge(
        self,
        found: _Found,
        recorded: Container[str],
        *,
        starting: bool,
        note: bool = False,
        confirming: bool = False,
    ) -> Verdict:
        subsystem = found.subsystem
        nqn = subsystem.nqn
        facts = Facts(
            nqn=nqn,
            our_name=self._is_ours(nqn),
            hosts=frozenset(entry.hostnqn for entry in subsystem.controllers),
            states=tuple(sorted({entry.state for entry in subsystem.controllers})),
            namespaces=len(subsystem.devices),
            mounted=found.mounted,
            held=any(self._holders(device) for device in subsystem.devices),
            recorded=nqn in recorded,
            joined=subsystem.joined,
            # Confirming happens under the connector's own lock, which is then ours.
            locked=self._locked(nqn) or (not confirming and self._connector.busy(nqn)),
        )
        if _reason_to_keep(facts, self._host):
            self._seen.pop(nqn, None)
            return judge(facts, host=self._host, grace=self._grace, starting=starting)
        sighting = self._sighting(subsystem, note=note)
        facts = replace(
            facts, sightings=sighting.count, idle=self._clock.monotonic() - sighting.first
        )
        return judge(facts, host=self._host, grace=self._grace, starting=starting)

    def _holders(self, device: BlockDevice) -> set[str]:
        """What is stacked on a device, but for the volume's own maps."""
        own = self._maps.names_over(device.devno) if self._maps is not None else set()
        return set(device.holders) - own

    def _sighting(self, subsystem: Subsystem, *, note: bool) -> _Sighting:
        mark = (
            *(controller.name for controller in subsystem.controllers),
            *(device.name for device in subsystem.devices),
            subsystem.activity,
        )
        sighting = self._seen.get(subsystem.nqn)
        if sighting is None or sighting.mark != mark:
            sighting = self._seen[subsystem.nqn] = _Sighting(mark, self._clock.monotonic())
        elif note:
            sighting.count += 1
        return sighting

    def _forget(self, present: set[str]) -> None:
        for nqn in set(self._seen) - present:
            del self._seen[nqn]
