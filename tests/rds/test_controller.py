"""The Controller service against RouterOS over real SSH: a volume's life and its refusals."""

from dataclasses import replace
from typing import Any

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import (
    Code,
    DriverError,
    InvalidParameter,
    InvalidRequest,
    NotOurs,
    PoolFull,
    SizeOutOfRange,
    Unavailable,
    VolumeInUse,
    VolumeMismatch,
    VolumeNotFound,
)
from rds_csi.model.record import Record
from rds_csi.model.volume import GIB, MIB, volume_id

from .calls import (
    NODE_A,
    Mode,
    block,
    create,
    delete,
    expand,
    listed,
    mount,
    publish,
    published,
    unpublish,
)
from .conftest import Rds


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
        # What is frozen in the PersistentVolume is the name of before any hand-over.
        assert context["nqn"] == volume.volume_context["nqn"] + ".1"
        assert context["nvmeAddress"] == "10.0.0.5"
        assert rds.disk(volume.volume_id).exported
        await unpublish(controller, volume)
        assert not rds.disk(volume.volume_id).exported
        assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
        await delete(controller, volume.volume_id)
        assert rds.slots() == []
        assert rds.files() == []

    async def test_the_claim_is_readable_on_the_rds_through_the_whole_life(
        self, rds: Rds, controller: Controller
    ) -> None:
        told = {
            "csi.storage.k8s.io/pv/name": "pvc-one",
            "csi.storage.k8s.io/pvc/namespace": "shop",
            "csi.storage.k8s.io/pvc/name": "data-postgres-0",
        }
        volume = await create(controller, parameters=told)
        assert " namespace=shop claim=data-postgres-0 " in rds.disk(volume.volume_id).comment
        # The same one, also where nobody tells of the claim any more.
        assert await create(rds.controller()) == volume
        await publish(controller, volume)
        await unpublish(rds.controller(), volume)
        await expand(controller, volume.volume_id, 128 * MIB)
        assert " namespace=shop claim=data-postgres-0 " in rds.disk(volume.volume_id).comment
        assert [each.volume_id for each in await listed(controller)] == [volume.volume_id]
        await delete(controller, volume.volume_id)
        assert rds.slots() == rds.files() == []

    async def test_volumes_follow_an_rds_that_moves_unless_their_class_names_the_address(
        self, rds: Rds, controller: Controller
    ) -> None:
        follows = await create(controller, "pvc-follows")
        stays = await create(controller, "pvc-stays", parameters={"nvmeAddress": "10.0.0.5"})
        moved = rds.controller(nvme_addresses=("10.0.0.9",))
        assert (await publish(moved, follows))["nvmeAddress"] == "10.0.0.9"
        assert (await publish(moved, stays))["nvmeAddress"] == "10.0.0.5"

    async def test_each_of_several_addresses_travels(
        self, rds: Rds, controller: Controller
    ) -> None:
        several = {"nvmeAddress": "10.0.2.5,10.0.1.5"}
        named = await create(controller, "pvc-named", parameters=several)
        assert named.volume_context["nvmeAddress"] == "10.0.2.5,10.0.1.5"
        assert (await publish(controller, named))["nvmeAddress"] == "10.0.2.5,10.0.1.5"
        unnamed = await create(controller, "pvc-unnamed")
        two = rds.controller(nvme_addresses=("10.0.0.5", "10.0.0.6"))
        assert (await publish(two, unnamed))["nvmeAddress"] == "10.0.0.5,10.0.0.6"

    async def test_a_wrong_address_in_a_context_publishes_nothing(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        volume.volume_context["nvmeAddress"] = "10.0.0.5,rds.example"
        with pytest.raises(InvalidParameter, match=r"rds\.example"):
            await publish(controller, volume)
        assert not rds.disk(volume.volume_id).exported

    async def test_each_operation_is_one_command(self, rds: Rds, controller: Controller) -> None:
        await controller.get_capacity(csi.GetCapacityRequest())
        count = rds.execs()
        volume = await create(controller)
        assert rds.execs() - count == 1
        await expand(controller, volume.volume_id, 128 * MIB)
        assert rds.execs() - count == 2
        await publish(controller, volume)
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


class TestExpand:
    async def test_already_large_enough(self, rds: Rds, controller: Controller) -> None:
        volume = await create(controller)
        assert await expand(controller, volume.volume_id, 32 * MIB) == 64 * MIB

    async def test_beyond_the_limit(self, controller: Controller) -> None:
        volume = await create(controller)
        with pytest.raises(SizeOutOfRange):
            await expand(controller, volume.volume_id, 16 * MIB, 32 * MIB)

    async def test_a_published_volume_grows_once_no_node_has_it(
        self, rds: Rds, controller: Controller
    ) -> None:
        """What an RDS does to connected nodes is not known; the resizer waits after this code."""
        volume = await create(controller)
        await publish(controller, volume)
        before = rds.disk(volume.volume_id)
        with pytest.raises(VolumeInUse, match="it is published") as caught:
            await expand(controller, volume.volume_id, 128 * MIB)
        assert caught.value.code == Code.FAILED_PRECONDITION
        assert rds.disk(volume.volume_id) == before
        # A call that asks for nothing new is no reason to wait.
        assert await expand(controller, volume.volume_id, 64 * MIB) == 64 * MIB
        await unpublish(controller, volume)
        assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB

    async def test_a_published_volume_grows_where_nodes_are_told(self, rds: Rds) -> None:
        controller = rds.controller(grow_published=True)
        volume = await create(controller)
        await publish(controller, volume)
        assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
        assert rds.disk(volume.volume_id).size == 128 * MIB

    @pytest.mark.parametrize("size", [0, -1])
    async def test_without_a_size(self, controller: Controller, size: int) -> None:
        volume = await create(controller)
        with pytest.raises(InvalidRequest):
            await expand(controller, volume.volume_id, size)

    async def test_what_the_user_may_not_do_is_tried_again(
        self, rds: Rds, controller: Controller
    ) -> None:
        """After FAILED_PRECONDITION the resizer would wait until no pod uses the claim."""
        volume = await create(controller)
        rds.simulator.faults.add(
            "runtime-error", command="/disk/set", text="not enough permissions (9)"
        )
        with pytest.raises(Unavailable, match="not enough permissions"):
            await expand(controller, volume.volume_id, 128 * MIB)
        assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB

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
