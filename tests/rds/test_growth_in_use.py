"""A volume grows while nodes have it: only where all of them have maps, and in one line.

A target may fix a size when an export begins, so the export ends before the file grows and begins
after it. Wherever the line ends in between, the export is closed, and the next call opens it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import Code, FailedPrecondition, OutcomeUnknown, PoolFull, Unavailable
from rds_csi.model.access import AccessMode
from rds_csi.model.record import MAPPED, Publication
from rds_csi.model.volume import MIB, export_nqn
from rds_csi.routeros import commands
from rds_csi.routeros.quoting import wrap
from rds_csi.simulator import Simulator
from rds_csi.simulator.device.device import Device
from rds_csi.simulator.device.faults import FaultKind
from rds_csi.simulator.device.store import Disk as Stored
from rds_csi.simulator.language.values import RuntimeFault, Value

from .calls import NODE_A, NODE_B, Mode, block, create, expand, publish, unpublish
from .conftest import BASE, OWNER, PREFIX, Rds
from .volumes import SLOT, changes, path_of, record

SHARED = block(Mode.MULTI_NODE_MULTI_WRITER)
NONCE = "0" * 16


@pytest.fixture
def controller(rds: Rds) -> Controller:
    return rds.controller(path_layer=True)


def told(rds: Rds, volume: csi.Volume) -> int:
    """The size that hosts are told by the export; 0 for none."""
    disk = rds.simulator.disks[volume.volume_id]
    found = rds.simulator.device.exporter.namespaces.get(disk.id)
    return found.size if found else 0


def is_open(rds: Rds, volume: csi.Volume) -> bool:
    return volume.volume_id in rds.simulator.exported


@pytest.mark.parametrize("growth", ["fixed", "announced"])
async def test_it_is_exported_anew_by_one_exec(
    rds: Rds, controller: Controller, growth: str
) -> None:
    rds.simulator.quirks.set("growth", growth)
    volume = await create(controller)
    await publish(controller, volume)
    before, execs, done = rds.disk(volume.volume_id), rds.execs(), len(changes(rds))
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    assert rds.execs() == execs + 1
    assert changes(rds)[done:] == ["/disk/set"] * 3
    # The same name, for the same node: only the size is another.
    assert rds.disk(volume.volume_id) == replace(before, size=128 * MIB)
    assert told(rds, volume) == 128 * MIB
    # What is large enough loses nobody's connection.
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    assert len(changes(rds)) == done + 3


async def test_also_where_a_size_is_only_taken_while_nothing_is_exported(
    rds: Rds, controller: Controller
) -> None:
    rds.simulator.quirks.set("resize", "needs-unexport")
    volume = await create(controller)
    await publish(controller, volume)
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    assert told(rds, volume) == 128 * MIB


async def test_where_hosts_are_told_nobody_loses_its_connection(rds: Rds) -> None:
    rds.simulator.quirks.set("growth", "announced")
    controller = rds.controller(path_layer=True, grow_published=True)
    volume = await create(controller)
    await publish(controller, volume)
    done = len(changes(rds))
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    assert changes(rds)[done:] == ["/disk/set"]
    assert told(rds, volume) == 128 * MIB


class TestRefused:
    """Somebody who has it may have no map, or would not know it again."""

    async def refused(self, rds: Rds, controller: Controller, volume: csi.Volume) -> None:
        before, done = rds.disk(volume.volume_id), len(changes(rds))
        with pytest.raises(FailedPrecondition, match="it is published") as caught:
            await expand(controller, volume.volume_id, 128 * MIB)
        assert caught.value.code == Code.FAILED_PRECONDITION
        assert (rds.disk(volume.volume_id), len(changes(rds))) == (before, done)

    async def test_of_a_class_that_wants_errors(self, rds: Rds, controller: Controller) -> None:
        volume = await create(controller, parameters={"ctrlLossTmo": "600"})
        await publish(controller, volume)
        await self.refused(rds, controller, volume)

    async def test_where_exports_keep_their_names(self, rds: Rds) -> None:
        controller = rds.controller(path_layer=True, rename_exports=False)
        volume = await create(controller)
        await publish(controller, volume)
        await self.refused(rds, controller, volume)

    async def test_attached_before_there_were_maps(self, rds: Rds, controller: Controller) -> None:
        """A node that is told so later, in a repeated call, may use the bare device since."""
        before = rds.controller()
        volume = await create(before)
        await publish(before, volume)
        await self.refused(rds, controller, volume)
        assert (await publish(controller, volume))["pathLayer"] == "true"
        await self.refused(rds, controller, volume)
        await unpublish(controller, volume)
        await publish(controller, volume)
        assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB

    async def test_told_to_do_without_in_a_repeated_call(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller)
        await publish(controller, volume)
        await publish(rds.controller(), volume)
        await self.refused(rds, controller, volume)

    @pytest.mark.parametrize("bare", [NODE_A, NODE_B])
    async def test_one_of_two_holders_has_none(
        self, rds: Rds, controller: Controller, bare: str
    ) -> None:
        volume = await create(controller, volume_capabilities=[SHARED])
        for node in (NODE_A, NODE_B):
            its = rds.controller() if node == bare else controller
            await publish(its, volume, node, volume_capability=SHARED)
        await self.refused(rds, controller, volume)

    async def test_two_holders_with_maps_are_no_reason(
        self, rds: Rds, controller: Controller
    ) -> None:
        volume = await create(controller, volume_capabilities=[SHARED])
        for node in (NODE_A, NODE_B):
            await publish(controller, volume, node, volume_capability=SHARED)
        assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
        assert told(rds, volume) == 128 * MIB
        await unpublish(controller, volume, NODE_A)
        assert await expand(controller, volume.volume_id, 256 * MIB) == 256 * MIB


@pytest.mark.parametrize("fault", ["drop-before", "drop-after", "truncate"])
async def test_the_reply_is_lost(rds: Rds, controller: Controller, fault: FaultKind) -> None:
    volume = await create(controller)
    await publish(controller, volume)
    rds.simulator.faults.add(fault, match="file-size")
    with pytest.raises((OutcomeUnknown, Unavailable)):
        await expand(controller, volume.volume_id, 128 * MIB)
    rds.simulator.faults.clear()
    again = rds.controller(path_layer=True)
    size = await rds.eventually(lambda: expand(again, volume.volume_id, 128 * MIB))
    assert (size, told(rds, volume)) == (128 * MIB, 128 * MIB)


@pytest.mark.parametrize(("fault", "size"), [("stall-before", 64), ("stall-after", 128)])
async def test_the_rds_stalls(
    rds: Rds, controller: Controller, fault: FaultKind, size: int
) -> None:
    volume = await create(controller)
    await publish(controller, volume)
    rds.simulator.faults.add(fault, match="file-size")
    call = asyncio.create_task(expand(controller, volume.volume_id, 128 * MIB))

    async def struck() -> None:
        if rds.simulator.faults.pending or told(rds, volume) != size * MIB:
            raise Unavailable("not yet")

    await rds.eventually(struck)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert told(rds, volume) == size * MIB
    again = rds.controller(path_layer=True)
    grown = await rds.eventually(lambda: expand(again, volume.volume_id, 128 * MIB))
    assert (grown, told(rds, volume)) == (128 * MIB, 128 * MIB)


@pytest.mark.parametrize("fails", [1, 2, 3])
async def test_a_step_fails_and_the_export_is_open_all_the_same(
    rds: Rds, controller: Controller, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """Closing it, growing the file, opening it: whatever failed, the next call does the rest."""
    volume = await create(controller)
    await publish(controller, volume)
    count, change = 0, Device.change_disk

    async def failing(self: Device, disk: Stored, given: dict[str, Value]) -> None:
        nonlocal count
        count += 1
        if count == fails:
            raise RuntimeFault("action failed (6)")
        await change(self, disk, given)

    monkeypatch.setattr(Device, "change_disk", failing)
    with pytest.raises(Exception, match="action failed"):
        await expand(controller, volume.volume_id, 128 * MIB)
    # The last step itself is what opens it.
    assert is_open(rds, volume) == (fails < 3)
    assert told(rds, volume) in (64 * MIB, 0)
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    assert told(rds, volume) == 128 * MIB


async def test_it_is_not_opened_while_the_rds_may_be_at_work_on_its_file(
    rds: Rds, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be told the size of that moment, and no later call would know."""
    volume = await create(controller)
    await publish(controller, volume)
    change = Device.change_disk

    async def unsure(self: Device, disk: Stored, given: dict[str, Value]) -> None:
        if "file-size" in given:
            raise RuntimeFault("action timed out - try again, if error continues contact support")
        await change(self, disk, given)

    monkeypatch.setattr(Device, "change_disk", unsure)
    with pytest.raises(Unavailable, match="timed out"):
        await expand(controller, volume.volume_id, 128 * MIB)
    assert not is_open(rds, volume)
    monkeypatch.undo()
    rds.simulator.device.store.items.clear()  # RouterOS drops the lock after a minute
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    assert told(rds, volume) == 128 * MIB


async def test_a_size_that_is_not_honoured_leaves_it_open(rds: Rds, controller: Controller) -> None:
    rds.simulator.quirks.set("resize", "ignored")
    volume = await create(controller)
    await publish(controller, volume)
    with pytest.raises(FailedPrecondition, match="did not honour"):
        await expand(controller, volume.volume_id, 128 * MIB)
    assert told(rds, volume) == 64 * MIB


@pytest.mark.parametrize("closed", [False, True])
async def test_a_full_pool_leaves_it_open(rds: Rds, controller: Controller, closed: bool) -> None:
    """Also where a line that was cut off had left it closed."""
    volume = await create(controller)
    await publish(controller, volume)
    if closed:
        await shut(rds, volume)
    rds.simulator.fill_pool("raid10", free=MIB)
    with pytest.raises(PoolFull):
        await expand(controller, volume.volume_id, 128 * MIB)
    assert told(rds, volume) == 64 * MIB


async def test_what_holders_without_maps_find_closed_stays_so(rds: Rds) -> None:
    """Then it was somebody else who closed it."""
    controller = rds.controller()
    volume = await create(controller)
    await publish(controller, volume)
    await shut(rds, volume)
    assert await expand(controller, volume.volume_id, 64 * MIB) == 64 * MIB
    assert not is_open(rds, volume)


async def test_what_an_administrator_took_from_its_nodes_stays_closed(
    rds: Rds, controller: Controller
) -> None:
    """The lines in docs/operations.md strike the nodes, and leave the other words."""
    volume = await create(controller)
    await publish(controller, volume)
    text = rds.disk(volume.volume_id).comment
    assert MAPPED in text
    text = text.partition(" nodes=")[0] + " nodes="
    said = await rds.simulator.run(
        f'/disk/set {volume.volume_id} nvme-tcp-export=no comment="{text}"'
    )
    assert said == ""
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    assert not is_open(rds, volume)
    assert (await publish(controller, volume, NODE_B))["generation"] == "2"
    assert told(rds, volume) == 128 * MIB


async def test_an_rds_that_does_not_open_it_is_told(
    rds: Rds, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = await create(controller)
    await publish(controller, volume)
    change = Device.change_disk

    async def never_open(self: Device, disk: Stored, given: dict[str, Value]) -> None:
        if given.get("nvme-tcp-export") is not True:
            await change(self, disk, given)

    monkeypatch.setattr(Device, "change_disk", never_open)
    with pytest.raises(OutcomeUnknown, match="RouterOS shows it closed"):
        await expand(controller, volume.volume_id, 128 * MIB)
    monkeypatch.undo()
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    assert told(rds, volume) == 128 * MIB


async def shut(rds: Rds, volume: csi.Volume) -> None:
    said = await rds.simulator.run(f"/disk/set {volume.volume_id} nvme-tcp-export=no")
    assert said == ""


# Cut off in the middle: power, a script that RouterOS ends with its session

A = Publication("a", AccessMode.SINGLE_NODE_WRITER)
FREE = record()
HELD = FREE.with_node(A, mapped=True)


def growing(size: int) -> str:
    return commands.expand(
        slot=SLOT, size=size, owner=OWNER, base_path=BASE, reserve=0, published=False
    )


@pytest.fixture
async def fresh(tmp_path: Path) -> Callable[[], Simulator]:
    """RDSs with a volume that a node has under a map; their lines run step by step."""
    count = 0

    def made() -> Simulator:
        nonlocal count
        count += 1
        simulator = Simulator(tmp_path / f"rds-{count}")
        simulator.make_directory(BASE)
        return simulator

    return made


async def held(simulator: Simulator) -> None:
    make = commands.create(
        slot=SLOT,
        size=64 * MIB,
        file_path=path_of(SLOT),
        nqn=f"{PREFIX}:{SLOT}",
        port=4420,
        record=FREE,
        reserve=0,
    )
    publish = commands.change(
        slot=SLOT,
        expected=FREE.encode(),
        record=HELD,
        exported=True,
        allowed_host="",
        base_path=BASE,
        nqn=export_nqn(PREFIX, SLOT, HELD.generation),
    )
    for line in (make, publish):
        await simulator.run(wrap(line, NONCE))
    simulator.quirks.interleave = True


async def test_wherever_a_line_ends_the_next_one_does_the_rest(
    fresh: Callable[[], Simulator],
) -> None:
    """And in between the export is closed, or it shows the size it had."""
    seen, cut, ended = set(), 0, False
    while not ended:
        simulator = fresh()
        await held(simulator)
        disk = simulator.disks[SLOT]
        line = simulator.run(wrap(growing(128 * MIB), NONCE))
        try:
            for _ in range(cut):
                line.send(None)
        except StopIteration:
            ended = True
        line.close()
        found = simulator.device.exporter.namespaces.get(disk.id)
        size = found.size // MIB if found else 0
        seen.add((disk.size // MIB, size))
        # RouterOS drops the lock of a line that was broken off by itself.
        simulator.device.store.items.clear()
        await simulator.run(wrap(growing(128 * MIB), NONCE))
        assert disk.size == 128 * MIB
        assert simulator.device.exporter.namespaces[disk.id].size == 128 * MIB, cut
        cut += 1
    # Of a file that has grown no export shows the former size.
    assert seen == {(64, 64), (64, 0), (128, 0), (128, 128)}
