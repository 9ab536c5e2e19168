"""Who waits, since when, and what is news."""

from rds_csi.node.waiting import GIVEN_UP, NOT_HEALED, RECONNECTING, Waits
from tests.unit.fakes.clock import FakeClock


def test_a_wait_begins_once_whatever_its_reasons() -> None:
    clock = FakeClock()
    waits = Waits(clock)
    assert waits.note("a", RECONNECTING, "the kernel")
    clock.time += 5
    assert waits.note("a", GIVEN_UP, "refused", tried=True)
    assert not waits.note("a", GIVEN_UP, "refused again", tried=True)
    found = waits.of("a")
    assert found is not None
    assert (found.since, found.why, found.tries) == (1e9, "refused again", 2)
    assert dict(waits.all) == {"a": found}


def test_a_wait_that_is_over_begins_anew() -> None:
    clock = FakeClock()
    waits = Waits(clock)
    waits.note("a", NOT_HEALED, "too small", tried=True)
    ended = waits.over("a")
    assert ended is not None
    assert ended.tries == 1
    assert waits.of("a") is None
    assert waits.over("a") is None
    clock.time += 5
    assert waits.note("a", NOT_HEALED, "too small")
    again = waits.of("a")
    assert again is not None
    assert (again.since, again.tries) == (1e9 + 5, 0)
