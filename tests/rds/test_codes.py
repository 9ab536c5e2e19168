"""What goes wrong on the RDS, the code that comes of it, and what the caller reads: a row a cause.

Over real SSH. ``docs/errors.md`` says what each caller does with a code.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import OPEN, Code, DriverError, OutcomeUnknown, RecordFull
from rds_csi.model.node_id import make_node_id
from rds_csi.model.volume import MIB, volume_id
from rds_csi.runtime.retry import RetryPolicy
from rds_csi.simulator.language.values import RuntimeFault, Value

from .calls import (
    NODE_A,
    NODE_B,
    Mode,
    block,
    create,
    delete,
    expand,
    publish,
    published,
    unpublish,
)
from .conftest import CLUSTER, Rds
from .volumes import changes, path_of

TIMED_OUT = "action timed out - try again, if error continues contact MikroTik support (13)"
ADD = "/disk/add"
LOCK = "/ip/firewall/address-list/add"
SLOT = volume_id("pvc-one")
SHARED = block(Mode.MULTI_NODE_MULTI_WRITER)

Act = Callable[[Controller], Awaitable[object]]


async def make(controller: Controller) -> object:
    return await create(controller)


async def attach(controller: Controller) -> object:
    return await publish(controller, csi.Volume(volume_id=SLOT))


async def detach(controller: Controller) -> None:
    await unpublish(controller, csi.Volume(volume_id=SLOT))


async def grow(controller: Controller) -> object:
    return await expand(controller, SLOT, 128 * MIB)


async def remove(controller: Controller) -> None:
    await delete(controller, SLOT)


async def room(controller: Controller) -> object:
    return await controller.get_capacity(csi.GetCapacityRequest())


async def away(rds: Rds) -> None:
    await rds.simulator.unmount_pool("raid10")


def says(command: str, text: str, after: str = "") -> Callable[[Rds], Awaitable[None]]:
    """RouterOS fails the command with the text, and has not done it."""

    async def arrange(rds: Rds) -> None:
        rds.simulator.faults.add(
            "runtime-error", match=command, command=command, text=text, after=after
        )

    return arrange


@dataclass(frozen=True)
class Row:
    """``made``: the volume is there before; ``says`` is part of the error's text."""

    cause: str
    act: Act
    arrange: Callable[[Rds], Awaitable[None]]
    code: Code
    says: str
    made: bool = True


ROWS = (
    Row("add timed out", make, says("/disk/add", TIMED_OUT), Code.UNAVAILABLE, TIMED_OUT, False),
    Row("add interrupted", make, says("/disk/add", "interrupted"), Code.UNAVAILABLE, "", False),
    Row("no room", make, says("/disk/add", "out of space"), Code.RESOURCE_EXHAUSTED, "", False),
    Row("add unknown", make, says("/disk/add", "who knows"), Code.INTERNAL, "who knows", False),
    Row("odd after created", make, says("/disk/print", "eh", ADD), Code.UNAVAILABLE, "eh", False),
    Row("lock timed out", attach, says(LOCK, TIMED_OUT), Code.UNAVAILABLE, TIMED_OUT),
    Row("set timed out", attach, says("/disk/set", TIMED_OUT), Code.UNAVAILABLE, TIMED_OUT),
    Row("set unknown", attach, says("/disk/set", "never"), Code.INTERNAL, "never"),
    Row("close timed out", detach, says("/disk/set", TIMED_OUT), Code.UNAVAILABLE, TIMED_OUT),
    Row("growth timed out", grow, says("/disk/set", TIMED_OUT), Code.UNAVAILABLE, TIMED_OUT),
    Row("remove timed out", remove, says("/disk/remove", TIMED_OUT), Code.UNAVAILABLE, TIMED_OUT),
    Row("file timed out", remove, says("/file/remove", TIMED_OUT), Code.UNAVAILABLE, TIMED_OUT),
    Row("read timed out", room, says("/disk/print", TIMED_OUT), Code.OK, ""),
    Row("create, pool away", make, away, Code.UNAVAILABLE, "raid10 is not mounted", False),
    Row("publish, pool away", attach, away, Code.UNAVAILABLE, "shows no size"),
    Row("expand, pool away", grow, away, Code.UNAVAILABLE, ""),
    Row("delete, pool away", remove, away, Code.UNAVAILABLE, "raid10 is not mounted"),
    Row("capacity, pool away", room, away, Code.UNAVAILABLE, "raid10 is not mounted"),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.cause)
async def test_each_cause_has_its_code_and_its_text(rds: Rds, row: Row) -> None:
    controller = rds.controller()
    if row.made:
        await create(controller)
    if row.act is detach:
        await publish(controller, csi.Volume(volume_id=SLOT))
    await row.arrange(rds)
    if row.code == Code.OK:
        await row.act(controller)
        return
    with pytest.raises(DriverError) as caught:
        await row.act(controller)
    assert caught.value.code == row.code, caught.value
    assert row.says in str(caught.value)
    # An error names its volume, where the call is about one.
    assert row.act is room or caught.value.volume == SLOT


async def drop_lock(rds: Rds) -> None:
    """What RouterOS does by itself after a minute."""
    assert await rds.simulator.run("/ip/firewall/address-list/remove [find list=rds-csi]") == ""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rds_csi.routeros.disks.TURNS", RetryPolicy(attempts=2, initial=0.01))


@pytest.mark.usefixtures("impatient")
async def test_an_add_that_timed_out_and_is_done_later_is_neither_undone_nor_overtaken(
    rds: Rds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is there, the disk is not yet: a file that is "in the way" would be a final code."""
    device = rds.simulator.device
    genuine = device.add_disk
    begun: list[dict[str, Value]] = []

    async def slow(given: dict[str, Value]) -> object:
        begun.append(given)
        rds.simulator.path(path_of(SLOT)).write_bytes(b"")
        raise RuntimeFault(TIMED_OUT)

    with monkeypatch.context() as patch:
        patch.setattr(device, "add_disk", slow)
        with pytest.raises(OutcomeUnknown, match="action timed out"):
            await create(rds.controller())
    assert rds.files() == [path_of(SLOT)]
    assert "undone" not in rds.simulator.execs()[-1].output
    # Whoever comes next, a controller that took over as well, cannot pass it.
    for again in (make, remove):
        with pytest.raises(DriverError, match="another change of it is under way") as caught:
            await again(rds.controller())
        assert caught.value.code in OPEN
    await genuine(begun[0])
    await drop_lock(rds)
    assert (await create(rds.controller())).volume_id == SLOT
    assert rds.slots() == [SLOT]


@pytest.mark.usefixtures("impatient")
async def test_a_hand_over_that_timed_out_and_is_done_later_has_one_winner(
    rds: Rds, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = await create(controller)
    device = rds.simulator.device
    genuine = device.change_disk
    later: list[tuple[object, dict[str, Value]]] = []

    async def slow(disk: object, given: dict[str, Value]) -> None:
        if "comment" not in given:
            return await genuine(disk, given)  # type: ignore[arg-type]
        later.append((disk, given))
        raise RuntimeFault(TIMED_OUT)

    with monkeypatch.context() as patch:
        patch.setattr(device, "change_disk", slow)
        with pytest.raises(OutcomeUnknown, match="action timed out"):
            await publish(controller, volume, NODE_A)
    with pytest.raises(DriverError, match="another change of it is under way"):
        await publish(rds.controller(), volume, NODE_B)
    [(disk, given)] = later
    await genuine(disk, given)  # type: ignore[arg-type]
    await drop_lock(rds)
    with pytest.raises(DriverError, match="published to worker-a"):
        await publish(rds.controller(), volume, NODE_B)
    assert (await publish(controller, volume, NODE_A))["generation"] == "1"


async def test_an_undo_that_fails_hides_no_text_and_leaves_it_open(
    rds: Rds, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half(_given: dict[str, Value]) -> object:
        rds.simulator.path(path_of(SLOT)).write_bytes(b"half")
        raise RuntimeFault("failure: quota exceeded")

    monkeypatch.setattr(rds.simulator.device, "add_disk", half)
    await says("/file/remove", "failure: flash is worn")(rds)
    with pytest.raises(OutcomeUnknown, match=r"quota exceeded.*flash is worn"):
        await create(controller)


@pytest.mark.parametrize("odd", [None, 0, "50.0GiB", "many"])
async def test_a_disk_without_a_size_is_listed_with_what_is_wrong(
    rds: Rds, controller: Controller, monkeypatch: pytest.MonkeyPatch, odd: object
) -> None:
    """Hidden, the attacher would take it for attached to nobody."""
    volumes = [await create(controller, name) for name in ("pvc-one", "pvc-two")]
    for volume in volumes:
        await publish(controller, volume)
    device = rds.simulator.device
    genuine = device.shown_size
    monkeypatch.setattr(
        device, "shown_size", lambda disk: odd if disk.slot == SLOT else genuine(disk)
    )
    response = await controller.list_volumes(csi.ListVolumesRequest())
    assert {
        entry.volume.volume_id: (entry.volume.capacity_bytes, entry.status.published_node_ids)
        for entry in response.entries
        if entry.volume and entry.status
    } == {SLOT: (0, [NODE_A]), volume_id("pvc-two"): (64 * MIB, [NODE_A])}
    sick = await controller.controller_list_volume_health(csi.ControllerListVolumeHealthRequest())
    assert [
        (each.volume_id, [status.reason for status in each.health_statuses])
        for each in sick.entries
    ] == [(SLOT, ["BackingFileUnavailable"])]


async def test_nodes_come_until_the_record_is_full_and_can_all_leave(
    rds: Rds, controller: Controller
) -> None:
    volume = await create(controller, volume_capabilities=[SHARED])
    nodes = [make_node_id(CLUSTER, f"worker-{number}".ljust(120, "x")) for number in range(40)]
    with suppress(RecordFull):
        for node in nodes:
            await publish(controller, volume, node, volume_capability=SHARED)
    with pytest.raises(RecordFull, match="no room for node worker-") as caught:
        await publish(controller, volume, node, volume_capability=SHARED)
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    held = await published(controller, volume)
    assert len(held) > 10
    # Who has it is told so again, and nothing is written for it.
    before = changes(rds)
    await publish(controller, volume, held[0], volume_capability=SHARED)
    assert changes(rds) == before
    rds.format(SLOT, "ext4")
    for node in sorted(held):
        await unpublish(rds.controller(), volume, node)
    assert await published(controller, volume) == []
    assert not rds.disk(SLOT).exported


async def test_nothing_is_written_where_nothing_changes(rds: Rds, controller: Controller) -> None:
    volume = await create(controller)
    for act in (publish, unpublish):
        await act(controller, volume)
        before, execs = changes(rds), rds.execs()
        for each in (controller, rds.controller()):
            await act(each, volume)
        assert changes(rds) == before
        asked = [run.name for each in rds.simulator.execs()[execs:] for run in each.executed]
        assert not [name for name in asked if name.endswith(("/add", "/set", "/remove"))]
