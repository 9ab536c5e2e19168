"""Two nodes and one volume: one at a time, and handed over whole.

Both nodes are drivers on one kernel here. That takes two host identities, which the kernel keeps
apart as if they were two machines.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import node, volumes
from tests.lab.application import Application, tell
from tests.lab.processes import Driver
from tests.lab.volumes import volume
from tests.lab.world import KUBELET, PREFIX, World

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("access", ["ext4", "block"])
async def test_refused_then_handed_over(
    access: str, kubernetes: Kubernetes, driver: Driver, world: World, tmp_path: Path
) -> None:
    second = world.driver("node", node_id="node-2")
    await second.start()
    async with Kubernetes(driver.socket, second.socket) as kubernetes_2:
        # With fencing on, also the RDS refuses the other node.
        here = volume(f"hand-{access}", access, reconnectDelay=1, fencing="hostNqn")
        await volumes.bring_up(kubernetes, here)
        there = replace(here, kubelet_dir=KUBELET / "node-2")
        application = Application([here], tmp_path / "application")
        await application.start()

        with pytest.raises(GRPCError) as refused:
            await kubernetes_2.attach(there)
        tell(str(refused.value.message))
        assert refused.value.status is Status.FAILED_PRECONDITION
        await require_staging_refused(kubernetes_2, there)
        assert application.journals[0].errors() == {}

        await application.stop()
        await kubernetes.unmount(here)
        await kubernetes.controller.controller_unpublish_volume(await unpublish(kubernetes, here))
        await kubernetes_2.attach(there)
        await kubernetes_2.mount(there)
        moved = Application([there], tmp_path / "application")
        await moved.prove()
        await moved.start()
        hosts = {volumes.setting(there, "hostnqn")}
        assert len(node.controllers(PREFIX)) == 1
        # The first node is late: what it still does must not reach the second one's connection.
        await kubernetes.unmount(here)
        await asyncio.sleep(0.5)
        assert {volumes.setting(there, "hostnqn")} == hosts
        await moved.stop()
        assert moved.journals[0].errors() == {}
        await moved.prove()
        tell(moved.summary())
        await volumes.take_down(kubernetes_2, there)


async def unpublish(kubernetes: Kubernetes, claim: Claim) -> csi.ControllerUnpublishVolumeRequest:
    info = await kubernetes.node.node_get_info(csi.NodeGetInfoRequest())
    return csi.ControllerUnpublishVolumeRequest(
        volume_id=claim.volume.volume_id, node_id=info.node_id
    )


async def require_staging_refused(kubernetes: Kubernetes, claim: Claim) -> None:
    """A kubelet that stages without having attached gets nowhere, and breaks nothing."""
    with pytest.raises(GRPCError) as refused:
        await kubernetes.mount(claim)
    tell(str(refused.value.message))
    assert refused.value.status in (Status.FAILED_PRECONDITION, Status.UNAVAILABLE)
    assert len(node.controllers(PREFIX)) == 1
