"""Volumes with a map, on the real device mapper: their whole life, and a device that is gone."""

import asyncio
import os
import time
from functools import partial
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.demo import data
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import node, volumes
from tests.lab.processes import Driver
from tests.lab.volumes import volume
from tests.lab.waiting import until
from tests.lab.world import KUBELET, MIB, PREFIX, World

pytestmark = pytest.mark.path_layer

# The default run has room for one of these lives while the path layer is off by default.
exhaustive = partial(pytest.param, marks=pytest.mark.exhaustive)


def application(claim: Claim) -> Path:
    return claim.target if claim.access == "block" else claim.target / "data"


async def written(claim: Claim, offset: int = 0) -> data.Written:
    return await asyncio.to_thread(data.write, application(claim), offset=offset, size=4 * MIB)


def shown(claim: Claim) -> str:
    """The name of the device that the pod sees."""
    found = claim.target.stat()
    number = found.st_rdev if claim.access == "block" else found.st_dev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name


@pytest.mark.parametrize("access", ["ext4", exhaustive("xfs"), exhaustive("block")])
async def test_a_whole_life(
    access: str, kubernetes: Kubernetes, driver: Driver, world: World
) -> None:
    claim = volume("layer", access)
    await volumes.bring_up(kubernetes, claim)
    ((name, uuid),) = node.maps().items()
    assert claim.volume.volume_id in uuid
    assert shown(claim) == name
    assert " queue_if_no_path " in node.dmsetup("table", uuid)
    first = await written(claim)

    # The driver dies, and its next life finds everything as it is.
    before = node.mounts(KUBELET), node.controllers(PREFIX), node.maps()
    await driver.restart()
    await kubernetes.attach(claim)
    await kubernetes.mount(claim)
    assert (node.mounts(KUBELET), node.controllers(PREFIX), node.maps()) == before
    assert await volumes.health(kubernetes, claim) == {}

    second = await written(claim, offset=64 * MIB)
    assert data.intact(first)
    assert data.intact(second)

    await kubernetes.unmount(claim)
    assert (node.mounts(KUBELET), node.controllers(PREFIX), node.maps()) == ([], [], {})
    await kubernetes.mount(claim)
    assert data.intact(first)
    assert data.intact(second)
    await volumes.take_down(kubernetes, claim)
    assert world.leftovers() == []


@pytest.mark.exhaustive
async def test_what_was_staged_without_a_map_gets_one_when_it_is_staged_next(
    world: World,
) -> None:
    """As an older version staged it: its life goes on beside the new one, with nothing changed."""
    plain, layered = world.driver(), world.driver(path_layer=True)
    claims = [volume(f"bare-{access}", access) for access in ("ext4", "block")]
    await plain.start()
    async with Kubernetes(plain.socket, plain.socket) as kubernetes:
        await volumes.bring_up(kubernetes, *claims)
        before = node.mounts(KUBELET), node.controllers(PREFIX), [shown(each) for each in claims]
        first = [await written(each) for each in claims]
        await plain.stop()
        await layered.start()
        for each in claims:
            await kubernetes.attach(each)
            await kubernetes.mount(each)
            assert await volumes.health(kubernetes, each) == {}
        assert node.maps() == {}
        after = node.mounts(KUBELET), node.controllers(PREFIX), [shown(each) for each in claims]
        assert after == before
        second = [await written(each, offset=64 * MIB) for each in claims]

        for each in claims:
            await kubernetes.unmount(each)
            await kubernetes.attach(each)
            await kubernetes.mount(each)
            assert shown(each) in node.maps()
        assert all(data.intact(each) for each in (*first, *second))
        await volumes.take_down(kubernetes, *claims)
    assert world.leftovers() == []


@pytest.mark.exhaustive
async def test_a_read_only_block_volume_takes_no_writes(kubernetes: Kubernetes) -> None:
    claim = volume("layer-ro", "block")
    await kubernetes.provision(claim)
    await kubernetes.attach(claim)
    await kubernetes.mount(claim)
    await kubernetes.unmount(claim)
    await publish_read_only(kubernetes, claim)
    assert shown(claim) in node.maps()
    # The kernel lets root open it for writing, and refuses each write.
    with pytest.raises(PermissionError), claim.target.open("r+b", buffering=0) as device:
        device.write(bytes(MIB))
    await kubernetes.unmount(claim)
    # And writable again, over the same connection's map or another.
    await kubernetes.mount(claim)
    assert data.intact(await written(claim))
    await volumes.take_down(kubernetes, claim)


async def publish_read_only(kubernetes: Kubernetes, claim: Claim) -> None:
    claim.staging.mkdir(parents=True, exist_ok=True)
    claim.target.parent.mkdir(parents=True, exist_ok=True)
    await kubernetes.node.node_stage_volume(
        csi.NodeStageVolumeRequest(
            volume_id=claim.volume.volume_id,
            publish_context=claim.publish_context,
            staging_target_path=str(claim.staging),
            volume_capability=claim.capability,
            volume_context=claim.volume.volume_context,
        )
    )
    await kubernetes.node.node_publish_volume(
        csi.NodePublishVolumeRequest(
            volume_id=claim.volume.volume_id,
            publish_context=claim.publish_context,
            staging_target_path=str(claim.staging),
            target_path=str(claim.target),
            volume_capability=claim.capability,
            volume_context=claim.volume.volume_context,
            readonly=True,
        )
    )


@pytest.mark.exhaustive
async def test_without_its_device_unstage_ends_and_says_what_to_do(
    kubernetes: Kubernetes, world: World
) -> None:
    """An unmount would wait for as long as nobody answers, and could not be ended."""
    claim = volume("layer-gone", "ext4", reconnectDelay=1)
    await volumes.bring_up(kubernetes, claim)
    first = await written(claim)
    uuid = claim_uuid()
    await world.rds.cut(None)
    volumes.disconnect_all(PREFIX)  # as the kernel does when it gives up
    await until(lambda: volumes.state(claim) == "gone", "the device is gone")

    unpublish = csi.NodeUnpublishVolumeRequest(
        volume_id=claim.volume.volume_id, target_path=str(claim.target)
    )
    await kubernetes.node.node_unpublish_volume(unpublish)
    unstage = csi.NodeUnstageVolumeRequest(
        volume_id=claim.volume.volume_id, staging_target_path=str(claim.staging)
    )
    began = time.monotonic()
    with pytest.raises(GRPCError) as caught:
        await kubernetes.node.node_unstage_volume(unstage, timeout=60)
    assert caught.value.status is Status.UNAVAILABLE
    assert f"rds-csi release {claim.volume.volume_id} --yes" in str(caught.value.message)
    assert time.monotonic() - began < 45
    assert len(node.mounts(KUBELET)) == 1

    # Told to fail, as a release does it, it ends; what was acknowledged is there afterwards.
    node.dmsetup("message", uuid, "0", "fail_if_no_path")
    await kubernetes.node.node_unstage_volume(unstage)
    assert (node.mounts(KUBELET), node.maps()) == ([], {})
    await world.rds.restore(None)
    await kubernetes.mount(claim)
    assert data.intact(first)
    await volumes.take_down(kubernetes, claim)


@pytest.mark.exhaustive
async def test_a_map_that_a_killed_driver_left_without_a_table_is_no_obstacle(
    kubernetes: Kubernetes,
) -> None:
    claim = volume("layer-bare", "ext4")
    await volumes.bring_up(kubernetes, claim)
    uuid = claim_uuid()
    await kubernetes.unmount(claim)
    node.dmsetup("create", "--noudevsync", uuid, "--uuid", uuid, "--notable")
    await kubernetes.mount(claim)
    assert claim_uuid() == uuid
    await volumes.take_down(kubernetes, claim)


def claim_uuid() -> str:
    (uuid,) = node.maps().values()
    return uuid
