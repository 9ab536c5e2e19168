"""A boot of the RDS is seen once, and how it went down before is told as its log has it."""

import asyncio
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from rds_csi.routeros import boots
from rds_csi.routeros.boots import Boot, Boots, Down, how
from rds_csi.routeros.version import System
from tests.unit.fakes.clock import FakeClock
from tests.unit.fakes.ssh import until

ORDERLY = "router rebooted"
ABRUPT = "router was rebooted without proper shutdown, probably power outage"
PANIC = "kernel failure in previous boot"


@pytest.mark.parametrize(
    ("messages", "before"),
    [
        ([ORDERLY], Down.ORDERLY),
        (["router rebooted by admin"], Down.ORDERLY),
        ([ABRUPT], Down.ABRUPT),
        (["router was rebooted without proper shutdown by watchdog timer"], Down.ABRUPT),
        ([PANIC], Down.ABRUPT),
        ([ORDERLY, PANIC], Down.ABRUPT),
        ([PANIC, ORDERLY], Down.ABRUPT),
        # A log on a disk has former boots too.
        ([ABRUPT, ORDERLY], Down.ORDERLY),
        ([ORDERLY, ABRUPT], Down.ABRUPT),
        ([ORDERLY, PANIC, ORDERLY], Down.ORDERLY),
        ([], Down.UNKNOWN),
        (["user admin rebooted nothing", "the router rests"], Down.UNKNOWN),
    ],
)
def test_how_it_went_down(messages: list[str], before: Down) -> None:
    assert how(messages) is before


@dataclass
class FakeLink:
    """An RDS that has been up for some seconds, and what it told at the last connect."""

    clock: FakeClock
    system: System | None = None
    booted: float | None = None

    def boot(self, *messages: str, ago: float = 30) -> None:
        self.system = System(version="7.24", board="RDS2216", boots=messages)
        self.booted = self.clock.monotonic() - ago


class Seen:
    """A controller that looks."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.link = FakeLink(self.clock)
        self.boots: list[Boot] = []
        self.watch = Boots(self.link, on_boot=self.boots.append, clock=self.clock)

    @property
    def before(self) -> list[Down]:
        return [each.before for each in self.boots]


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_a_boot_is_told_once_with_its_moment(seen: Seen) -> None:
    seen.watch.look()
    assert seen.boots == []
    seen.link.boot(ORDERLY, ago=1000)
    for _ in range(3):
        seen.watch.look()
    assert seen.boots == [Boot(1e9 - 1000, Down.ORDERLY)]
    # A connect later, the same boot, as far as can be seen.
    seen.clock.time += 5000
    assert seen.link.booted is not None
    seen.link.booted += 20
    seen.watch.look()
    assert len(seen.boots) == 1
    seen.link.boot(ABRUPT)
    seen.watch.look()
    assert seen.before == [Down.ORDERLY, Down.ABRUPT]


@pytest.mark.parametrize(
    ("messages", "level", "event"),
    [
        ([ABRUPT], "error", "the RDS had not gone down in order before it booted"),
        ([ORDERLY], "warning", "the RDS has booted"),
        ([], "warning", "the RDS has booted"),
    ],
)
def test_what_is_said_of_a_boot(seen: Seen, messages: list[str], level: str, event: str) -> None:
    seen.link.boot(ORDERLY, ago=1000)
    with capture_logs() as log:
        seen.watch.look()
    assert log == [], "the boot before the driver's start is nothing new"
    seen.clock.time += 5000
    seen.link.boot(*messages)
    with capture_logs() as log:
        seen.watch.look()
    (said,) = log
    assert (said["log_level"], said["event"]) == (level, event)
    assert said["booted"] == "2001-09-09T03:09:30+00:00"
    assert said["log"] == "; ".join(messages)


def test_a_loss_before_the_drivers_start_is_said_too(seen: Seen) -> None:
    seen.link.boot(ABRUPT)
    with capture_logs() as log:
        seen.watch.look()
    assert [each["log_level"] for each in log] == ["error"]


async def test_the_service_looks_on_and_on(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boots, "INTERVAL", 0.001)
    task = asyncio.create_task(seen.watch.run())
    await asyncio.sleep(0)
    seen.link.boot(ORDERLY)
    await until(lambda: seen.before == [Down.ORDERLY])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
