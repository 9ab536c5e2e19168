"""The healer watches cheaply, tries with patience, stays out of the way, and ends at once."""

import asyncio
from typing import Any

import pytest

from rds_csi.errors import VolumeInUse
from rds_csi.node.waiting import GIVEN_UP, NOT_HEALED, RECONNECTING
from tests.unit.node.healing import Healing, now
from tests.unit.node.mapped_host import SIZE, VOLUME, nqn

pytestmark = pytest.mark.looptime


async def test_a_lost_volume_is_back_within_three_seconds(healing: Healing) -> None:
    await healing.host.staged()
    healing.start()
    await asyncio.sleep(10)
    assert healing.reason() == ""
    healing.host.lose()
    await asyncio.sleep(3)
    assert healing.host.leads_home()
    assert [volume for volume, _ in healing.healed] == [VOLUME]
    assert healing.reason() == ""
    healing.host.check()


async def test_what_was_lost_before_the_driver_started_is_found(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.lose()
    healing.start()
    await asyncio.sleep(1)
    assert healing.host.leads_home()


async def test_a_failed_path_is_noticed_by_the_kernels_event(healing: Healing) -> None:
    await healing.host.staged()
    healing.start()
    await asyncio.sleep(5)
    active = healing.host.map().active
    assert active is not None
    active.lost.update(active.paths)
    healing.event = True
    await asyncio.sleep(2)
    assert healing.host.leads_home()


@pytest.mark.parametrize(("event", "within"), [(None, 6), (False, 31)])
async def test_without_an_event_it_is_noticed_later(
    healing: Healing, event: bool | None, within: float
) -> None:
    healing.event = event
    await healing.host.staged()
    healing.start()
    await asyncio.sleep(5)
    active = healing.host.map().active
    assert active is not None
    active.lost.update(active.paths)
    await asyncio.sleep(within)
    assert healing.host.leads_home()


async def test_idle_it_runs_a_program_twice_a_minute(healing: Healing) -> None:
    for number in range(20):
        await healing.host.staged(f"pvc-{number:028x}")
    before = healing.programs
    healing.start()
    await asyncio.sleep(600)
    assert healing.programs - before <= 22
    assert not healing.host.attempts[20:]


async def test_without_maps_it_runs_none_and_asks_for_no_event(healing: Healing) -> None:
    asked: list[float] = []

    def events() -> bool:
        asked.append(now())
        return False

    healing.healer._events = events
    healing.start()
    await asyncio.sleep(600)
    assert healing.programs == 0
    assert not asked


# While it is in vain


async def test_a_target_that_is_away_costs_a_knock_each(healing: Healing) -> None:
    for number in range(10):
        await healing.host.staged(f"pvc-{number:028x}")
        healing.host.lose(f"pvc-{number:028x}")
    healing.open = False
    healing.start()
    await asyncio.sleep(3600)
    assert not healing.host.attempts
    assert 1200 < len(healing.knocks) < 3700
    assert len(healing.waits.all) == 10
    assert "nothing answers at 10.0.0.1:4420" in healing.waits.all[f"pvc-{0:028x}"].why
    healing.open = True
    await asyncio.sleep(3)
    assert len(healing.healed) == 10


async def test_refusals_are_repeated_with_patience_and_since_is_kept(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.lose()
    disk = healing.host.rds.pop(nqn())
    healing.start()
    await asyncio.sleep(60)
    found = healing.waits.of(VOLUME)
    assert found is not None
    assert (found.reason, found.since) == (GIVEN_UP, 1e9)
    assert "connection refused" in found.why
    soon = len(healing.host.attempts)
    assert 26 < soon < 35
    assert found.tries == soon
    await asyncio.sleep(3600)
    later = len(healing.host.attempts)
    await asyncio.sleep(300)
    assert 8 <= len(healing.host.attempts) - later <= 12
    healing.host.rds[nqn()] = disk
    await asyncio.sleep(34)
    assert healing.host.leads_home()


async def test_a_target_that_was_away_is_tried_as_a_new_one(healing: Healing) -> None:
    """However often it had refused before: it has booted since, perhaps."""
    await healing.host.staged()
    healing.host.lose()
    disk = healing.host.rds.pop(nqn())
    healing.start()
    await asyncio.sleep(3600)
    healing.open = False
    await asyncio.sleep(60)
    healing.host.rds[nqn()] = disk
    healing.open = True
    await asyncio.sleep(3)
    assert healing.host.leads_home()


async def test_what_somebody_has_to_mend_is_looked_at_twice_a_minute(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.lose()
    healing.host.rds[nqn()].size = SIZE // 2
    healing.start()
    await asyncio.sleep(600)
    assert healing.reason() == NOT_HEALED
    assert len(healing.host.attempts) < 30
    healing.host.unplug(nqn())
    healing.host.rds[nqn()].size = SIZE
    await asyncio.sleep(34)
    assert healing.host.leads_home()


async def test_what_is_in_use_for_a_moment_is_not_left_for_long(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.lose()
    connect, busy = healing.host.connect_once, [True]

    async def held(*args: Any, **named: Any) -> Any:
        if busy[0]:
            raise VolumeInUse("the kernel takes its controller down", volume=VOLUME)
        return await connect(*args, **named)

    healing.host.connect_once = held  # type: ignore[method-assign]
    healing.start()
    await asyncio.sleep(10)
    assert healing.reason() == GIVEN_UP
    busy[0] = False
    await asyncio.sleep(3)
    assert healing.host.leads_home()


async def test_what_is_not_the_healers_is_told_and_not_touched(healing: Healing) -> None:
    await healing.host.staged(superseded=2)
    healing.host.lose()
    healing.start()
    await asyncio.sleep(60)
    assert healing.reason() == NOT_HEALED
    assert not healing.host.attempts
    assert not healing.knocks


async def test_what_the_kernel_is_at_is_told_and_not_touched(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.states[nqn()] = "connecting"
    healing.start()
    await asyncio.sleep(60)
    assert healing.reason() == RECONNECTING
    assert not healing.host.attempts
    del healing.host.states[nqn()]
    await asyncio.sleep(3)
    assert healing.reason() == ""
    assert not healing.healed


async def test_a_kernel_that_gives_up_hands_over(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.states[nqn()] = "connecting"
    healing.start()
    await asyncio.sleep(10)
    disk = healing.host.rds.pop(nqn())
    healing.host.lose()
    await asyncio.sleep(10)
    assert healing.reason() == GIVEN_UP
    healing.host.rds[nqn()] = disk
    await asyncio.sleep(3)
    assert healing.host.leads_home()


async def test_a_connection_just_made_is_given_a_moment_to_show_its_device(
    healing: Healing,
) -> None:
    await healing.host.staged()
    healing.host.hide(nqn())
    healing.event = True
    healing.start()
    await asyncio.sleep(0.5)
    assert not healing.locks.done
    await asyncio.sleep(3)
    assert healing.host.leads_home()
