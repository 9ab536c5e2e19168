"""The fake clock moves where the test moves it, and nowhere else."""

import time

from rds_csi.runtime.clock import Clock
from tests.unit.fakes.clock import FakeClock


def test_it_stands_still_until_it_is_moved() -> None:
    fake = FakeClock(1000.0)
    clock: Clock = fake
    before = time.monotonic()
    while time.monotonic() == before:
        pass
    assert clock.now() == clock.monotonic() == 1000.0
    fake.time += 1.5
    assert clock.now() == clock.monotonic() == 1001.5
