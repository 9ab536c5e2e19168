"""The reply is lost, before or after the command ran: the repeated call converges.

What the controller does with an operation is one command, so "killed after each step" means
killed before it ran, and killed after it ran and before its reply was read. A new controller
takes over each time, as it does after ``kill -9``.
"""

from collections.abc import Awaitable, Callable

import pytest

from rds_csi.controller.service import Controller
from rds_csi.errors import OutcomeUnknown, Unavailable
from rds_csi.model.volume import MIB
from rds_csi.simulator.device.faults import FaultKind

from .calls import (
    NODE_A,
    NODE_B,
    create,
    delete,
    expand,
    publish,
    published,
    unpublish,
)
from .conftest import PREFIX, Rds

FAULTS: list[FaultKind] = ["drop-before", "drop-after", "truncate"]


async def killed(
    rds: Rds, fault: FaultKind, command: str, attempt: Callable[[Controller], Awaitable]
):
    """What a new controller achieves by repeating ``attempt``, whose first reply was lost."""
    rds.simulator.faults.add(fault, match=command)
    with pytest.raises((OutcomeUnknown, Unavailable)):
        await attempt(rds.controller())
    rds.simulator.faults.clear()
    return await rds.eventually(lambda: attempt(rds.controller()))


@pytest.mark.parametrize("fault", FAULTS)
class TestKilled:
    async def test_in_create(self, rds: Rds, fault: FaultKind) -> None:
        volume = await killed(rds, fault, "/disk/add", create)
        assert rds.slots() == [volume.volume_id]
        assert len(rds.files()) == 1
        assert rds.disk(volume.volume_id).size == 64 * MIB

    async def test_in_publish(self, rds: Rds, controller: Controller, fault: FaultKind) -> None:
        volume = await create(controller)
        await killed(rds, fault, "/disk/set", lambda each: publish(each, volume))
        assert await published(controller, volume) == [NODE_A]
        assert rds.disk(volume.volume_id).exported

    async def test_in_publish_by_which_the_export_gets_its_name(
        self, rds: Rds, controller: Controller, fault: FaultKind
    ) -> None:
        """Whatever became of the first one, node and RDS agree on one name, of one hand-over."""
        volume = await create(controller)
        told = await killed(rds, fault, "server-nqn=[$]csiName", lambda each: publish(each, volume))
        assert told["nqn"] == rds.disk(volume.volume_id).nqn == f"{PREFIX}:{volume.volume_id}.1"
        assert told["generation"] == "1"

    async def test_in_publish_and_then_moved(
        self, rds: Rds, controller: Controller, fault: FaultKind
    ) -> None:
        volume = await create(controller)
        rds.simulator.faults.add(fault, match="/disk/set")
        with pytest.raises((OutcomeUnknown, Unavailable)):
            await publish(controller, volume)
        await rds.eventually(lambda: unpublish(rds.controller(), volume))
        await rds.eventually(lambda: publish(controller, volume, NODE_B))
        assert await published(controller, volume) == [NODE_B]

    async def test_in_unpublish(self, rds: Rds, controller: Controller, fault: FaultKind) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        await killed(rds, fault, "/disk/set", lambda each: unpublish(each, volume))
        assert await published(controller, volume) == []
        assert not rds.disk(volume.volume_id).exported

    async def test_in_expand(self, rds: Rds, controller: Controller, fault: FaultKind) -> None:
        volume = await create(controller)
        size = await killed(
            rds, fault, "/disk/set", lambda each: expand(each, volume.volume_id, 128 * MIB)
        )
        assert size == rds.disk(volume.volume_id).size == 128 * MIB

    async def test_in_delete(self, rds: Rds, controller: Controller, fault: FaultKind) -> None:
        volume = await create(controller)
        await killed(rds, fault, "/disk/remove", lambda each: delete(each, volume.volume_id))
        assert rds.slots() == []
        assert rds.files() == []


@pytest.mark.parametrize("command", ["/disk/remove", "/file/remove", "/disk/set"])
async def test_the_rds_fails_in_the_middle_of_delete(
    rds: Rds, controller: Controller, command: str
) -> None:
    volume = await create(controller)
    rds.simulator.faults.add(
        "runtime-error", match=command, command=command, text="action failed (6)"
    )
    with pytest.raises(Exception, match="action failed"):
        await delete(controller, volume.volume_id)
    await delete(controller, volume.volume_id)
    assert rds.slots() == []
    assert rds.files() == []


async def test_the_rds_fails_in_the_middle_of_create(rds: Rds, controller: Controller) -> None:
    rds.simulator.faults.add(
        "runtime-error", match="/disk/add", command="/disk/add", text="action failed (6)"
    )
    with pytest.raises(Exception, match="action failed"):
        await create(controller)
    assert rds.files() == []
    assert (await create(controller)).capacity_bytes == 64 * MIB
