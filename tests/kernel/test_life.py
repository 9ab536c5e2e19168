"""A volume's whole life through the CSI socket, on the real kernel."""

import asyncio
import os
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.demo import data
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import node
from tests.lab.volumes import GROWS_IN_USE
from tests.lab.world import KUBELET, MIB, PREFIX, SIZE, World, claim

ACCESSES = ["ext4", "xfs", "block"]
BIGGER = 512 * MIB


def application(volume: Claim) -> Path:
    """Where the application writes: the device, or a file in the file system."""
    return volume.target if volume.access == "block" else volume.target / "data"


def size_of(device: Path) -> int:
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END)


async def in_thread_written(path: Path, *, offset: int = 0) -> data.Written:
    return await asyncio.to_thread(data.write, path, offset=offset, size=8 * MIB)


@GROWS_IN_USE
@pytest.mark.parametrize("access", ACCESSES)
async def test_a_whole_life(access: str, kubernetes: Kubernetes, world: World) -> None:
    world.rds.quirks.growth = "announced"  # else no mounted volume grows
    volume = claim("life", access)
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    assert node.owned_devices() == 1
    first = await in_thread_written(application(volume))

    await kubernetes.grow(volume, BIGGER)

    if access == "block":
        assert size_of(volume.target) == BIGGER
    else:
        usage = os.statvfs(volume.target)
        assert usage.f_blocks * usage.f_frsize > 0.8 * BIGGER
    second = await in_thread_written(application(volume), offset=300 * MIB)
    assert data.intact(first)
    assert data.intact(second)
    await kubernetes.unmount(volume)
    assert node.mounts(KUBELET) == []
    assert node.controllers(PREFIX) == []

    # The next pod finds what the first one wrote.
    await kubernetes.mount(volume)
    assert data.intact(first)
    assert data.intact(second)
    await kubernetes.unmount(volume)
    await kubernetes.release(volume)
    assert world.leftovers() == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("flags", "access"),
    [({}, "ext4"), ({"growth": "always"}, "block")],
    ids=["refused by the controller", "told by the node"],
)
async def test_growth_where_an_export_keeps_its_size(
    access: str, kubernetes: Kubernetes, world: World
) -> None:
    """In use it is refused for good, and harms nothing; the next attachment has it."""
    volume = claim("fixed", access)
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    written = await in_thread_written(application(volume))

    with pytest.raises(GRPCError) as refused:
        await kubernetes.grow(volume, BIGGER)

    assert refused.value.status is Status.FAILED_PRECONDITION
    assert data.intact(written)
    # A new pod on the same node is not kept from it.
    await kubernetes.unmount(volume)
    await kubernetes.mount(volume)
    assert data.intact(written)
    assert node.size_of(volume.publish_context["nqn"]) == volume.volume.capacity_bytes
    await kubernetes.unmount(volume)
    await kubernetes.detach(volume)

    await kubernetes.resize(volume, BIGGER)

    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    if access == "block":
        assert size_of(volume.target) == BIGGER
    else:
        usage = os.statvfs(volume.target)
        assert usage.f_blocks * usage.f_frsize > 0.8 * BIGGER
    assert data.intact(written)
    await kubernetes.unmount(volume)
    await kubernetes.release(volume)
    assert world.leftovers() == []


@pytest.mark.parametrize("access", ACCESSES)
async def test_repeated_calls_change_nothing(access: str, kubernetes: Kubernetes) -> None:
    volume = claim("repeat", access)
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    mounts, controllers = node.mounts(KUBELET), node.controllers(PREFIX)
    assert len(controllers) == 1

    for _ in range(3):
        await kubernetes.attach(volume)
        await kubernetes.mount(volume)

    # Mount ids are part of the lines: a mount undone and made again would show.
    assert node.mounts(KUBELET) == mounts
    assert node.controllers(PREFIX) == controllers
    await kubernetes.unmount(volume)
    await kubernetes.unmount(volume)
    await kubernetes.release(volume)
    await kubernetes.release(volume)


async def test_unpublish_of_a_busy_target_fails_and_keeps_the_data(
    kubernetes: Kubernetes,
) -> None:
    volume = claim("busy", "ext4")
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    written = await in_thread_written(application(volume))
    unpublish = csi.NodeUnpublishVolumeRequest(
        volume_id=volume.volume.volume_id, target_path=str(volume.target)
    )

    with application(volume).open("rb"):
        with pytest.raises(GRPCError):
            await kubernetes.node.node_unpublish_volume(unpublish)
        assert data.intact(written)

    await kubernetes.unmount(volume)
    await kubernetes.release(volume)


async def test_a_volume_in_use_is_not_deleted(kubernetes: Kubernetes, world: World) -> None:
    volume = claim("in-use", "ext4")
    await kubernetes.provision(volume)
    await kubernetes.attach(volume)
    await kubernetes.mount(volume)
    written = await in_thread_written(application(volume))

    with pytest.raises(GRPCError) as refused:
        await kubernetes.controller.delete_volume(
            csi.DeleteVolumeRequest(volume_id=volume.volume.volume_id)
        )

    assert refused.value.status is Status.FAILED_PRECONDITION
    assert list(world.rds.disks) == [volume.volume.volume_id]
    assert data.intact(written)
    await kubernetes.unmount(volume)
    await kubernetes.release(volume)


async def test_usage_is_the_kernels(kubernetes: Kubernetes) -> None:
    for access in ACCESSES:
        volume = claim(f"usage-{access}", access)
        await kubernetes.provision(volume)
        await kubernetes.attach(volume)
        await kubernetes.mount(volume)

        stats = await kubernetes.node.node_get_volume_stats(
            csi.NodeGetVolumeStatsRequest(
                volume_id=volume.volume.volume_id,
                volume_path=str(volume.target),
                staging_target_path=str(volume.staging),
            )
        )

        size = next(usage for usage in stats.usage if usage.unit == csi.VolumeUsageUnit.BYTES)
        if access == "block":
            assert size.total == SIZE
        else:
            found = os.statvfs(volume.target)
            # mke2fs makes blocks of 1 KiB on a small device with sectors of 512 bytes.
            assert size.total == found.f_blocks * found.f_frsize
            assert size.available > 0
        await kubernetes.unmount(volume)
        await kubernetes.release(volume)
