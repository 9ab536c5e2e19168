"""Volumes that others left, and what the RDS shows in ours: adopted, dedicated, never guessed."""

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import (
    MadeForOther,
    NotOurs,
    VolumeInUse,
)
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import MIB
from rds_csi.routeros import fragments

from .calls import (
    NODE_A,
    NODE_B,
    block,
    create,
    delete,
    listed,
    mount,
    publish,
    published,
    unpublish,
)
from .conftest import OWNER, Rds


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
