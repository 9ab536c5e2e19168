"""The kernel gives a volume's device up and the name and number to another volume, at every step.

The steps are found by running the operation once; nobody lists them by hand. Nothing may be
written to, mounted from, shown or reported of the other volume's device.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rds_csi.errors import OPEN, Code, DriverError, Unavailable
from tests.unit.fakes.mounts import DEVTMPFS
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import Disk
from tests.unit.node.calls import SIZE, VOLUME, Calls, nqn
from tests.unit.node.test_kill import KINDS, OPERATIONS, Kind, Operation, name_of, stage, world

OTHER = "pvc-ffffffffffffffffffffffffffff"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the tests of kills."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@dataclass
class Trick:
    """A volume B of the same size beside the one that is worked on, and the kernel's trick."""

    host: FakeHost
    other: Disk
    points: list[str]

    def play(self) -> None:
        self.host.swap(nqn(VOLUME), nqn(OTHER))

    def check(self, before: Disk, where: str) -> None:
        """B is what it was, and nobody did anything with it or sees it."""
        assert self.other == before, where
        assert [act for act in self.host.acts if act[1] == nqn(OTHER)] == [], where
        assert self.shown() == [], where

    def shown(self) -> list[str]:
        """Where B is seen; a bound node is of whoever has its number now.

        What was shown before is not counted: the kubelet keeps a published raw device open.
        """
        found = self.host.connections.get(nqn(OTHER))
        if found is None:
            return []
        nodes = (f"/{found.name}", f"/{found.name}//deleted")
        return [
            entry.point
            for entry in self.host.table.entries
            if entry.point not in self.points
            and (entry.devno == found.devno or (entry.devno == DEVTMPFS and entry.root in nodes))
        ]


def trick(calls: Calls) -> Trick:
    """B holds a finished file system of the type wanted, with data, or is as blank as A."""
    content = "blank" if calls.disk.content == "blank" else calls.fs_type
    other = Disk(SIZE, content)
    if content != "blank":
        other.make(content, "88888888-2222-4333-8444-555555555555")
        other.data, other.replay = "B's", True
    calls.host.rds[nqn(OTHER)] = other
    return Trick(calls.host, other, calls.host.table.points())


async def steps_of(root: Path, kind: Kind, operation: Operation, *, multipath: bool) -> list[str]:
    whole = world(root, kind, 0)
    whole.host.multipath = multipath
    await operation.prepare(whole)
    whole.host.steps.passed.clear()
    await operation.act(whole)
    return whole.host.steps.passed.copy()


HONEST = OPEN | {Code.FAILED_PRECONDITION}


async def failure_of(operation: Operation, calls: Calls) -> DriverError | None:
    try:
        await operation.act(calls)
    except DriverError as error:
        return error
    return None


@pytest.mark.looptime
@pytest.mark.usefixtures("virtual")
@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
async def test_another_volume_gets_the_name_and_number_at_every_step(
    tmp_path: Path, kind: Kind, operation: Operation
) -> None:
    multipath = KINDS.index(kind) % 2 == 0  # both layouts of sysfs have their turn
    passed = await steps_of(tmp_path, kind, operation, multipath=multipath)
    swapped = 0
    for step, name in enumerate(passed, start=1):
        calls = world(tmp_path, kind, step)
        calls.host.multipath = multipath
        await operation.prepare(calls)
        played = trick(calls)
        before = replace(played.other)
        calls.host.acts.clear()
        steps = calls.host.steps
        steps.passed.clear()
        steps.stop, steps.then = step, played.play
        where = f"{kind.name}: {operation.act.__name__} at {step}, {name}"
        failure = await failure_of(operation, calls)
        steps.stop, steps.then = 0, None
        assert failure is None or failure.code in HONEST, f"{where}: {failure}"
        played.check(before, where)
        swapped += nqn(OTHER) in calls.host.connections
        if operation.act is stage:
            again = await failure_of(operation, calls)
            # Mounted from a map that leads nowhere it stays so, until that leads to A again.
            assert again is None or (kind.path_layer and "its I/O waits" in str(again)), where
            played.check(before, f"{where}, repeated")
            assert calls.host.formats <= 2
    assert swapped, "the trick was never played"


async def test_mount_does_not_even_start_on_anothers_device(tmp_path: Path) -> None:
    """A mount replays the journal: B's would be written to."""
    calls = world(tmp_path, Kind("ext4 with data", "ext4"), 1)
    played = trick(calls)
    calls.host.steps.at, calls.host.steps.then = "before mount", played.play
    with pytest.raises(Unavailable, match="not its device any more"):
        await calls.stage()
    assert not [call for call in calls.host.acts if call[0] == "mount"]
    assert calls.host.table.points() == []


async def test_mkfs_does_not_start_on_anothers_blank_device(tmp_path: Path) -> None:
    """Blank devices of one size have the same digest."""
    calls = world(tmp_path, Kind("ext4 to be made", "blank"), 1)
    played = trick(calls)
    calls.host.steps.at, calls.host.steps.then = "before mkfs.ext4", played.play
    with pytest.raises(Unavailable, match="not its device any more"):
        await calls.stage()
    assert played.other.content == "blank"
    assert calls.host.formats == 0


async def test_a_bound_node_that_became_anothers_is_unbound(tmp_path: Path) -> None:
    """A bind keeps no number: after it, the node may be that of B already."""
    calls = world(tmp_path, Kind("block", "blank", block=True), 1)
    played = trick(calls)
    await calls.stage()
    calls.host.steps.at, calls.host.steps.then = "after mount", played.play
    with pytest.raises(Unavailable, match="not its device any more"):
        await calls.publish()
    assert played.shown() == []
    assert not calls.target_path.exists()


async def test_a_bound_directory_of_a_device_that_is_gone_is_unbound(tmp_path: Path) -> None:
    """The mount keeps the number, so B is not seen; but A is gone, and that is no success."""
    calls = world(tmp_path, Kind("ext4 with data", "ext4"), 1)
    played = trick(calls)
    await calls.stage()
    calls.host.steps.at, calls.host.steps.then = "after mount", played.play
    with pytest.raises(Unavailable, match="not its device any more"):
        await calls.publish()
    assert calls.host.table.points() == [str(calls.stage_path)]
    assert not calls.target_path.exists()
