"""The RDS comes back another than it went: rebooted, or without a volume, for a while."""

import asyncio
import platform
import time
from pathlib import Path
from typing import Final

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Kubernetes
from tests.lab import node, volumes
from tests.lab.application import Application, tell
from tests.lab.kernel_log import KernelLog
from tests.lab.volumes import SLACK, volume
from tests.lab.waiting import until
from tests.lab.world import KUBELET, World

pytestmark = pytest.mark.timeout(900)

OBEYS: Final = [int(part) for part in platform.release().split(".")[:2]] >= [6, 10]
"""Whether this kernel removes a controller whose export is denied (docs/kernel-defaults.md)."""


async def test_the_rds_reboots(kubernetes: Kubernetes, world: World, tmp_path: Path) -> None:
    # No kernel goes on with another UUID, and from 6.10 on none waits for its turn.
    world.rds.quirks.stable_identifiers = True
    world.rds.quirks.export_spacing = 0.0 if OBEYS else 4.0
    claims = [volume(f"boot-{access}", access, reconnectDelay=1) for access in ("xfs", "block")]
    await volumes.bring_up(kubernetes, *claims)
    mounts = node.mounts(KUBELET)
    ids = [volumes.setting(each, "cntlid") for each in claims]
    application = Application(claims, tmp_path / "application")
    await application.start()

    for _ in range(2):
        await world.rds.reboot(down=4)
        await world.rds.exports_up()
        back = time.monotonic()
        took = [await application.resumed(each, back) for each in claims]
        tell(f"I/O resumed {took} s after the last export was back")
        assert max(took) < 1 + 1 + SLACK

    tell(application.summary())
    assert not set(ids) & {volumes.setting(each, "cntlid") for each in claims}
    assert node.mounts(KUBELET) == mounts
    assert all(journal.errors() == {} for journal in application.journals)
    await application.stop()
    await application.prove()
    # The controller found its way back to the RDS too.
    await volumes.take_down(kubernetes, *claims)


async def set_exported(world: World, slot: str, *, exported: bool) -> None:
    """An administrator does it, over the driver's head."""
    value = "yes" if exported else "no"
    said = await world.rds.run(f'/disk set [find slot="{slot}"] nvme-tcp-export={value}')
    assert said == ""


@pytest.mark.skipif(OBEYS, reason="this kernel gives a denied export up; the next test is for it")
async def test_a_volume_is_missing_for_a_while(
    kubernetes: Kubernetes, world: World, tmp_path: Path
) -> None:
    world.rds.quirks.stable_identifiers = True  # no kernel goes on with another UUID
    used, present, wanted = (
        volume(name, "ext4", reconnectDelay=1) for name in ("used", "present", "wanted")
    )
    await volumes.bring_up(kubernetes, used, present)
    await kubernetes.provision(wanted)
    await kubernetes.attach(wanted)
    application = Application([used], tmp_path / "application")
    await application.start()
    log = KernelLog()

    for each in (used, wanted):
        await set_exported(world, each.volume.volume_id, exported=False)
    name = volumes.controller(used)
    assert name is not None
    await until(
        lambda: len(log.lines(f"{name.name}: Failed reconnect attempt")) >= 3,
        "the kernel is turned away three times",
    )

    # In use: I/O waits, and health names the cause.
    assert application.journal(used).errors() == {}
    assert list(await volumes.health(kubernetes, used)) == ["Reconnecting"]
    storage = await kubernetes.node.node_get_storage_health(csi.NodeGetStorageHealthRequest())
    assert [each.reason for each in storage.backend_health] == ["ConnectionsLost"]
    # Not in use yet: staging fails, in words that lead to the cause, and leaves nothing behind.
    with pytest.raises(GRPCError) as refused:
        await kubernetes.mount(wanted)
    tell(str(refused.value.message))
    assert refused.value.status is Status.UNAVAILABLE
    assert wanted.volume.volume_id in str(refused.value.message)
    assert "does not export" in str(refused.value.message)
    assert volumes.state(wanted) == "gone"

    for each in (used, wanted):
        await set_exported(world, each.volume.volume_id, exported=True)
    back = time.monotonic()
    assert await application.resumed(used, back) < 1 + 1 + SLACK
    assert await volumes.health(kubernetes, used) == {}
    await kubernetes.mount(wanted)
    tell(application.summary())
    assert application.journal(used).errors() == {}
    await application.stop()
    await application.prove()
    log.close()
    await volumes.take_down(kubernetes, used, present, wanted)


async def test_a_kernel_that_gives_a_missing_volume_up(
    kubernetes: Kubernetes, world: World, tmp_path: Path
) -> None:
    """Where the kernel obeys "do not retry", health says so, and new pods have the volume back."""
    used, present = (volume(name, "ext4", reconnectDelay=1) for name in ("used", "present"))
    await volumes.bring_up(kubernetes, used, present)
    application = Application([used], tmp_path / "application")
    await application.start()

    await set_exported(world, used.volume.volume_id, exported=False)
    if OBEYS:
        await until(lambda: volumes.state(used) == "gone", "the kernel gives up")
    else:
        volumes.run("nvme", "disconnect", "-n", used.publish_context["nqn"])
    await until(lambda: application.journal(used).errors() != {}, "I/O fails")
    said = await volumes.health(kubernetes, used)
    assert "Linux 6.10" in said["NotConnected"]
    assert await volumes.health(kubernetes, present) == {}

    await set_exported(world, used.volume.volume_id, exported=True)
    await application.stop()
    await kubernetes.unmount(used)
    await kubernetes.mount(used)
    assert await volumes.health(kubernetes, used) == {}
    await application.prove()
    await volumes.take_down(kubernetes, used, present)


async def test_another_volume_does_not_notice(
    kubernetes: Kubernetes, world: World, tmp_path: Path
) -> None:
    away, there = (volume(name, "block", reconnectDelay=1) for name in ("away", "there"))
    await volumes.bring_up(kubernetes, away, there)
    application = Application([away, there], tmp_path / "application")
    await application.start()

    await world.rds.cut(away.volume.volume_id)
    await asyncio.sleep(5)
    await world.rds.restore(away.volume.volume_id)
    await application.resumed(away, time.monotonic())

    tell(application.summary())
    assert application.journal(away).longest_stall() > 5
    assert application.journal(there).longest_stall() < 1 + SLACK
    await application.stop()
    await application.prove()
    await volumes.take_down(kubernetes, away, there)
