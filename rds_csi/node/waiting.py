"""The volumes of this node whose I/O waits, since when, and why: kept by the healer, told by all.

Not on disk: a driver that starts finds them in the kernel again, and counts from then on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from rds_csi.runtime.clock import Clock, SystemClock

RECONNECTING: Final = "Reconnecting"
"""The kernel itself tries to bring the connection back."""
GIVEN_UP: Final = "ConnectionGivenUp"
"""The kernel gave up, and the healer tries."""
NOT_HEALED: Final = "NotHealed"
"""The healer cannot or must not bring it back; somebody has to act."""

REASONS: Final = (RECONNECTING, GIVEN_UP, NOT_HEALED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A volume whose I/O waits in its map. ``since``: seconds since 1970.

    ``reason`` is one of the words above, ``why`` what stands in the way, ``tries`` how often it
    was tried to bring the volume back.
    """

    since: float
    reason: str
    why: str
    tries: int = 0


class Waits:
    """Who waits. Make it and use it on one event loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._waiting: dict[str, Waiting] = {}

    @property
    def all(self) -> Mapping[str, Waiting]:
        """Each volume that waits."""
        return self._waiting

    def of(self, volume: str) -> Waiting | None:
        """That of one volume; None where its I/O does not wait, as far as is known."""
        return self._waiting.get(volume)

    def note(self, volume: str, reason: str, why: str, *, tried: bool = False) -> bool:
        """The volume waits, for that reason; whether that is news."""
        before = self._waiting.get(volume)
        if before is None:
            before = Waiting(since=self._clock.now(), reason="", why="")
        after = replace(before, reason=reason, why=why, tries=before.tries + tried)
        self._waiting[volume] = after
        return before.reason != reason

    def over(self, volume: str) -> Waiting | None:
        """The volume does not wait any more; what it was waiting for."""
        return self._waiting.pop(volume, None)
