"""Kill -9 of the driver at every command it sends to the RDS: a repeated call always converges.

An operation is run again and again, on a new volume each time: the driver is killed while its
first command is on the way and not done, then while it is done and not answered, then at the
second command, and so on until the operation gets through unharmed.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from grpclib.exceptions import StreamTerminatedError

from rds_csi.csi import v1 as csi
from rds_csi.demo import data
from rds_csi.demo.kubelet import Claim, Kubernetes
from rds_csi.simulator.device.faults import FaultKind
from tests.lab.processes import Driver
from tests.lab.volumes import GROWS_IN_USE
from tests.lab.waiting import converge, until
from tests.lab.world import World, claim

BEFORE, AFTER = "stall-before", "stall-after"
OPERATIONS: Final = ["provision", "attach", "detach", "delete"]

# Not every day: the hour is full. The same interruptions, without the kernel's part, are in
# tests/rds/test_interrupted.py each time.
pytestmark = [pytest.mark.timeout(600), pytest.mark.exhaustive]


class Cluster:
    """The operations of the sidecars on one volume, one by one."""

    def __init__(self, kubernetes: Kubernetes, volume: Claim) -> None:
        self._kubernetes = kubernetes
        self._volume = volume

    async def provision(self) -> None:
        await self._kubernetes.provision(self._volume)

    async def attach(self) -> None:
        await self._kubernetes.attach(self._volume)

    async def detach(self) -> None:
        await self._kubernetes.controller.controller_unpublish_volume(
            csi.ControllerUnpublishVolumeRequest(volume_id=self._volume.volume.volume_id)
        )

    async def delete(self) -> None:
        await self._kubernetes.controller.delete_volume(
            csi.DeleteVolumeRequest(volume_id=self._volume.volume.volume_id)
        )


async def kill_at_command(
    number: int, kind: FaultKind, call: Callable[[], Awaitable[None]], world: World, driver: Driver
) -> bool:
    """Run ``call`` with the driver killed at its ``number``-th command; False if it had fewer."""
    fault = world.rds.faults.add(kind, skip=number, count=1)
    running = asyncio.ensure_future(call())
    pending = world.rds.faults.pending
    await until(lambda: fault not in pending or running.done(), "the command comes, or the end")
    struck = fault not in pending
    if struck:
        await until(
            lambda: any(
                entry.fault == kind and entry.outcome != "running" for entry in world.rds.execs()
            ),
            "the command stalls",
        )
        await driver.kill()
        with pytest.raises((StreamTerminatedError, ConnectionError)):
            await running
        world.rds.faults.clear()
        await driver.start()
        await converge(call, f"{kind} {number}")
    else:
        world.rds.faults.clear()
        await running
    return struck


@pytest.mark.parametrize("kind", [BEFORE, AFTER])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_killed_at_each_command(
    operation: str, kind: FaultKind, kubernetes: Kubernetes, driver: Driver, world: World
) -> None:
    for number in itertools.count(0):
        volume = claim(f"{operation}-{number}", "ext4")
        cluster = Cluster(kubernetes, volume)
        for name in OPERATIONS[: OPERATIONS.index(operation)]:
            await getattr(cluster, name)()
        struck = await kill_at_command(number, kind, getattr(cluster, operation), world, driver)
        for name in OPERATIONS[OPERATIONS.index(operation) + 1 :]:
            await getattr(cluster, name)()
        assert world.leftovers() == []
        if not struck:
            break
    assert number > 0, "no command was ever sent"


@GROWS_IN_USE
@pytest.mark.parametrize("kind", [BEFORE, AFTER])
async def test_a_mounted_volume_survives_a_kill_while_growing(
    kind: FaultKind, kubernetes: Kubernetes, driver: Driver, world: World
) -> None:
    world.rds.quirks.growth = "announced"  # else no mounted volume grows
    volume = claim("grow", "ext4")
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    written = await asyncio.to_thread(
        data.write, volume.target / "data", offset=0, size=8 * 1024**2
    )

    async def grow() -> None:
        await kubernetes.grow(volume, 2 * volume.size)

    assert await kill_at_command(0, kind, grow, world, driver)

    assert data.intact(written)
    assert world.rds.disks[volume.volume.volume_id].size == 2 * volume.size
    await kubernetes.unmount(volume)
    await kubernetes.release(volume)
