"""Time, as the rooms that must remember or wait see it, so that tests can hold it still."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> float:
        """Seconds since 1970, for what is written down."""

    def monotonic(self) -> float:
        """Seconds since some moment, for what is measured."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since the machine started."""
        return time.monotonic()
