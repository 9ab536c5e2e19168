"""The driver or the whole node goes down, at the worst moment."""

import time
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Kubernetes
from tests.lab import node, volumes
from tests.lab.application import Application, tell
from tests.lab.processes import Driver
from tests.lab.volumes import SLACK, volume
from tests.lab.waiting import until
from tests.lab.world import KUBELET, PREFIX, World

pytestmark = pytest.mark.timeout(900)


async def test_the_driver_is_killed_in_an_outage(
    kubernetes: Kubernetes, driver: Driver, world: World, tmp_path: Path
) -> None:
    claims = [volume(f"kill-{access}", access, reconnectDelay=1) for access in ("ext4", "block")]
    await volumes.bring_up(kubernetes, *claims)
    mounts, controllers = node.mounts(KUBELET), node.controllers()
    application = Application(claims, tmp_path / "application")
    await application.start()
    await world.rds.cut(None)
    cut = time.monotonic()
    for each in claims:
        await until(lambda each=each: volumes.state(each) == "connecting", "it is cut")  # type: ignore[misc]

    await driver.kill()
    # Its search for orphans at the start sees connections without a live controller.
    await driver.start()

    # The kubelet repeats its calls, also while the target is away: nothing to do is success.
    for each in claims:
        await kubernetes.mount(each)
        assert list(await volumes.health(kubernetes, each)) == ["Reconnecting"]
    assert node.mounts(KUBELET) == mounts
    assert [each.name for each in node.controllers()] == [each.name for each in controllers]
    for each in claims:
        answered = application.journal(each).answered_within(cut, time.monotonic())
        assert answered == [], "a write was acknowledged while the target was away"
    restored = time.monotonic()
    await world.rds.restore(None)
    for each in claims:
        assert await application.resumed(each, restored) < 1 + 1 + SLACK
    tell(application.summary())
    assert all(journal.errors() == {} for journal in application.journals)
    await application.stop()
    await application.prove()
    await volumes.take_down(kubernetes, *claims)


async def test_the_node_reboots(kubernetes: Kubernetes, driver: Driver, tmp_path: Path) -> None:
    accesses = ("ext4", "xfs", "block")
    claims = [volume(f"boot-{access}", access, reconnectDelay=1) for access in accesses]
    await volumes.bring_up(kubernetes, *claims)
    application = Application(claims, tmp_path / "application")
    await application.start()

    # All at once, as far as one can: the connections go first, so that no file system gets to
    # write what it still has in memory.
    await driver.kill()
    volumes.disconnect_all(PREFIX)
    await application.stop()
    for line in reversed(node.mounts(KUBELET)):
        volumes.run("umount", line.split(" ")[4])
    assert node.controllers(PREFIX) == []
    await driver.start()

    # After a reboot the kubelet stages and publishes without unstaging first.
    for each in claims:
        await kubernetes.mount(each)
        assert await volumes.health(kubernetes, each) == {}
    await application.prove()
    await application.start()
    await application.stop()
    await application.prove()
    tell(application.summary())
    await volumes.take_down(kubernetes, *claims)


async def test_disconnect_is_refused_while_it_is_mounted_elsewhere(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    claim = volume("elsewhere", "ext4", reconnectDelay=1)
    await volumes.bring_up(kubernetes, claim)
    application = Application([claim], tmp_path / "application")
    elsewhere = KUBELET / "elsewhere"
    elsewhere.mkdir()
    (staged,) = (line for line in node.mounts(KUBELET) if f" {claim.staging} " in line)
    device = staged.partition(" - ")[2].split(" ")[1]
    volumes.run("mount", device, elsewhere)
    await application.start()
    unstage = csi.NodeUnstageVolumeRequest(
        volume_id=claim.volume.volume_id, staging_target_path=str(claim.staging)
    )

    for _ in range(2):
        with pytest.raises(GRPCError) as refused:
            await kubernetes.node.node_unstage_volume(unstage)
        tell(str(refused.value.message))
        assert refused.value.status is Status.FAILED_PRECONDITION
        assert "mounted at" in str(refused.value.message)
    # Not even where the driver knows of no mount of its own.
    await application.stop()
    await kubernetes.node.node_unpublish_volume(
        csi.NodeUnpublishVolumeRequest(
            volume_id=claim.volume.volume_id, target_path=str(claim.target)
        )
    )
    with pytest.raises(GRPCError) as refused:
        await kubernetes.node.node_unstage_volume(unstage)
    assert str(elsewhere) in str(refused.value.message)
    assert volumes.state(claim) == "live"

    volumes.run("umount", elsewhere)
    await kubernetes.mount(claim)
    await application.prove()
    await volumes.take_down(kubernetes, claim)
