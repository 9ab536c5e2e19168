"""When the RDS booted last, and whether it had gone down in order before.

An RDS that goes down in order writes everything down first; one that loses power, panics or is
reset forgets what it had acknowledged and not been told to flush. A reboot breaks the connection,
so what is asked at each connect tells of it: the uptime, and the lines of the log about boots. (The
log lies in memory and is short, so it has to be read soon.)

The texts are known from other RouterOS devices; none was read from an RDS. So whatever is not one
of them is :attr:`Down.UNKNOWN`, which is an answer of its own.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final, Protocol

import structlog

from rds_csi.routeros.version import System
from rds_csi.runtime.clock import Clock, SystemClock

log = structlog.get_logger(__name__)

INTERVAL: Final = 15.0
"""Seconds between two looks at what the last connect told. They cost the RDS nothing."""
_DRIFT: Final = 60.0
"""Seconds by which the moment of one boot may seem to move: clocks run apart, answers take time."""

_REBOOTED: Final = re.compile(r"router (?:was )?rebooted\b")
_ABRUPT: Final = re.compile(r"without proper shutdown|kernel failure in previous boot")


class Down(Enum):
    """How the RDS went down before it booted."""

    ORDERLY = "orderly"
    ABRUPT = "abrupt"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot: when, in seconds since 1970, and what it said of the time before."""

    at: float
    before: Down


class Link(Protocol):
    """What is asked: :class:`rds_csi.routeros.session.Session`."""

    @property
    def system(self) -> System | None:
        """What the RDS said of itself at the last connect."""

    @property
    def booted(self) -> float | None:
        """When the RDS booted, as the last connect told, on the monotonic clock."""


def how(messages: Iterable[str]) -> Down:
    """How it went down before its last boot, by its log's messages, the oldest first."""
    last: list[str] = []
    for message in messages:
        if _REBOOTED.search(message) and any(map(_REBOOTED.search, last)):
            last = []  # a log on a disk has former boots too
        if _REBOOTED.search(message) or _ABRUPT.search(message):
            last.append(message)
    if any(map(_ABRUPT.search, last)):
        return Down.ABRUPT
    return Down.ORDERLY if last else Down.UNKNOWN


class Boots:
    """Looks out for boots. ``on_boot`` is told of each that is seen, the first one included."""

    def __init__(
        self,
        link: Link,
        *,
        on_boot: Callable[[Boot], None] = lambda _boot: None,
        clock: Clock | None = None,
    ) -> None:
        self._link = link
        self._on_boot = on_boot
        self._clock = clock or SystemClock()
        self._known: float | None = None

    async def run(self) -> None:
        """Look on and on; never returns."""
        while True:
            self.look()
            await asyncio.sleep(INTERVAL)

    def look(self) -> None:
        """Tell of it, if the RDS has booted since the last look."""
        booted, system = self._link.booted, self._link.system
        if booted is None or system is None:
            return
        if self._known is not None and booted <= self._known + _DRIFT:
            return
        first, self._known = self._known is None, booted
        at = self._clock.now() - (self._clock.monotonic() - booted)
        self._tell(Boot(at, how(system.boots)), system.boots, first=first)

    def _tell(self, boot: Boot, messages: Sequence[str], *, first: bool) -> None:
        self._on_boot(boot)
        told = {
            "booted": datetime.fromtimestamp(boot.at, UTC).isoformat(timespec="seconds"),
            "before": boot.before.value,
            "log": "; ".join(messages)[:500],
        }
        if boot.before is Down.ABRUPT:
            log.error("the RDS had not gone down in order before it booted", **told)
        elif not first:
            log.warning("the RDS has booted", **told)
