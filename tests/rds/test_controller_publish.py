"""Publishing against RouterOS over real SSH: who gets a volume, and what is written for it."""

import asyncio

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import (
    Code,
    MadeForOther,
    NodeNotFound,
    VolumeInUse,
    VolumeMismatch,
    VolumeNotFound,
)
from rds_csi.model.host_identity import host_identity
from rds_csi.model.volume import GIB, volume_id

from .calls import NODE_A, NODE_B, Mode, block, create, delete, mount, publish, published, unpublish
from .conftest import CLUSTER, Rds
from .volumes import changes


class TestPublish:
    async def test_a_second_node_is_refused_by_name(self, controller: Controller) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        with pytest.raises(VolumeInUse, match="worker-a") as caught:
            await publish(controller, volume, NODE_B)
        assert caught.value.code == Code.FAILED_PRECONDITION
        await unpublish(controller, volume)
        await publish(controller, volume, NODE_B)

    async def test_the_same_node_again(self, rds: Rds, controller: Controller) -> None:
        volume = await create(controller)
        context = await publish(controller, volume)
        before = rds.disk(volume.volume_id)
        assert await publish(controller, volume) == context
        assert rds.disk(volume.volume_id) == before

    async def test_the_same_node_in_another_way(self, controller: Controller) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        with pytest.raises(VolumeMismatch):
            await publish(controller, volume, readonly=True)

    async def test_a_map_is_asked_for_where_io_is_to_wait(self, rds: Rds) -> None:
        plain, layered = rds.controller(), rds.controller(path_layer=True)
        for number, parameters in enumerate(
            ({}, {"ctrlLossTmo": "600"}, {"fastIoFailTmo": "5"}, {"ctrlLossTmo": "-1"})
        ):
            volume = await create(layered, f"pvc-layer-{number}", parameters=parameters)
            errors = bool(parameters) and parameters != {"ctrlLossTmo": "-1"}
            assert (await publish(layered, volume)).get("pathLayer") == (None if errors else "true")
            assert "pathLayer" not in await publish(plain, volume)

    async def test_read_only_reaches_the_node(self, controller: Controller) -> None:
        volume = await create(controller)
        assert (await publish(controller, volume, readonly=True))["readonly"] == "true"

    async def test_the_node_is_told_the_hand_overs(self, controller: Controller) -> None:
        """Also where the same node has it again: a mount may have outlived the detach."""
        volume = await create(controller)
        told = []
        for node in (NODE_A, NODE_B, NODE_B, NODE_A):
            context = await publish(controller, volume, node)
            assert await publish(controller, volume, node) == context
            told.append(context["generation"])
            await unpublish(controller, volume, node)
        assert told == ["1", "2", "3", "4"]

    async def test_holders_at_the_same_time_share_a_generation(
        self, rds: Rds, controller: Controller
    ) -> None:
        shared = block(Mode.MULTI_NODE_MULTI_WRITER)
        volume = await create(controller, volume_capabilities=[shared])
        first = await publish(controller, volume, NODE_A, volume_capability=shared)
        other = rds.controller()
        second = await publish(other, volume, NODE_B, volume_capability=shared)
        await unpublish(controller, volume, NODE_A)
        again = await publish(other, volume, NODE_A, volume_capability=shared)
        assert [each["generation"] for each in (first, second, again)] == ["1", "1", "1"]

    @pytest.mark.parametrize("made", ["ext4", "xfs", "block"])
    @pytest.mark.parametrize("asked", ["", "ext4", "xfs", "block"])
    async def test_a_volume_is_used_only_as_what_it_was_made_for(
        self, rds: Rds, controller: Controller, made: str, asked: str
    ) -> None:
        """An empty fsType means ext4, also to the node, which would make that on a blank device."""
        ways = {"block": block(), "": mount(""), "ext4": mount(), "xfs": mount("xfs")}
        volume = await create(
            controller,
            volume_capabilities=[ways[made]],
            capacity_range=csi.CapacityRange(required_bytes=GIB),
        )
        before = rds.disk(volume.volume_id)
        answer = await controller.validate_volume_capabilities(
            csi.ValidateVolumeCapabilitiesRequest(
                volume_id=volume.volume_id, volume_capabilities=[ways[asked]]
            )
        )
        if (asked or "ext4") == made:
            assert answer.confirmed is not None
            await publish(controller, volume, volume_capability=ways[asked])
            return
        assert answer.confirmed is None
        assert f"was made for {made}" in answer.message
        for each in (controller, rds.controller()):
            with pytest.raises(
                MadeForOther, match=f"made for {made}, .* as {asked or 'ext4'}"
            ) as e:
                await publish(each, volume, volume_capability=ways[asked])
            assert e.value.code == Code.FAILED_PRECONDITION
        assert rds.disk(volume.volume_id) == before

    async def test_nothing_is_written_where_nothing_changes(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        count = len(changes(rds))
        successor = rds.controller()
        await successor.get_capacity(csi.GetCapacityRequest())
        for each in (controller, successor):
            execs = rds.execs()
            await publish(each, volume)
            assert rds.execs() - execs == 1
        await unpublish(controller, volume)
        assert len(changes(rds)) == count + 1
        for each in (controller, successor):
            execs = rds.execs()
            await unpublish(each, volume)
            assert rds.execs() - execs == 1
        assert len(changes(rds)) == count + 1

    async def test_that_it_is_published_already_is_not_believed_of_what_is_remembered(
        self, rds: Rds, controller: Controller
    ) -> None:
        """Another replica took it from the node meanwhile: the node gets it anew, and is told."""
        volume = await create(controller)
        first = await publish(controller, volume)
        await unpublish(rds.controller(), volume)
        assert not rds.disk(volume.volume_id).exported
        again = await publish(controller, volume)
        assert rds.disk(volume.volume_id).exported
        assert (first["generation"], again["generation"]) == ("1", "2")

    async def test_that_it_is_unpublished_already_is_not_believed_of_what_is_remembered(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        await publish(rds.controller(), volume)
        await unpublish(controller, volume)
        assert not rds.disk(volume.volume_id).exported

    @pytest.mark.parametrize("refusal", ["in use", "another way", "another use"])
    async def test_a_refusal_is_not_believed_of_what_is_remembered(
        self, rds: Rds, controller: Controller, refusal: str
    ) -> None:
        """What stood in the way when this replica looked last is gone since."""
        volume = await create(controller)
        slot = volume.volume_id
        match refusal:
            case "in use":
                await publish(controller, volume, NODE_B)
                await unpublish(rds.controller(), volume, NODE_B)
            case "another way":
                await publish(controller, volume, readonly=True)
                await unpublish(rds.controller(), volume)
            case "another use":
                good = rds.disk(slot).comment
                await rds.simulator.run(f'/disk/set {slot} comment="{as_xfs(good)}"')
                await controller.controller_get_volume(
                    csi.ControllerGetVolumeRequest(volume_id=slot)
                )
                await rds.simulator.run(f'/disk/set {slot} comment="{good}"')
        await publish(controller, volume)
        assert await published(controller, volume) == [NODE_A]

    async def test_block_goes_to_two_nodes(self, rds: Rds, controller: Controller) -> None:
        shared = block(Mode.MULTI_NODE_MULTI_WRITER)
        volume = await create(controller, volume_capabilities=[shared])
        await publish(controller, volume, NODE_A, volume_capability=shared)
        await publish(controller, volume, NODE_B, volume_capability=shared)
        assert await published(controller, volume) == [NODE_A, NODE_B]
        await unpublish(controller, volume, NODE_A)
        assert rds.disk(volume.volume_id).exported
        assert await published(controller, volume) == [NODE_B]

    async def test_no_node_means_all(self, rds: Rds, controller: Controller) -> None:
        shared = block(Mode.MULTI_NODE_MULTI_WRITER)
        volume = await create(controller, volume_capabilities=[shared])
        await publish(controller, volume, NODE_A, volume_capability=shared)
        await publish(controller, volume, NODE_B, volume_capability=shared)
        await unpublish(controller, volume, "")
        assert await published(controller, volume) == []
        assert not rds.disk(volume.volume_id).exported

    async def test_unpublishing_is_repeatable(self, controller: Controller) -> None:
        volume = await create(controller)
        await unpublish(controller, volume)
        await unpublish(controller, volume)
        await delete(controller, volume.volume_id)
        await unpublish(controller, volume)

    async def test_another_replica_was_faster(self, rds: Rds, controller: Controller) -> None:
        other = rds.controller()
        volume = await create(controller)
        await publish(other, volume, NODE_B)
        with pytest.raises(VolumeInUse, match="worker-b"):
            await publish(controller, volume, NODE_A)
        await unpublish(other, volume, NODE_B)
        await publish(controller, volume, NODE_A)

    async def test_replicas_racing_never_both_win(self, rds: Rds, controller: Controller) -> None:
        other = rds.controller()
        for round_ in range(5):
            volume = await create(controller, f"pvc-{round_}")
            results = await asyncio.gather(
                publish(controller, volume, NODE_A),
                publish(other, volume, NODE_B),
                return_exceptions=True,
            )
            winners = [result for result in results if isinstance(result, dict)]
            assert len(winners) == 1
            holder = await published(controller, volume)
            assert holder == ([NODE_A] if isinstance(results[0], dict) else [NODE_B])

    async def test_an_unknown_node(self, controller: Controller) -> None:
        volume = await create(controller)
        with pytest.raises(NodeNotFound):
            await publish(controller, volume, "some-node")

    async def test_an_unknown_volume(self, controller: Controller) -> None:
        for slot in ("nothing", volume_id("nothing")):
            with pytest.raises(VolumeNotFound):
                await publish(controller, csi.Volume(volume_id=slot))

    async def test_fencing_restricts_the_export(self, rds: Rds, controller: Controller) -> None:
        volume = await create(controller, parameters={"fencing": "hostNqn"})
        await publish(controller, volume, NODE_A)
        assert rds.disk(volume.volume_id).allowed_host == host_identity(CLUSTER, NODE_A).nqn
        await unpublish(controller, volume, NODE_A)
        await publish(controller, volume, NODE_B)
        assert rds.disk(volume.volume_id).allowed_host == host_identity(CLUSTER, NODE_B).nqn

    async def test_a_published_volume_is_not_deleted(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        before = rds.disk(volume.volume_id)
        with pytest.raises(VolumeInUse, match="worker-a"):
            await delete(controller, volume.volume_id)
        assert rds.disk(volume.volume_id) == before


def as_xfs(comment: str) -> str:
    return comment.replace("access=ext4", "access=xfs")
