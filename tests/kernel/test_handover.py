"""A mount outlives a forced detach, and the volume comes back after another node had it.

The other node is played on the RDS itself, over a loop device on the volume's file.
"""

import os
from pathlib import Path
from typing import Final

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from rds_csi.model.node_id import make_node_id
from tests.kernel.test_give_up import give_up
from tests.kernel.test_resilience_target import OBEYS
from tests.lab import node, volumes
from tests.lab.application import tell
from tests.lab.kernel_log import KernelLog
from tests.lab.volumes import volume
from tests.lab.waiting import until
from tests.lab.world import BASE, World

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(OBEYS, reason="this kernel gives a denied export up, and the mount with it"),
]

_OTHER: Final = make_node_id("lab", "node-2")
_AT: Final = 1024**2
"""Where a raw volume is written, in bytes."""


async def test_the_old_mount_is_not_given_back_and_overwrites_nothing(
    kubernetes: Kubernetes, world: World
) -> None:
    claims = [
        volume(f"back-{access}", access, reconnectDelay=1, fencing="hostNqn")
        for access in ("ext4", "block")
    ]
    await volumes.bring_up(kubernetes, *claims)
    for each in claims:
        write(each, b"ours")
    os.sync()

    # Taken by force: nobody unmounts. The other node writes; then it comes back.
    for each in claims:
        await detach(kubernetes, each, "")
        await until(lambda each=each: volumes.state(each) == "connecting", "it is closed")  # type: ignore[misc]
        await attach(kubernetes, each, _OTHER)
        write_elsewhere(world, each)
        await detach(kubernetes, each, _OTHER)
        before = volumes.controller(each)
        await kubernetes.attach(each)
        # By the name that the kernel knows, it never comes back.
        assert before is not None
        words = f"{before.name}: Failed reconnect attempt"
        log = KernelLog()
        await until(lambda log=log, words=words: len(log.lines(words)) >= 3, "it is turned away")  # type: ignore[misc]
        log.close()
        assert [found for found in node.controllers() if found.nqn == before.nqn] == [before]
        assert volumes.state(each) == "gone"

    for each in claims:
        for target in (each.target, each.target.with_name("another")):
            said = await refused(kubernetes, each, target)
            assert "stop the pods that use it on this node" in said
        tell(said)
        assert "StaleGeneration" in await volumes.health(kubernetes, each)

        # What is mounted can write nothing any more, not even its end: that is given up first.
        assert (await give_up(each)).returncode == 0
        await kubernetes.unmount(each)
        check(world, each)
        await kubernetes.mount(each)
        assert read(each) == b"theirs"
        assert await volumes.health(kubernetes, each) == {}
    await volumes.take_down(kubernetes, *claims)


def write(claim: Claim, content: bytes) -> None:
    if claim.access == "block":
        put(claim.target, content)
    else:
        (claim.target / "ours").write_bytes(content)


def read(claim: Claim) -> bytes:
    if claim.access != "block":
        return (claim.target / "theirs").read_bytes()
    with claim.target.open("rb") as device:
        device.seek(_AT)
        return device.read(6)


def put(place: Path, content: bytes) -> None:
    with place.open("r+b") as device:
        device.seek(_AT)
        device.write(content)
        device.flush()
        os.fsync(device.fileno())


def file_of(world: World, claim: Claim) -> Path:
    """The volume's file on the RDS."""
    (file,) = world.rds.path(BASE).glob(f"{claim.volume.volume_id}*.img")
    return file


def write_elsewhere(world: World, claim: Claim) -> None:
    """As another machine does that has the volume."""
    file = file_of(world, claim)
    if claim.access == "block":
        put(file, b"theirs")
        return
    point = file.with_name("elsewhere")
    point.mkdir()
    volumes.run("modprobe", "loop")
    volumes.run("mount", "-o", "loop", file, point)
    try:
        (point / "ours").unlink()
        for name in ("theirs", *map(str, range(20))):
            (point / name).write_bytes(b"theirs")
    finally:
        volumes.run("umount", point)
        point.rmdir()


def check(world: World, claim: Claim) -> None:
    if claim.access != "block":
        volumes.run("e2fsck", "-fn", file_of(world, claim))


async def refused(kubernetes: Kubernetes, claim: Claim, target: Path) -> str:
    """What both calls say."""
    with pytest.raises(GRPCError) as stage:
        await kubernetes.mount(claim)
    with pytest.raises(GRPCError) as publish:
        await kubernetes.node.node_publish_volume(
            csi.NodePublishVolumeRequest(
                volume_id=claim.volume.volume_id,
                publish_context=claim.publish_context,
                staging_target_path=str(claim.staging),
                target_path=str(target),
                volume_capability=claim.capability,
                volume_context=claim.volume.volume_context,
            )
        )
    assert stage.value.status is publish.value.status is Status.FAILED_PRECONDITION
    assert stage.value.message == publish.value.message
    return str(stage.value.message)


async def attach(kubernetes: Kubernetes, claim: Claim, node_id: str) -> None:
    await kubernetes.controller.controller_publish_volume(
        csi.ControllerPublishVolumeRequest(
            volume_id=claim.volume.volume_id,
            node_id=node_id,
            volume_capability=claim.capability,
            volume_context=claim.volume.volume_context,
        )
    )


async def detach(kubernetes: Kubernetes, claim: Claim, node_id: str) -> None:
    await kubernetes.controller.controller_unpublish_volume(
        csi.ControllerUnpublishVolumeRequest(volume_id=claim.volume.volume_id, node_id=node_id)
    )
