"""The kernel gives up, because the StorageClass says so: errors, words, and the way back."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import node, volumes
from tests.lab.application import Application, tell
from tests.lab.volumes import SLACK, volume
from tests.lab.waiting import until
from tests.lab.world import KUBELET, World

pytestmark = pytest.mark.timeout(900)

ACCESSES = ["ext4", "xfs", "block"]


async def stats(kubernetes: Kubernetes, claim: Claim) -> csi.NodeGetVolumeStatsResponse:
    """NodeGetVolumeStats, which must not hang whatever the device does."""
    async with asyncio.timeout(10):
        return await kubernetes.node.node_get_volume_stats(
            csi.NodeGetVolumeStatsRequest(
                volume_id=claim.volume.volume_id,
                volume_path=str(claim.target),
                staging_target_path=str(claim.staging),
            )
        )


@pytest.mark.requirement("PIT-01")
async def test_ctrl_loss_tmo_expires(kubernetes: Kubernetes, world: World, tmp_path: Path) -> None:
    claims = [
        volume(f"loss-{access}", access, reconnectDelay=1, ctrlLossTmo=4) for access in ACCESSES
    ]
    await volumes.bring_up(kubernetes, *claims)
    application = Application(claims, tmp_path / "application")
    await application.start()

    await world.rds.cut(None)
    began = time.monotonic()
    for each in claims:
        await until(lambda each=each: volumes.state(each) == "gone", "the kernel gives up")  # type: ignore[misc]
    tell(f"the controllers were gone {time.monotonic() - began:.1f} s after the cut")
    assert time.monotonic() - began < 4 + 1 + 2 * SLACK
    for each in claims:
        await until(lambda each=each: application.journal(each).errors() != {}, "I/O fails")  # type: ignore[misc]
        said = await volumes.health(kubernetes, each)
        tell(f"{each.name}: {said}")
        assert "NotConnected" in said
        assert "ctrlLossTmo" in said["NotConnected"]
        assert "StaleMount" in said
        assert (await stats(kubernetes, each)).usage == []

    # What is published may not look published again: the pod has to be told.
    # The operator, or a controller of theirs, ends the pods; the kubelet does the rest.
    await world.rds.restore(None)
    await application.stop()
    for each in claims:
        await kubernetes.unmount(each)
    assert node.mounts(KUBELET) == []
    for each in claims:
        await kubernetes.mount(each)
        assert await volumes.health(kubernetes, each) == {}
    await application.prove()
    await application.start()
    await asyncio.sleep(1)
    await application.stop()
    await application.prove()
    tell(application.summary())
    await volumes.take_down(kubernetes, *claims)


async def test_kubelet_repeats_its_calls_on_a_dead_mount(
    kubernetes: Kubernetes, world: World
) -> None:
    # The kubelet restarts, or the pod does: it stages and publishes at paths that still show
    # the device the kernel gave up.
    claims = [
        volume(f"again-{access}", access, reconnectDelay=1, ctrlLossTmo=2) for access in ACCESSES
    ]
    await volumes.bring_up(kubernetes, *claims)
    await world.rds.cut(None)
    for each in claims:
        await until(lambda each=each: volumes.state(each) == "gone", "the kernel gives up")  # type: ignore[misc]
    await world.rds.restore(None)

    for each in claims:
        if each.access == "xfs":
            # The kernel mounts no second xfs of the same UUID; the dead one is the pod's still.
            with pytest.raises(GRPCError) as refused:
                await kubernetes.mount(each)
            tell(str(refused.value.message))
            assert refused.value.status is Status.FAILED_PRECONDITION
            assert f"still mounted at {each.target}" in str(refused.value.message)
            await kubernetes.unmount(each)
        await kubernetes.mount(each)
        assert await volumes.health(kubernetes, each) == {}
        path = each.target if each.access == "block" else each.target / "data"
        await asyncio.to_thread(write_through, path)

    await volumes.take_down(kubernetes, *claims)


def write_through(path: Path) -> None:
    flags = os.O_WRONLY | (0 if path.is_block_device() else os.O_CREAT)
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, b"x" * 4096)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def test_fast_io_fail_tmo(kubernetes: Kubernetes, world: World, tmp_path: Path) -> None:
    claims = [
        volume(f"fast-{access}", access, reconnectDelay=1, fastIoFailTmo=2) for access in ACCESSES
    ]
    await volumes.bring_up(kubernetes, *claims)
    controllers = node.controllers()
    application = Application(claims, tmp_path / "application")
    await application.start()

    await world.rds.cut(None)
    began = time.monotonic()
    for each in claims:
        await until(lambda each=each: application.journal(each).errors() != {}, "I/O fails")  # type: ignore[misc]
    failed = time.monotonic() - began
    tell(f"I/O failed {failed:.1f} s after the cut: {application.summary()}")
    assert 1.5 < failed < 2 + 2 * SLACK
    await asyncio.sleep(2)
    await world.rds.restore(None)
    restored = time.monotonic()
    for each in claims:
        await until(lambda each=each: volumes.state(each) == "live", "it is back")  # type: ignore[misc]

    # The connection was never lost; a raw device is as good as before.
    assert node.controllers() == controllers
    block = claims[-1]
    assert await application.resumed(block, restored) < 1 + 1 + SLACK
    assert await volumes.health(kubernetes, block) == {}
    # A file system met an error; what came of that is its own affair, but health tells of it.
    await application.stop()
    for each in claims[:-1]:
        said = await volumes.health(kubernetes, each)
        tell(f"{each.name}: {said}")
        await kubernetes.unmount(each)
        await kubernetes.mount(each)
        assert await volumes.health(kubernetes, each) == {}
    await application.prove()
    await application.start()
    await application.stop()
    await application.prove()
    tell(application.summary())
    await volumes.take_down(kubernetes, *claims)
