"""Two controllers at once, each on a connection of its own, with RouterOS running both."""

import asyncio
import random

import pytest

from rds_csi.errors import ConcurrentChange
from rds_csi.routeros import Disks
from rds_csi.simulator.interpreter import Call
from rds_csi.simulator.menus.tree import MenuTree
from rds_csi.simulator.values import Value
from rds_csi.volume import AccessMode, Publication, Record

from .conftest import Rds
from .volumes import SLOT, create, record


@pytest.fixture(autouse=True)
def uneven_pace(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Every command of a line takes a while of its own, as on a device with other work."""
    rng = random.Random(0)
    execute = MenuTree.execute

    async def slowly(tree: MenuTree, call: Call) -> Value:
        await asyncio.sleep(rng.choice((0, 0, 0.001, 0.02)))
        return await execute(tree, call)

    monkeypatch.setattr(MenuTree, "execute", slowly)
    return rng


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


@pytest.mark.parametrize("seed", range(8))
async def test_two_nodes_never_both_win_a_volume_for_one(
    rds: Rds, uneven_pace: random.Random, seed: int
) -> None:
    rng = uneven_pace
    rng.seed(seed)
    backends = await replicas(rds, 3)
    await create(backends[0])
    before = record()
    for turn in range(3):
        won = await asyncio.gather(
            *(
                publish(disks, before, f"node-{turn}-{number}", rng.uniform(0, 0.01))
                for number, disks in enumerate(backends)
            )
        )
        winners = [node for node in won if node]
        stored = rds.disk(SLOT).record
        assert stored is not None
        assert len(winners) == 1, winners
        assert [entry.node for entry in stored.nodes] == winners
        await backends[0].change(SLOT, stored.encode(), before, exported=False)


async def test_a_delete_and_a_publish_never_both_succeed_in_turn(rds: Rds) -> None:
    one, other = await replicas(rds, 2)
    await create(one)
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
