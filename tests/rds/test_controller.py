"""The Controller service against RouterOS over real SSH: a volume's life and its refusals."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import (
    BadToken,
    Code,
    DriverError,
    FailedPrecondition,
    InvalidParameter,
    InvalidRequest,
    MadeForOther,
    NodeNotFound,
    NotOurs,
    PoolFull,
    SizeOutOfRange,
    Unavailable,
    VolumeInUse,
    VolumeMismatch,
    VolumeNotFound,
)
from rds_csi.model.access import AccessMode
from rds_csi.model.host_identity import host_identity
from rds_csi.model.node_id import make_node_id
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import GIB, MIB, volume_id
from rds_csi.routeros import fragments

from .conftest import CLUSTER, OWNER, Rds
from .volumes import changes

NODE_A = make_node_id(CLUSTER, "worker-a")
NODE_B = make_node_id(CLUSTER, "worker-b")
Mode = csi.VolumeCapabilityAccessModeMode


def mount(fs_type: str = "ext4", mode: Mode = Mode.SINGLE_NODE_WRITER) -> csi.VolumeCapability:
    return csi.VolumeCapability(
        mount=csi.VolumeCapabilityMountVolume(fs_type=fs_type),
        access_mode=csi.VolumeCapabilityAccessMode(mode=mode),
    )


def block(mode: Mode = Mode.SINGLE_NODE_WRITER) -> csi.VolumeCapability:
    return csi.VolumeCapability(
        block=csi.VolumeCapabilityBlockVolume(),
        access_mode=csi.VolumeCapabilityAccessMode(mode=mode),
    )


async def create(controller: Controller, name: str = "pvc-one", **fields) -> csi.Volume:
    fields.setdefault("capacity_range", csi.CapacityRange(required_bytes=64 * MIB))
    fields.setdefault("volume_capabilities", [mount()])
    response = await controller.create_volume(csi.CreateVolumeRequest(name=name, **fields))
    assert response.volume is not None
    return response.volume


async def publish(
    controller: Controller, volume: csi.Volume, node: str = NODE_A, **fields
) -> dict[str, str]:
    fields.setdefault("volume_capability", mount())
    response = await controller.controller_publish_volume(
        csi.ControllerPublishVolumeRequest(
            volume_id=volume.volume_id,
            node_id=node,
            volume_context=volume.volume_context,
            **fields,
        )
    )
    return response.publish_context


async def unpublish(controller: Controller, volume: csi.Volume, node: str = NODE_A) -> None:
    await controller.controller_unpublish_volume(
        csi.ControllerUnpublishVolumeRequest(volume_id=volume.volume_id, node_id=node)
    )


async def delete(controller: Controller, slot: str) -> None:
    await controller.delete_volume(csi.DeleteVolumeRequest(volume_id=slot))


async def expand(controller: Controller, slot: str, size: int, limit: int = 0) -> int:
    response = await controller.controller_expand_volume(
        csi.ControllerExpandVolumeRequest(
            volume_id=slot,
            capacity_range=csi.CapacityRange(required_bytes=size, limit_bytes=limit),
        )
    )
    assert response.node_expansion_required
    return response.capacity_bytes


class TestLife:
    @pytest.mark.requirement("CTRL-01")
    @pytest.mark.requirement("CONN-03")
    async def test_from_nothing_to_nothing(self, rds: Rds, controller: Controller) -> None:
        volume = await create(controller)
        assert volume.volume_id == volume_id("pvc-one")
        assert volume.volume_context["ctrlLossTmo"] == "-1"
        assert volume.volume_context["reconnectDelay"] == "5"
        assert volume.volume_context["keepAliveTmo"] == "0"
        assert not rds.disk(volume.volume_id).exported
        context = await publish(controller, volume)
        assert context["nqn"] == volume.volume_context["nqn"]
        assert context["nvmeAddress"] == "10.0.0.5"
        assert rds.disk(volume.volume_id).exported
        assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
        await unpublish(controller, volume)
        assert not rds.disk(volume.volume_id).exported
        await delete(controller, volume.volume_id)
        assert rds.slots() == []
        assert rds.files() == []

    async def test_volumes_follow_an_rds_that_moves_unless_their_class_names_the_address(
        self, rds: Rds, controller: Controller
    ) -> None:
        follows = await create(controller, "pvc-follows")
        stays = await create(controller, "pvc-stays", parameters={"nvmeAddress": "10.0.0.5"})
        moved = rds.controller(nvme_address="10.0.0.9")
        assert (await publish(moved, follows))["nvmeAddress"] == "10.0.0.9"
        assert (await publish(moved, stays))["nvmeAddress"] == "10.0.0.5"

    async def test_each_operation_is_one_command(self, rds: Rds, controller: Controller) -> None:
        await controller.get_capacity(csi.GetCapacityRequest())
        count = rds.execs()
        volume = await create(controller)
        assert rds.execs() - count == 1
        await publish(controller, volume)
        assert rds.execs() - count == 2
        await expand(controller, volume.volume_id, 128 * MIB)
        assert rds.execs() - count == 3
        await controller.controller_get_volume(
            csi.ControllerGetVolumeRequest(volume_id=volume.volume_id)
        )
        assert rds.execs() - count == 4
        await unpublish(controller, volume)
        assert rds.execs() - count == 5
        await controller.list_volumes(csi.ListVolumesRequest())
        assert rds.execs() - count == 6
        await delete(controller, volume.volume_id)
        assert rds.execs() - count == 7

    async def test_after_a_restart_publish_takes_two(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        successor = rds.controller()
        await successor.get_capacity(csi.GetCapacityRequest())
        count = rds.execs()
        await publish(successor, volume)
        assert rds.execs() - count == 2
        await unpublish(successor, volume)
        assert rds.execs() - count == 3


class TestCreate:
    @pytest.mark.parametrize("size", [int(1.5 * GIB), int(10.1 * GIB), 1025 * GIB])
    async def test_never_smaller_than_asked(
        self, rds: Rds, controller: Controller, size: int
    ) -> None:
        volume = await create(controller, capacity_range=csi.CapacityRange(required_bytes=size))
        assert size <= volume.capacity_bytes < size + MIB
        assert rds.disk(volume.volume_id).size == volume.capacity_bytes

    async def test_xfs_gets_what_it_needs(self, controller: Controller) -> None:
        volume = await create(controller, volume_capabilities=[mount("xfs")])
        assert volume.capacity_bytes == 300 * MIB
        assert await create(controller, volume_capabilities=[mount("xfs")]) == volume

    async def test_the_same_again_is_the_same(self, controller: Controller) -> None:
        assert await create(controller) == await create(controller)

    async def test_the_same_after_growth(self, controller: Controller) -> None:
        volume = await create(controller)
        await expand(controller, volume.volume_id, 128 * MIB)
        again = await create(controller)
        assert again == replace(volume, capacity_bytes=128 * MIB)

    @pytest.mark.parametrize(
        "fields",
        [
            {"capacity_range": csi.CapacityRange(required_bytes=65 * MIB)},
            {"capacity_range": csi.CapacityRange(required_bytes=MIB, limit_bytes=63 * MIB)},
            {"volume_capabilities": [block()]},
            {"volume_capabilities": [mount("xfs")]},
            {"parameters": {"fencing": "hostNqn"}},
            {"parameters": {"volumePath": "raid10/other"}},
            {"parameters": {"nvmePort": "4421"}},
        ],
    )
    async def test_the_name_with_other_properties(
        self, controller: Controller, fields: dict[str, Any]
    ) -> None:
        await create(controller)
        with pytest.raises(VolumeMismatch) as caught:
            await create(controller, **fields)
        assert caught.value.code == Code.ALREADY_EXISTS

    @pytest.mark.requirement("CTRL-02")
    async def test_timers_of_an_existing_volume_come_from_the_request(
        self, controller: Controller
    ) -> None:
        await create(controller)
        again = await create(controller, parameters={"ctrlLossTmo": "600", "keepAliveTmo": "45"})
        assert again.volume_context["ctrlLossTmo"] == "600"
        assert again.volume_context["reconnectDelay"] == "5"
        assert again.volume_context["keepAliveTmo"] == "45"

    @pytest.mark.requirement("PARM-06")
    @pytest.mark.requirement("PIT-04")
    @pytest.mark.parametrize("existing", [True, False])
    @pytest.mark.parametrize(
        "parameters",
        [{"ctrlLossTmo": "-2"}, {"reconnectDelay": "0"}, {"keepAliveTmo": "x"}, {"pool": "raid10"}],
    )
    async def test_bad_parameters_before_anything_is_created(
        self, rds: Rds, controller: Controller, parameters: dict[str, str], existing: bool
    ) -> None:
        if existing:
            await create(controller)
        count = rds.execs()
        with pytest.raises(InvalidParameter) as caught:
            await create(controller, parameters=parameters)
        assert caught.value.code == Code.INVALID_ARGUMENT
        assert rds.execs() == count

    @pytest.mark.parametrize(
        ("fields", "error"),
        [
            ({"name": ""}, InvalidRequest),
            ({"name": "a\x00"}, InvalidRequest),
            ({"volume_capabilities": []}, InvalidRequest),
            ({"volume_capabilities": [csi.VolumeCapability()]}, InvalidRequest),
            ({"volume_capabilities": [mount("btrfs")]}, InvalidRequest),
            ({"volume_capabilities": [mount(), block()]}, InvalidRequest),
            (
                {"volume_capabilities": [mount(mode=Mode.MULTI_NODE_MULTI_WRITER)]},
                InvalidRequest,
            ),
            ({"volume_capabilities": [mount(mode=Mode.UNKNOWN)]}, InvalidRequest),
            ({"capacity_range": csi.CapacityRange(required_bytes=-1)}, InvalidRequest),
            (
                {"capacity_range": csi.CapacityRange(required_bytes=2, limit_bytes=1)},
                SizeOutOfRange,
            ),
            ({"capacity_range": csi.CapacityRange(required_bytes=2**62)}, SizeOutOfRange),
            ({"mutable_parameters": {"a": "b"}}, InvalidRequest),
            (
                {
                    "volume_content_source": csi.VolumeContentSource(
                        volume=csi.VolumeContentSourceVolumeSource(volume_id="pvc-x")
                    )
                },
                InvalidRequest,
            ),
        ],
    )
    async def test_bad_requests_reach_nobody(
        self,
        rds: Rds,
        controller: Controller,
        fields: dict[str, Any],
        error: type[DriverError],
    ) -> None:
        count = rds.execs()
        with pytest.raises(error):
            await create(controller, **fields)
        assert rds.execs() == count

    async def test_a_full_pool(self, rds: Rds, controller: Controller) -> None:
        rds.simulator.fill_pool("raid10", free=32 * MIB)
        with pytest.raises(PoolFull) as caught:
            await create(controller)
        assert caught.value.code == Code.RESOURCE_EXHAUSTED
        assert rds.slots() == []
        assert rds.files() == []

    async def test_somebody_elses_slot(self, rds: Rds, controller: Controller) -> None:
        foreign = Record(owner="other/cluster", name="pvc-one", created=1, access="ext4")
        await rds.add_disk(volume_id("pvc-one"), comment=foreign.encode())
        before = rds.disk(volume_id("pvc-one"))
        with pytest.raises(NotOurs):
            await create(controller)
        with pytest.raises(NotOurs):
            await delete(controller, volume_id("pvc-one"))
        # Not FAILED_PRECONDITION: the resizer would take it for "not while it is in use".
        with pytest.raises(Unavailable, match="no record of ours"):
            await expand(controller, volume_id("pvc-one"), GIB)
        assert rds.disk(volume_id("pvc-one")) == before


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


class TestAdoption:
    SLOT = "pvc-ccdecfad-a8bf-572e-9120-464c4d99f12f"

    async def test_a_volume_of_the_go_driver(self, rds: Rds, controller: Controller) -> None:
        await rds.add_disk(self.SLOT, exported=True)
        assert [each.volume_id for each in await listed(controller)] == [self.SLOT]
        volume = csi.Volume(volume_id=self.SLOT)
        await publish(controller, volume)
        assert await published(controller, volume) == [NODE_A]
        with pytest.raises(VolumeInUse):
            await publish(controller, volume, NODE_B)
        await unpublish(controller, volume)
        await delete(controller, self.SLOT)
        assert rds.slots() == []
        assert rds.files() == []

    @pytest.mark.parametrize("file_system", ["ext4", "xfs"])
    async def test_it_is_what_it_is_first_used_as(
        self, rds: Rds, controller: Controller, file_system: str
    ) -> None:
        await rds.add_disk(self.SLOT, exported=True)
        volume = csi.Volume(volume_id=self.SLOT)
        await publish(controller, volume, volume_capability=mount(file_system))
        record = rds.disk(self.SLOT).record
        assert record is not None
        assert (record.access, record.generation, record.formatted) == (file_system, 1, "")
        await unpublish(controller, volume)
        with pytest.raises(MadeForOther):
            await publish(controller, volume, volume_capability=block())

    async def test_a_file_system_that_the_rds_shows_in_it_counts(
        self, rds: Rds, controller: Controller
    ) -> None:
        """A wrong fsType would be written down for ever. Raw block may hold what it likes."""
        await self.formatted(rds, "xfs")
        volume = csi.Volume(volume_id=self.SLOT)
        before = rds.disk(self.SLOT)
        with pytest.raises(MadeForOther, match="made for xfs"):
            await publish(controller, volume)
        assert rds.disk(self.SLOT) == before
        context = await publish(controller, volume, volume_capability=mount("xfs"))
        assert context["formatted"] == "xfs"
        record = rds.disk(self.SLOT).record
        assert record is not None
        assert (record.access, record.formatted) == ("xfs", "xfs")

    @pytest.mark.parametrize("way", ["publish", "unpublish", "published before"])
    async def test_the_rds_mounts_it_no_more(
        self, rds: Rds, controller: Controller, way: str
    ) -> None:
        """The Go driver left mount-filesystem=yes: RouterOS mounts what it recognises."""
        await self.formatted(rds, "ext4")
        assert rds.disk(self.SLOT).mount_point == self.SLOT
        volume = csi.Volume(volume_id=self.SLOT)
        if way == "published before":
            # By a version of the driver that left it as it was.
            record = Record(owner=OWNER, name="x", created=1, access="ext4").with_node(
                Publication(NODE_A, AccessMode.SINGLE_NODE_WRITER)
            )
            await rds.simulator.run(
                f'/disk/set {self.SLOT} nvme-tcp-export=yes comment="{record.encode()}"'
            )
        rds.simulator.device.hazards.clear()
        await (unpublish if way == "unpublish" else publish)(controller, volume)
        disk = rds.disk(self.SLOT)
        assert disk.exported == (way != "unpublish")
        assert not disk.mountable
        assert disk.mount_point == ""
        assert rds.simulator.device.hazards == []

    async def test_what_the_rds_does_not_unmount_is_not_exported(
        self, rds: Rds, controller: Controller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.formatted(rds, "ext4")
        monkeypatch.setattr(fragments, "TRIES", 1)
        monkeypatch.setattr(rds.simulator.device, "mounted", lambda _disk: True)
        with pytest.raises(VolumeInUse, match="itself has its file system mounted"):
            await publish(controller, csi.Volume(volume_id=self.SLOT))
        assert not rds.disk(self.SLOT).exported
        assert rds.disk(self.SLOT).record is None

    async def test_that_the_rds_has_it_mounted_is_seen_after_a_publish_too(
        self, rds: Rds, controller: Controller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        volume = await create(controller)
        monkeypatch.setattr(rds.simulator.device, "mounted", lambda _disk: True)
        with pytest.raises(VolumeInUse, match="mount-point"):
            await publish(controller, volume)

    async def formatted(self, rds: Rds, file_system: str) -> None:
        """One that holds a file system, which the RDS has recognised."""
        await rds.add_disk(self.SLOT, exported=True)
        rds.format(self.SLOT, file_system)
        await rds.simulator.run(f"/disk/set {self.SLOT} nvme-tcp-export=no")

    async def test_not_with_a_comment_of_somebody(self, rds: Rds, controller: Controller) -> None:
        await rds.add_disk(self.SLOT, comment="do not touch")
        assert await listed(controller) == []
        for attempt in (
            publish(controller, csi.Volume(volume_id=self.SLOT)),
            delete(controller, self.SLOT),
        ):
            with pytest.raises(NotOurs):
                await attempt
        assert rds.disk(self.SLOT).comment == "do not touch"


class TestFormatted:
    """The RDS says in ``fs`` what it recognises; the record keeps it for good."""

    async def test_the_node_is_told_from_the_next_hand_over_on(
        self, rds: Rds, controller: Controller
    ) -> None:
        """The RDS looks when the export ends, the record is written with the next change."""
        volume = await create(controller)
        assert "formatted" not in await publish(controller, volume)
        rds.format(volume.volume_id, "ext4")
        assert "formatted" not in await publish(controller, volume)
        await unpublish(controller, volume)
        assert (await publish(controller, volume))["formatted"] == "ext4"
        record = rds.disk(volume.volume_id).record
        assert record is not None
        assert record.formatted == "ext4"

    async def test_what_was_formatted_stays_so_when_the_rds_loses_the_file(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        rds.format(volume.volume_id, "ext4")
        await unpublish(controller, volume)
        await publish(controller, volume, NODE_B)
        await unpublish(controller, volume, NODE_B)
        path = rds.simulator.path(rds.disk(volume.volume_id).file_path)
        path.write_bytes(bytes(64 * MIB))
        await rds.simulator.reboot()
        assert rds.disk(volume.volume_id).file_system == ""
        context = await rds.eventually(lambda: publish(rds.controller(), volume))
        assert context["formatted"] == "ext4"

    async def test_an_rds_that_always_looks_tells_at_once(
        self, rds: Rds, controller: Controller
    ) -> None:
        """Then also in the answer to a publish that changes nothing."""
        rds.simulator.quirks.set("recognise", "always")
        volume = await create(controller)
        await publish(controller, volume)
        rds.format(volume.volume_id, "ext4")
        before = rds.disk(volume.volume_id).comment
        assert (await publish(controller, volume))["formatted"] == "ext4"
        assert rds.disk(volume.volume_id).comment == before
        await unpublish(rds.controller(), volume)
        record = rds.disk(volume.volume_id).record
        assert record is not None
        assert record.formatted == "ext4"

    async def test_what_is_in_a_block_volume_is_its_users_affair(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller, volume_capabilities=[block()])
        await publish(controller, volume, volume_capability=block())
        rds.format(volume.volume_id, "xfs")
        await unpublish(controller, volume)
        assert "formatted" not in await publish(controller, volume, volume_capability=block())


def as_xfs(comment: str) -> str:
    return comment.replace("access=ext4", "access=xfs")


async def published(controller: Controller, volume: csi.Volume) -> list[str]:
    response = await controller.controller_get_volume(
        csi.ControllerGetVolumeRequest(volume_id=volume.volume_id)
    )
    assert response.status is not None
    return response.status.published_node_ids


async def listed(controller: Controller) -> list[csi.Volume]:
    response = await controller.list_volumes(csi.ListVolumesRequest())
    return [entry.volume for entry in response.entries if entry.volume]


class TestQuestions:
    async def test_listing_by_pages(self, rds: Rds, controller: Controller) -> None:
        made = sorted([(await create(controller, f"pvc-{n}")).volume_id for n in range(7)])
        await rds.add_disk("vm-disk-1", comment="somebody's")
        found: list[str] = []
        token = ""
        count = rds.execs()
        for _ in range(4):
            response = await controller.list_volumes(
                csi.ListVolumesRequest(max_entries=2, starting_token=token)
            )
            found += [entry.volume.volume_id for entry in response.entries if entry.volume]
            token = response.next_token
        assert found == made
        assert token == ""
        assert rds.execs() - count <= 4

    @pytest.mark.parametrize("token", ["invalid-token", "7", "pvc-x"])
    async def test_a_token_that_is_not_ours(self, controller: Controller, token: str) -> None:
        with pytest.raises(BadToken):
            await controller.list_volumes(csi.ListVolumesRequest(starting_token=token))

    async def test_capacity(self, controller: Controller) -> None:
        before = await controller.get_capacity(csi.GetCapacityRequest())
        await create(controller)
        after = await controller.get_capacity(csi.GetCapacityRequest())
        assert before.available_capacity - after.available_capacity >= 64 * MIB
        nothing = await controller.get_capacity(
            csi.GetCapacityRequest(volume_capabilities=[mount("btrfs")])
        )
        assert nothing.available_capacity == 0

    async def test_capacity_of_a_pool_that_is_not_there(self, controller: Controller) -> None:
        with pytest.raises(FailedPrecondition, match="nopool"):
            await controller.get_capacity(
                csi.GetCapacityRequest(parameters={"volumePath": "nopool/csi"})
            )

    async def test_validation(self, controller: Controller) -> None:
        volume = await create(controller)

        async def ask(*wanted: csi.VolumeCapability, **fields):
            return await controller.validate_volume_capabilities(
                csi.ValidateVolumeCapabilitiesRequest(
                    volume_id=volume.volume_id, volume_capabilities=list(wanted), **fields
                )
            )

        yes = await ask(mount(), volume_context=volume.volume_context)
        assert yes.confirmed is not None
        assert yes.confirmed.volume_capabilities == [mount()]
        no = await ask(mount(), mount(mode=Mode.MULTI_NODE_MULTI_WRITER))
        assert no.confirmed is None
        assert "volumeMode: Block" in no.message
        no = await ask(mount(), parameters={"reconnectDelay": "0"})
        assert no.confirmed is None
        assert "reconnectDelay" in no.message
        with pytest.raises(InvalidRequest):
            await ask()
        with pytest.raises(VolumeNotFound):
            await controller.validate_volume_capabilities(
                csi.ValidateVolumeCapabilitiesRequest(
                    volume_id=volume_id("nothing"), volume_capabilities=[mount()]
                )
            )

    async def test_only_what_is_there_is_offered(self, controller: Controller) -> None:
        response = await controller.controller_get_capabilities(
            csi.ControllerGetCapabilitiesRequest()
        )
        offered = {each.rpc.type for each in response.capabilities if each.rpc}
        volume_condition = 11  # of CSI 1.12, for monitors that know no other
        expected = {1, 2, 3, 4, 8, 9, 10, volume_condition, 12, 13, 16, 17}
        assert {int(each) for each in offered} == expected


class TestHealth:
    async def test_what_is_as_we_left_it_is_healthy(self, controller: Controller) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        assert await self.reasons(controller, volume) == []
        listed = await controller.controller_list_volume_health(
            csi.ControllerListVolumeHealthRequest()
        )
        assert listed.entries == []

    async def test_an_export_that_somebody_turned_off(
        self, rds: Rds, controller: Controller
    ) -> None:
        healthy = await create(controller, "pvc-healthy")
        ill = [await create(controller, f"pvc-{n}") for n in range(3)]
        for volume in (healthy, *ill):
            await publish(controller, volume)
        for volume in ill:
            await rds.simulator.run(f"/disk/set {volume.volume_id} nvme-tcp-export=no")
            assert await self.reasons(controller, volume) == ["NotExported"]
        found: list[str] = []
        token = ""
        for _ in range(2):
            page = await controller.controller_list_volume_health(
                csi.ControllerListVolumeHealthRequest(max_entries=2, starting_token=token)
            )
            found += [each.volume_id for each in page.entries]
            token = page.next_token
        assert sorted(found) == sorted(volume.volume_id for volume in ill)
        assert token == ""
        await publish(controller, ill[0])
        assert await self.reasons(controller, ill[0]) == []

    async def test_older_monitors_are_told_in_their_words(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        request = csi.ControllerGetVolumeRequest(volume_id=volume.volume_id)
        assert b"healthy" in bytes(await controller.controller_get_volume(request))
        await rds.simulator.run(f"/disk/set {volume.volume_id} nvme-tcp-export=no")
        assert b"NotExported" in bytes(await controller.controller_get_volume(request))
        assert b"NotExported" in bytes(await controller.list_volumes(csi.ListVolumesRequest()))

    async def test_of_nothing(self, controller: Controller) -> None:
        with pytest.raises(VolumeNotFound):
            await self.reasons(controller, csi.Volume(volume_id=volume_id("nothing")))

    @staticmethod
    async def reasons(controller: Controller, volume: csi.Volume) -> list[str]:
        response = await controller.controller_get_volume_health(
            csi.ControllerGetVolumeHealthRequest(volume_id=volume.volume_id)
        )
        assert response.volume_health is not None
        return [each.reason for each in response.volume_health.health_statuses]


class TestExpand:
    async def test_already_large_enough(self, rds: Rds, controller: Controller) -> None:
        volume = await create(controller)
        assert await expand(controller, volume.volume_id, 32 * MIB) == 64 * MIB

    async def test_beyond_the_limit(self, controller: Controller) -> None:
        volume = await create(controller)
        with pytest.raises(SizeOutOfRange):
            await expand(controller, volume.volume_id, 16 * MIB, 32 * MIB)

    @pytest.mark.parametrize("size", [0, -1])
    async def test_without_a_size(self, controller: Controller, size: int) -> None:
        volume = await create(controller)
        with pytest.raises(InvalidRequest):
            await expand(controller, volume.volume_id, size)

    async def test_of_nothing(self, controller: Controller) -> None:
        with pytest.raises(VolumeNotFound):
            await expand(controller, volume_id("nothing"), GIB)


class TestUnreachable:
    async def test_nothing_is_taken_for_missing(self, rds: Rds, controller: Controller) -> None:
        volume = await create(controller)
        await rds.stop()
        for attempt in (
            create(controller),
            delete(controller, volume.volume_id),
            publish(controller, volume),
            unpublish(controller, volume),
            expand(controller, volume.volume_id, GIB),
            published(controller, volume),
            listed(controller),
        ):
            with pytest.raises(Unavailable) as caught:
                await attempt
            assert caught.value.code == Code.UNAVAILABLE

    async def test_all_heals_when_it_returns(self, rds: Rds, controller: Controller) -> None:
        volume = await create(controller)
        await rds.stop()
        with pytest.raises(Unavailable):
            await publish(controller, volume)
        await rds.start()
        await rds.eventually(lambda: publish(controller, volume))
        assert await published(controller, volume) == [NODE_A]
