"""A volume is taken by force from a node that has a map over it: its healer never gets through.

What waits in the map is old by the time the node comes back. It may try for as long as it likes:
it asks for the name that it was given, and the volume has another by then.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rds_csi.node.waiting import GIVEN_UP, NOT_HEALED
from tests.unit.node.healing import Healing
from tests.unit.node.mapped_host import VOLUME, MappedHost, nqn

pytestmark = pytest.mark.looptime

LONG = 240.0
"""Seconds: it is tried every two of them."""


def hand_over(host: MappedHost) -> None:
    """As the controller does it in one command: the export has another name from then on."""
    host.rds[nqn(generation=2)] = host.rds.pop(nqn())


async def cut_off(healing: Healing) -> None:
    healing.start()
    healing.host.lose()
    healing.open = False
    await asyncio.sleep(20)
    hand_over(healing.host)
    healing.open = True


async def connected_until_then(healing: Healing) -> None:
    healing.start()
    await asyncio.sleep(20)
    hand_over(healing.host)
    healing.host.lose()


async def its_kernel_tries_first(healing: Healing) -> None:
    healing.host.states[nqn()] = "connecting"
    healing.start()
    hand_over(healing.host)
    await asyncio.sleep(60)
    assert not healing.host.attempts
    healing.host.lose()


async def its_driver_is_dead(healing: Healing) -> None:
    hand_over(healing.host)
    healing.host.lose()
    await asyncio.sleep(20)
    healing.start()


async def the_rds_reboots(healing: Healing) -> None:
    await connected_until_then(healing)
    await asyncio.sleep(60)
    healing.open = False
    await asyncio.sleep(60)
    healing.open = True


WAYS: list[Callable[[Healing], Awaitable[None]]] = [
    cut_off, connected_until_then, its_kernel_tries_first, its_driver_is_dead, the_rds_reboots,
]  # fmt: skip


@pytest.mark.parametrize("lost", WAYS, ids=lambda each: each.__name__)
async def test_its_map_waits_for_ever_and_leads_nowhere(
    healing: Healing, tmp_path: Path, lost: Callable[[Healing], Awaitable[None]]
) -> None:
    former = healing.host
    await former.staged()
    await lost(healing)
    holder = MappedHost(tmp_path / "holder")
    holder.rds = former.rds
    await holder.staged(generation=2)
    await asyncio.sleep(LONG)

    assert set(former.attempts) == {nqn()}
    assert len(former.attempts) > 80
    assert not former.connections
    assert not healing.healed
    active, loaded = former.map().active, former.map().loaded
    assert active is not None
    assert active.queues
    assert set(active.paths) == active.lost
    assert loaded is None
    waiting = healing.waits.of(VOLUME)
    assert waiting is not None
    assert (waiting.reason, waiting.tries) == (GIVEN_UP, len(former.attempts))
    assert holder.leads_home(generation=2)


async def test_an_export_that_keeps_its_name_is_not_even_asked_for(healing: Healing) -> None:
    """``rds.renameExports: false``: nothing tells the holders apart."""
    former = healing.host
    await former.staged(generation=0)
    healing.start()
    former.lose(generation=0)
    await asyncio.sleep(LONG)
    assert not former.attempts
    assert not former.connections
    waiting = healing.waits.of(VOLUME)
    assert waiting is not None
    assert waiting.reason == NOT_HEALED
    assert "no generation" in waiting.why
