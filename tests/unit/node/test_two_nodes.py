"""Any life of a volume between two nodes: no pod ever gets caches from before another's writes.

The RDS is played: it counts hand-overs as the controller does, and lets only the holder connect.
It does not end what is connected, for a kernel connects again by itself when the volume comes
back. Each connection remembers of which state of the volume its caches are.
"""

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rds_csi.errors import ConnectFailed, DriverError, FailedPrecondition
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import FINISHED, Disk, Killed
from tests.unit.node.calls import SIZE, VOLUME, Calls, nqn

NQN = nqn(VOLUME)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@dataclass
class Rds:
    """One volume: who has it, how often it was handed over, how often it was written."""

    disk: Disk
    holder: "Node | None" = None
    generation: int = 0
    writes: int = 0


class Kernel(FakeHost):
    """A node's kernel whose connections know what their caches are of."""

    def __init__(self, root: Path, rds: Rds) -> None:
        super().__init__(root)
        self.rds = {NQN: rds.disk}
        self.volume = rds
        self.seen: dict[str, int] = {}

    def _plug(self, nqn: str, number: int = 0) -> None:
        if self.volume.holder is None or self.volume.holder.kernel is not self:
            raise ConnectFailed("the export is not for this host")
        super()._plug(nqn, number)
        self.seen[self.connections[nqn].name] = self.volume.writes

    def reboot(self) -> None:
        for entry in [entry for entry in self.table.entries if entry.point in self.table.points()]:
            self.table.entries.remove(entry)
        self.table._write()
        for each in list(self.connections):
            self.unplug(each)


@dataclass
class Node:
    """One node, and what its kubelet knows."""

    kernel: Kernel
    block: bool
    contexts: list[int] = field(default_factory=list)

    @property
    def calls(self) -> Calls:
        return Calls(host=self.kernel, block=self.block, generation=self.contexts[-1])


class World:
    """Both nodes and the RDS, and what may happen to them."""

    def __init__(self, root: Path, *, block: bool) -> None:
        self.rds = Rds(Disk(SIZE))
        self.nodes = [Node(Kernel(root / name, self.rds), block) for name in ("a", "b")]
        for each in self.nodes:
            (each.kernel.kubelet / "stage").mkdir()

    async def attach(self, node: Node) -> None:
        """Taken from whoever has it, by force if need be, and given to this node."""
        self.rds.holder = node
        self.rds.generation += 1
        node.contexts.append(self.rds.generation)

    async def start(self, node: Node) -> None:
        """A pod starts where the volume is attached; it writes what it likes."""
        if not node.contexts:
            return
        try:
            await node.calls.stage()
            await node.calls.publish()
        except DriverError:
            return
        if self.rds.holder is node:
            self.write(node)

    async def publish(self, node: Node) -> None:
        """A second pod of the same node: the kubelet does not stage again."""
        if not node.contexts:
            return
        try:
            await node.calls.publish()
        except DriverError:
            return
        if self.rds.holder is node:
            self.write(node)

    def write(self, node: Node) -> None:
        name = node.kernel.connections[NQN].name
        assert node.kernel.seen[name] == self.rds.writes, "written from caches of before"
        self.rds.writes += 1
        self.rds.disk.data = f"write {self.rds.writes}"
        node.kernel.seen[name] = self.rds.writes

    async def end(self, node: Node) -> None:
        """The pod is stopped: both calls always work, whatever the generation."""
        if node.contexts:
            await node.calls.unpublish()
            await node.calls.unstage()
            # The mark of an interrupted format stays.
            assert [each for each in node.kernel.leaks() if not each.endswith(".json")] == []

    async def unpublish(self, node: Node) -> None:
        if node.contexts:
            await node.calls.unpublish()

    async def reboot(self, node: Node) -> None:
        node.kernel.reboot()

    async def forget(self, node: Node) -> None:
        """The state directory is lost."""
        (node.kernel.state / f"{VOLUME}.json").unlink(missing_ok=True)

    async def outdated(self, node: Node) -> None:
        """A call of before: refused wherever this node knows better, with nothing changed.

        After a reboot there is no connection to keep apart, and a stage goes ahead: its record
        may be ahead of an RDS that was restored from a backup.
        """
        record = await node.kernel.node()._stager._store.read(VOLUME)
        if record is None or not record.generation or len(node.contexts) < 2:
            return
        old = [number for number in node.contexts if number < record.generation]
        for number in old[-1:]:
            before = node.kernel.table.path.read_bytes(), dict(node.kernel.connections)
            calls = node.calls.but(generation=number)
            for call in (calls.stage, calls.publish) if before[1] else (calls.publish,):
                with pytest.raises(FailedPrecondition):
                    await call()
            assert before == (node.kernel.table.path.read_bytes(), node.kernel.connections)

    async def run(self, step: tuple[str, int, int]) -> None:
        """One thing happens; at the boundary ``kill`` of it the driver is killed, if it comes."""
        what, which, kill = step
        node = self.nodes[which]
        steps = node.kernel.steps
        steps.passed.clear()
        steps.stop = kill
        try:
            await asyncio.gather(getattr(self, what)(node))
        except Killed:
            pass
        finally:
            steps.stop = 0
        node.kernel.check()


WHATS = ("attach", "start", "publish", "end", "unpublish", "reboot", "forget", "outdated")
STEPS = st.tuples(
    # Mostly what a cluster does all day.
    st.sampled_from([*WHATS, *("attach", "start") * 4]),
    st.integers(0, 1),
    st.sampled_from([0] * 20 + list(range(1, 20))),
)
AND_BACK = [("attach", 0, 0), ("start", 0, 0), ("attach", 1, 0), ("start", 1, 0), ("attach", 0, 0)]

TWICE = [("attach", 0, 0), ("attach", 0, 0), ("start", 0, 0)]


@pytest.mark.parametrize("block", [False, True], ids=["file system", "block"])
@settings(max_examples=100, deadline=None)
@example(steps=[*AND_BACK, ("start", 0, 0)])
@example(steps=[*AND_BACK, ("publish", 0, 0)])
@example(steps=[("attach", 1, 0), ("start", 1, 10)])
@example(steps=[*AND_BACK, ("forget", 0, 0), ("start", 0, 0)])
@example(steps=[*AND_BACK, ("start", 0, 0), ("outdated", 0, 0), ("end", 0, 0), ("start", 0, 0)])
@example(steps=[*TWICE, ("reboot", 0, 0), ("outdated", 0, 0), ("start", 0, 0)])
@given(steps=st.lists(STEPS, min_size=4, max_size=16))
def test_nobody_writes_from_caches_of_before(
    block: bool, steps: list[tuple[str, int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), block=block)

        async def live() -> None:
            for step in steps:
                await world.run(step)
            # However it came to this: when its pods are stopped, the volume starts anywhere.
            for node in world.nodes:
                await world.run(("end", world.nodes.index(node), 0))
            if world.rds.disk.content not in ("blank", *FINISHED):
                return  # mkfs was cut off: only the node with its mark may go on (test_kill.py)
            for node in world.nodes:
                await world.attach(node)
                await node.calls.stage()
                await node.calls.publish()
                world.write(node)

        asyncio.run(live())
        formats = sum(node.kernel.formats for node in world.nodes)
        assert formats <= 1


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver as it was: it does not look at generations."""
    monkeypatch.setattr("rds_csi.node.handover.mismatch", lambda _record, _generation: "")


@pytest.mark.parametrize("block", [False, True], ids=["file system", "block"])
@pytest.mark.usefixtures("unguarded")
async def test_the_play_shows_the_loss_where_nobody_looks(tmp_path: Path, block: bool) -> None:
    world = World(tmp_path, block=block)
    for step in AND_BACK:
        await world.run(step)
    with pytest.raises(AssertionError, match="caches of before"):
        await world.run(("start", 0, 0))
