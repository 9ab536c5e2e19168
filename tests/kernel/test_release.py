"""``rds-csi release`` on a real map: what waits for a target that is gone for good has an end."""

import asyncio

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.demo import data
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import mapped, node, volumes
from tests.lab.application import where
from tests.lab.late_writer import LateWriter
from tests.lab.volumes import volume
from tests.lab.world import KUBELET, MIB, World

pytestmark = [pytest.mark.timeout(600), pytest.mark.path_layer, pytest.mark.exhaustive]


async def lost(claim: Claim, world: World) -> None:
    """The RDS is away, and its device gone."""
    await world.rds.cut(None)
    await mapped.given_up(claim)


async def written(kubernetes: Kubernetes, claim: Claim) -> data.Written:
    await volumes.bring_up(kubernetes, claim)
    return await asyncio.to_thread(data.write, where(claim), offset=0, size=4 * MIB)


async def as_after_a_loss_of_power(
    kubernetes: Kubernetes, world: World, claim: Claim, content: data.Written
) -> None:
    """Nothing of it is left on the node; and what the RDS has acknowledged, it has."""
    assert (node.mounts(KUBELET), node.maps()) == ([], {})
    assert volumes.state(claim) == "gone"
    await world.rds.restore(None)
    await kubernetes.mount(claim)
    assert data.intact(content)
    await mapped.until_health(kubernetes, claim, set())
    await volumes.take_down(kubernetes, claim)


async def test_unstage_ends_with_what_to_do_and_succeeds_after_it(
    kubernetes: Kubernetes, world: World
) -> None:
    """An unmount would wait for as long as nobody answers, and could not be ended."""
    claim = volume("release", "ext4", reconnectDelay=1)
    content = await written(kubernetes, claim)
    late = LateWriter(claim, flush=False)
    await lost(claim, world)
    late.write()  # its pages wait to be written, and no program does
    assert await late.end() == 0

    for options in ((), ("--yes",)):
        async with asyncio.timeout(60):  # the kubelet's patience is 120 s
            with pytest.raises(GRPCError) as stuck:
                await kubernetes.unmount(claim)
        assert stuck.value.status is Status.UNAVAILABLE
        assert f"rds-csi release {claim.volume.volume_id} --yes" in str(stuck.value.message)
        assert len(node.mounts(KUBELET)) == 1
        assert (await mapped.release(claim, *options)).returncode == 0
    await kubernetes.unmount(claim)
    await as_after_a_loss_of_power(kubernetes, world, claim, content)


@pytest.mark.parametrize("access", ["ext4", "block"])
async def test_a_program_that_waits_ends_when_its_volume_is_released(
    access: str, kubernetes: Kubernetes, world: World
) -> None:
    """Also where the RDS is back by then: what was let fail is not brought back under a pod."""
    claim = volume("release", access, reconnectDelay=1)
    content = await written(kubernetes, claim)
    late = LateWriter(claim)
    await lost(claim, world)
    late.write()
    await mapped.until_said(kubernetes, claim, "ConnectionGivenUp", "nothing answers")
    async with asyncio.timeout(60):
        with pytest.raises(GRPCError):
            await kubernetes.unmount(claim)  # the program has it open
    assert not late.ended

    assert (await mapped.release(claim, "--yes")).returncode == 0
    assert await late.end() != 0
    await world.rds.restore(None)
    await mapped.until_said(kubernetes, claim, "NotHealed", "it was released")
    await kubernetes.unmount(claim)
    await as_after_a_loss_of_power(kubernetes, world, claim, content)
