"""The RDS goes away and comes back: what an application that writes sees of it."""

import asyncio

import pytest

from rds_csi.demo import data
from rds_csi.demo.kubelet import Kubernetes
from tests.lab import node
from tests.lab.waiting import until
from tests.lab.world import KUBELET, MIB, PREFIX, World, claim


async def until_state(state: str) -> None:
    await until(
        lambda: {controller.state for controller in node.controllers(PREFIX)} == {state},
        f"the controller is {state}",
    )


@pytest.mark.parametrize("access", ["ext4", "xfs", "block"])
async def test_a_writer_waits_and_loses_nothing(
    access: str, kubernetes: Kubernetes, world: World
) -> None:
    volume = claim("outage", access)
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    path = volume.target if access == "block" else volume.target / "data"
    before = await asyncio.to_thread(data.write, path, offset=0, size=8 * MIB)
    mounts = node.mounts(KUBELET)

    await world.rds.cut(None)
    await until_state("connecting")
    writing = asyncio.create_task(asyncio.to_thread(data.write, path, offset=8 * MIB, size=8 * MIB))
    await asyncio.sleep(3)
    assert not writing.done(), "a write was acknowledged while the target was away"
    await world.rds.restore(None)
    after = await writing

    await until_state("live")
    assert data.intact(before)
    assert data.intact(after)
    assert node.mounts(KUBELET) == mounts, "the mount did not survive"
    await kubernetes.unmount(volume)
    await kubernetes.release(volume)


async def test_the_driver_may_die_in_an_outage(kubernetes: Kubernetes, world: World) -> None:
    volume = claim("both", "ext4")
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    await world.rds.cut(None)
    await until_state("connecting")
    writing = asyncio.create_task(
        asyncio.to_thread(data.write, volume.target / "data", offset=0, size=8 * MIB)
    )
    (driver,) = world.drivers

    await driver.kill()
    await driver.start()

    assert not writing.done()
    await world.rds.restore(None)
    written = await writing
    assert data.intact(written)
    await kubernetes.mount(volume)
    assert data.intact(written)
    await kubernetes.unmount(volume)
    await kubernetes.release(volume)
