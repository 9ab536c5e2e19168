"""The name of an export says its hand-over: a former holder asks for one that is not there.

The hosts are the doctor's own, the target answers as Linux's.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.doctor.rds.initiator import TargetError, connected
from rds_csi.errors import NotReady, OutcomeUnknown, VolumeInUse
from rds_csi.model.contexts import Target
from rds_csi.model.host_identity import host_identity
from rds_csi.simulator import Simulator

from .calls import NODE_A, NODE_B, Mode, block, create, delete, publish, published, unpublish
from .conftest import CLUSTER, PREFIX, Rds
from .doctoring import exporting
from .user_target import UserTarget
from .volumes import LEGACY, changes

UNKNOWN = "0x182"
"""What the target says to who asks for a name that it does not have."""


class TestFencing:
    @pytest.fixture
    async def export(self) -> UserTarget:
        return UserTarget()

    @pytest.fixture
    async def rds(self, client_key: Path, tmp_path: Path, export: UserTarget) -> AsyncIterator[Rds]:
        async with exporting(client_key, tmp_path, export) as found:
            yield found

    @pytest.mark.parametrize("rename", ["closed", "open"])
    @pytest.mark.parametrize("restart", [False, True])
    async def test_a_former_holder_is_refused_by_name(
        self, rds: Rds, export: UserTarget, rename: str, restart: bool
    ) -> None:
        """Its session was live when it was taken off; it comes back, then and for ever."""
        rds.simulator.quirks.set("rename", rename)
        controller = rds.controller()
        volume = await create(controller)
        async with AsyncExitStack() as stack:
            first = await publish(controller, volume, NODE_A)
            at_a = await stack.enter_async_context(host(export, first, NODE_A))
            await at_a.write(0, b"of a")
            await unpublish(controller, volume, "")
            with pytest.raises(TargetError):
                await at_a.write(0, b"too late")
            second = await publish(controller, volume, NODE_B)
            at_b = await stack.enter_async_context(host(export, second, NODE_B))
            await at_b.write(0, b"of b")
            if restart:
                await rds.simulator.reboot()
                at_b = await stack.enter_async_context(host(export, second, NODE_B))
            for _ in range(3):
                with pytest.raises(TargetError, match=UNKNOWN):
                    await stack.enter_async_context(host(export, first, NODE_A))
            # Not even under the identity of the holder.
            with pytest.raises(TargetError, match=UNKNOWN):
                await stack.enter_async_context(host(export, first, NODE_B))
            assert (await at_b.read(0)).startswith(b"of b")

    async def test_a_session_that_outlived_the_closing_ends_with_the_name(
        self, rds: Rds, export: UserTarget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An RDS may close an export without ending what is connected: the name ends that."""

        async def closing(_disk: int) -> None:
            return None

        controller = rds.controller()
        volume = await create(controller)
        first = await publish(controller, volume, NODE_A)
        async with host(export, first, NODE_A) as at_a:
            monkeypatch.setattr(export, "unexport", closing)
            rds.simulator.quirks.set("rename", "open")
            await unpublish(controller, volume, NODE_A)
            await at_a.write(0, b"still there")
            await publish(controller, volume, NODE_B)
            with pytest.raises(TargetError):
                await at_a.write(0, b"too late")


def host(export: UserTarget, context: dict[str, str], node: str):
    """A node that connects as it was told to at its publish."""
    nqn = Target.from_contexts(context, {}).nqn
    return connected("127.0.0.1", export.port, nqn, host_identity(CLUSTER, node).nqn)


class TestNames:
    async def test_each_hand_over_has_a_name_of_its_own_in_one_exec(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        slot = volume.volume_id
        for number, node in enumerate((NODE_A, NODE_B, NODE_B), start=1):
            execs = rds.execs()
            context = await publish(controller, volume, node)
            assert rds.execs() - execs == 1
            disk = rds.disk(slot)
            assert context["nqn"] == disk.nqn == f"{PREFIX}:{slot}.{number}"
            assert disk.exported
            await unpublish(controller, volume, node)
            # Nobody has it, and nobody gets in: the name stays with the export that is closed.
            assert rds.disk(slot).nqn == context["nqn"]
            assert not rds.disk(slot).exported
        await delete(controller, slot)
        assert rds.slots() == []

    async def test_holders_share_a_name(self, rds: Rds, controller: Controller) -> None:
        shared = block(Mode.MULTI_NODE_MULTI_WRITER)
        volume = await create(controller, volume_capabilities=[shared])
        told = [
            (await publish(controller, volume, node, volume_capability=shared))["nqn"]
            for node in (NODE_A, NODE_B, NODE_A)
        ]
        assert told == [f"{PREFIX}:{volume.volume_id}.1"] * 3

    async def test_a_repeated_create_gives_the_context_of_the_first(
        self, controller: Controller
    ) -> None:
        """It is frozen in the PersistentVolume, whatever the export is called by then."""
        volume = await create(controller)
        await publish(controller, volume)
        assert (await create(controller)).volume_context == volume.volume_context

    async def test_a_name_that_somebody_else_gave_is_ours_again_at_the_next_hand_over(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        await rds.simulator.run(f'/disk/set {volume.volume_id} nvme-tcp-server-nqn="nqn.x"')
        context = await publish(controller, volume)
        assert context["nqn"] == f"{PREFIX}:{volume.volume_id}.1"


class TestUpgrade:
    """A controller that leaves the names alone stands for one of a version without them."""

    async def test_who_has_it_keeps_the_name_he_knows(self, rds: Rds) -> None:
        old, new = rds.controller(rename_exports=False), rds.controller()
        volume = await create(old)
        before = await publish(old, volume)
        slot = volume.volume_id
        record = rds.disk(slot).record
        assert record is not None
        first = record.encode("rds-csi/1")
        await rds.simulator.run(f'/disk/set {slot} comment="{first}"')
        again = await publish(new, volume)
        assert again["nqn"] == before["nqn"] == f"{PREFIX}:{slot}"
        assert rds.disk(slot).comment.startswith("rds-csi/2 ")
        with pytest.raises(VolumeInUse):
            await publish(new, volume, NODE_B)
        await unpublish(new, volume)
        assert (await publish(new, volume, NODE_B))["nqn"] == f"{PREFIX}:{slot}.1"

    async def test_the_way_back_keeps_the_names_there_are(self, rds: Rds) -> None:
        old, new = rds.controller(rename_exports=False), rds.controller()
        volume = await create(new)
        name = (await publish(new, volume))["nqn"]
        assert (await publish(old, volume))["nqn"] == name
        await unpublish(old, volume)
        context = await publish(old, volume, NODE_B)
        assert (context["nqn"], context["generation"]) == (name, "2")
        assert await health(old, volume) == []
        await unpublish(new, volume, NODE_B)
        assert (await publish(new, volume))["nqn"] == f"{PREFIX}:{volume.volume_id}.3"

    @pytest.mark.parametrize("exported", [True, False])
    async def test_what_the_go_driver_left_open_keeps_its_name_once(
        self, rds: Rds, controller: Controller, exported: bool
    ) -> None:
        """A pod of that driver's may be at work on it."""
        await rds.add_disk(LEGACY, exported=exported)
        volume = csi.Volume(volume_id=LEGACY)
        names = []
        for node in (NODE_A, NODE_B):
            names.append((await publish(controller, volume, node))["nqn"])
            await unpublish(controller, volume, node)
        plain = f"{PREFIX}:{LEGACY}"
        assert names == [plain if exported else f"{plain}.1", f"{plain}.2"]


class TestRefused:
    """An RDS that does not rename."""

    @pytest.mark.parametrize(
        ("rename", "says"), [("refused", "can not change nqn"), ("ignored", "com.mikrotik:pvc-")]
    )
    async def test_nobody_gets_a_volume_whose_export_keeps_a_known_name(
        self, rds: Rds, controller: Controller, rename: str, says: str
    ) -> None:
        volume = await create(controller)
        slot = volume.volume_id
        rds.simulator.quirks.set("rename", rename)
        before = rds.disk(slot)
        with pytest.raises(NotReady, match=f"name of this hand-over: .*{says}") as caught:
            await publish(controller, volume)
        assert "--keep-export-names" in caught.value.advice
        assert rds.disk(slot) == before
        assert await published(controller, volume) == []
        # Told to do without, it does as before there were such names.
        without = rds.controller(rename_exports=False)
        context = await publish(without, volume)
        assert (context["nqn"], context["generation"]) == (before.nqn, "1")
        await unpublish(without, volume)
        assert await health(without, volume) == []

    @pytest.mark.parametrize("step", range(3))
    async def test_a_line_that_ends_between_two_steps_is_begun_again(
        self, rds: Rds, controller: Controller, step: int
    ) -> None:
        """It closes, names, and opens with the record: what is left of it is a closed export."""
        volume = await create(controller)
        await publish(controller, volume)
        await unpublish(controller, volume)
        await rds.simulator.run(f"/disk/set {volume.volume_id} nvme-tcp-export=yes")
        count = len(changes(rds))
        after_step(rds.simulator, step)
        with pytest.raises(OutcomeUnknown):
            await publish(controller, volume, NODE_B)
        await rds.simulator.reboot()  # which ends the line's lock, too
        assert len(changes(rds)) == count + step + 1  # the last of them was only begun
        disk = rds.disk(volume.volume_id)
        assert disk.record is not None
        assert disk.record.nodes == ()
        assert disk.exported == (step == 0)
        assert await rds.eventually(lambda: health(rds.controller(), volume)) == []
        context = await rds.eventually(lambda: publish(rds.controller(), volume, NODE_B))
        assert context["nqn"] == rds.disk(volume.volume_id).nqn == f"{PREFIX}:{disk.slot}.2"


def after_step(simulator: Simulator, steps: int) -> None:
    """Have the next line end after so many changes of a disk."""
    change, done = simulator.device.change_disk, 0

    async def counted(*given, **named) -> None:
        nonlocal done
        if done == steps:
            simulator.device.change_disk = change  # type: ignore[method-assign]
            raise RuntimeError("the power is gone")
        done += 1
        await change(*given, **named)

    simulator.device.change_disk = counted  # type: ignore[method-assign]


async def health(controller: Controller, volume: csi.Volume) -> list[str]:
    answer = await controller.controller_get_volume_health(
        csi.ControllerGetVolumeHealthRequest(volume_id=volume.volume_id)
    )
    assert answer.volume_health is not None
    return [each.reason for each in answer.volume_health.health_statuses]
