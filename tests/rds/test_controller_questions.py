"""What the Controller service tells without changing a thing: listings, room, health."""

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import (
    BadToken,
    FailedPrecondition,
    InvalidRequest,
    VolumeNotFound,
)
from rds_csi.model.volume import MIB, volume_id

from .calls import Mode, create, mount, publish
from .conftest import Rds


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
