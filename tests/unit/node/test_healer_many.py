"""The healer beside RPCs, at the end of the driver, and with many volumes at once."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rds_csi.errors import ShuttingDown
from rds_csi.node.healer import entries
from rds_csi.runtime.process import Result
from tests.unit.node.healing import Healing, now
from tests.unit.node.mapped_host import VOLUME

pytestmark = pytest.mark.looptime


# Beside RPCs


async def test_a_volume_an_rpc_is_at_work_on_is_healed_later(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.lose()
    healing.locks.taken.add(VOLUME)
    healing.start()
    await asyncio.sleep(30)
    assert not healing.host.attempts
    healing.locks.taken.clear()
    await asyncio.sleep(3)
    assert healing.host.leads_home()


async def test_a_volume_unstaged_meanwhile_is_forgotten(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.lose()
    healing.open = False
    healing.start()
    await asyncio.sleep(10)
    await healing.host.maps.remove(await healing.host.found())
    await asyncio.sleep(3)
    assert not healing.waits.all
    knocks = len(healing.knocks)
    await asyncio.sleep(60)
    assert len(healing.knocks) == knocks


async def test_half_of_the_time_the_lock_is_free(healing: Healing) -> None:
    """An attempt that takes long must not keep an unstage out."""
    await healing.host.staged()
    healing.host.lose()
    held = 0.0

    async def slowly(_volume: str, _work: Callable[[], Awaitable[bool]], _timeout: float) -> bool:
        nonlocal held
        await asyncio.sleep(20)
        held += 20
        return False

    healing.healer._exclusively = slowly  # type: ignore[assignment]
    healing.start()
    await asyncio.sleep(400)
    assert 160 <= held <= 200


async def test_a_driver_that_stops_is_not_argued_with(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.lose()

    async def stopping(_volume: str, _work: object, _timeout: float) -> bool:
        raise ShuttingDown("the driver is stopping")

    healing.healer._exclusively = stopping  # type: ignore[assignment]
    healing.start()
    await asyncio.sleep(0.5)
    assert healing.healer._tasks == {}


async def test_a_look_that_fails_is_tried_again(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.refusals["dmsetup"] = Result(1, "", "out of memory")
    healing.start()
    await asyncio.sleep(5)
    healing.host.refusals.clear()
    healing.host.lose()
    await asyncio.sleep(3)
    assert healing.host.leads_home()


async def test_cancelled_it_ends_with_all_its_tasks(healing: Healing) -> None:
    await healing.host.staged()
    healing.host.lose()
    healing.open = False
    healing.start()
    await asyncio.sleep(5)
    tasks = list(healing.healer._tasks.values())
    assert tasks
    await healing.stop()
    assert all(task.done() for task in tasks)
    assert healing.task is not None
    assert healing.task.cancelled()


# Many


async def test_fifty_heal_at_once_under_the_connect_limit(healing: Healing) -> None:
    """Through the limit that all connects share, at instants that are spread."""
    volumes = [f"pvc-{number:028x}" for number in range(50)]
    for volume in volumes:
        await healing.host.staged(volume)
        healing.host.lose(volume)
    limit, most, instants = asyncio.Semaphore(8), 0, []
    connect = healing.host.connect_once

    async def limited(*args: Any, **named: Any) -> Any:
        nonlocal most
        async with limit:
            most = max(most, 8 - limit._value)
            instants.append(now())
            await asyncio.sleep(0.1)
            return await connect(*args, **named)

    healing.host.connect_once = limited  # type: ignore[method-assign]
    disks = dict(healing.host.rds)
    healing.host.rds.clear()
    healing.start()
    await asyncio.sleep(20)
    refused = len(instants)
    assert refused >= 300
    assert len({round(each, 3) for each in instants[-50:]}) >= 25
    healing.host.rds.update(disks)
    back = now()
    await asyncio.sleep(5)
    assert sorted(volume for volume, _ in healing.healed) == volumes
    assert max(when for _, when in healing.healed) - back <= 3.2
    assert most == 8
    assert len(instants) - refused <= 60
    healing.host.check()


def test_entries_are_names_of_controllers_and_block_devices(tmp_path: Path) -> None:
    assert entries(tmp_path) == ((), ())
    (tmp_path / "block/dm-0").mkdir(parents=True)
    (tmp_path / "class/nvme/nvme1").mkdir(parents=True)
    assert entries(tmp_path) == (("dm-0",), ("nvme1",))
