"""Time that stands still until a test moves it."""

from dataclasses import dataclass


@dataclass(slots=True)
class FakeClock:
    """Stands for ``rds_csi.runtime.clock.Clock``; ``time`` is what both of its hands show."""

    time: float = 1e9

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time
