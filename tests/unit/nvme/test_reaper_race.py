"""The reaper beside stages that come and go: never does it take what one of them uses."""

import asyncio
import random
from pathlib import Path

import pytest

from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.reaper import Reaper
from tests.unit.fakes.sysfs import HOST_NQN, FakeSysfs
from tests.unit.nvme.kernel import PREFIX, Kernel
from tests.unit.nvme.test_reaper import World


@pytest.mark.requirement("PIT-03")
@pytest.mark.looptime
@pytest.mark.timeout(300)
async def test_200_stages_race_the_reaper(tmp_path: Path) -> None:
    """Each stage connects, uses the device for a while, and must never lose it meanwhile."""
    kernel = Kernel(FakeSysfs(tmp_path / "fake"))
    kernel.works(takes=0.05)
    world = World(kernel)
    reaper = Reaper(
        sysfs=kernel.sysfs,
        connector=world.connector,
        host=HOST_NQN,
        nqn_prefix=PREFIX,
        recorded=world.records,
        mounted=lambda: kernel.mounted.__contains__,
        locked=world.locked.__contains__,
        clock=world.clock,
        grace=0.0,
        interval=0.05,
        on_disconnect=world.reaped.append,
    )
    source = random.Random(7)
    lost: list[str] = []

    async def stage(nqn: str) -> None:
        for _ in range(20):
            await asyncio.sleep(source.uniform(0.0, 1.0))
            world.locked.add(nqn)  # what the RPC layer does around every call
            try:
                namespace = await world.connector.connect_with_retry(
                    Target(("192.0.2.1",), 4420, nqn), ConnectionConfig()
                )
                await asyncio.sleep(source.uniform(0.0, 0.1))
                kernel.mounted.add(namespace.devno)
                world.recorded.add(nqn)
            finally:
                world.locked.discard(nqn)
            await asyncio.sleep(source.uniform(0.0, 0.3))
            if world.connector.find(nqn) != namespace:
                lost.append(nqn)
            # A crash: neither unstaged nor recorded any more, only the connection is left.
            kernel.mounted.discard(namespace.devno)
            world.recorded.discard(nqn)

    running = asyncio.create_task(reaper.run())
    nqns = [f"{PREFIX}:pvc-{number:028x}" for number in range(10)]
    await asyncio.gather(*(stage(nqn) for nqn in nqns))
    running.cancel()
    assert lost == []
    assert len(world.reaped) >= 10  # it did race
