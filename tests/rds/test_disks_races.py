"""Two controllers at once, each on a connection of its own, with RouterOS running both."""

import asyncio
import random

import pytest

from rds_csi.errors import Code, ConcurrentChange, OutcomeUnknown, RouterOSError
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import MIB
from rds_csi.routeros import Disks, commands, fragments
from rds_csi.runtime.retry import RetryPolicy

from .conftest import Rds
from .volumes import SLOT, create, record


async def replicas(rds: Rds, count: int) -> list[Disks]:
    backends = [rds.backend() for _ in range(count)]
    await asyncio.gather(*(backend.system() for backend in backends))
    return backends


async def publish(disks: Disks, before: Record, node: str, delay: float) -> str | None:
    """What a controller does that saw ``before``: the node, if it won."""
    await asyncio.sleep(delay)
    after = before.with_node(Publication(node, AccessMode.SINGLE_NODE_WRITER))
    try:
        disk = await disks.change(SLOT, before.encode(), after, exported=True)
    except ConcurrentChange:
        return None
    assert disk.record == after
    return node


@pytest.mark.parametrize(("step", "count", "turns"), [(0.0, 3, 5), (0.02, 3, 5), (0.15, 2, 4)])
async def test_two_nodes_never_both_win_a_volume_for_one(
    rds: Rds, step: float, count: int, turns: int
) -> None:
    """However long the steps of a line take on the RDS; 150 ms are more than any pause was."""
    backends = await replicas(rds, count)
    await create(backends[0])
    rds.simulator.quirks.interleave = True
    rds.simulator.quirks.step_latency = step
    before = record()
    for turn in range(turns):
        won = await asyncio.gather(
            *(
                publish(disks, before, f"node-{turn}-{number}", random.uniform(0, 2 * step))
                for number, disks in enumerate(backends)
            )
        )
        winners = [node for node in won if node]
        stored = rds.disk(SLOT).record
        assert stored is not None
        assert len(winners) == 1, winners
        assert [entry.node for entry in stored.nodes] == winners
        before = stored.without_node("")
        await backends[0].change(SLOT, stored.encode(), before, exported=False)


async def lock(rds: Rds, seconds: int) -> None:
    """What a line leaves that was broken off: its lock, until RouterOS drops it."""
    line = commands.show(SLOT)
    locked = fragments.locked(SLOT, line).partition(":set csiLock [")[2].partition("]")[0]
    entry = locked.replace("$csiSlot", SLOT).replace(fragments.LOCK_TIME, f"{seconds}s")
    assert await rds.simulator.run(entry) == ""


async def test_what_a_broken_off_line_left_is_waited_for(rds: Rds) -> None:
    [disks] = await replicas(rds, 1)
    await create(disks)
    await lock(rds, seconds=1)
    assert await publish(disks, record(), "a", 0) == "a"


async def test_while_a_lock_stands_nothing_is_changed(
    rds: Rds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rds_csi.routeros.disks.TURNS", RetryPolicy(attempts=2, initial=0.01))
    [disks] = await replicas(rds, 1)
    await create(disks)
    await lock(rds, seconds=60)
    before = rds.disk(SLOT), rds.files()
    for attempt in (
        disks.change(SLOT, record().encode(), record("one", "a"), exported=True),
        disks.expand(SLOT, 128 * MIB),
        disks.delete(SLOT),
        create(disks),
    ):
        with pytest.raises(ConcurrentChange, match="another change of it is under way") as caught:
            await attempt
        assert caught.value.code == Code.ABORTED
    assert (rds.disk(SLOT), rds.files()) == before
    assert (await disks.get(SLOT)).record == record(), "reading needs no lock"
    await rds.simulator.reboot()
    await rds.eventually(lambda: disks.delete(SLOT))


async def test_a_failed_line_gives_its_lock_back(rds: Rds) -> None:
    [disks] = await replicas(rds, 1)
    await create(disks)
    for command in ("/disk/set", "/disk/find"):
        rds.simulator.faults.add("runtime-error", match="/disk/set", command=command, text="no")
        with pytest.raises(RouterOSError, match="no"):
            await disks.change(SLOT, record().encode(), record("one", "a"), exported=True)
    assert await publish(disks, record(), "a", 0) == "a"


async def test_a_line_whose_lock_was_dropped_meanwhile_proves_nothing(rds: Rds) -> None:
    """Another may have run beside it: the caller has to look again."""
    [disks] = await replicas(rds, 1)
    await create(disks)
    rds.simulator.faults.add(
        "runtime-error",
        match="/disk/set",
        command="/ip/firewall/address-list/remove",
        text="no such item",
    )
    with pytest.raises(OutcomeUnknown, match="took so long"):
        await disks.change(SLOT, record().encode(), record("one", "a"), exported=True)


async def test_a_delete_and_a_publish_never_both_succeed_in_turn(rds: Rds) -> None:
    one, other = await replicas(rds, 2)
    await create(one)
    rds.simulator.quirks.step_latency = 0.02
    published = await asyncio.gather(
        publish(one, record(), "a", 0), other.delete(SLOT), return_exceptions=True
    )
    failures = [each for each in published if isinstance(each, BaseException)]
    assert len(failures) <= 1
    if SLOT in rds.slots():
        assert published[0] == "a"
        assert rds.disk(SLOT).exported
    else:
        assert rds.files() == []
