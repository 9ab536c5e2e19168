"""The driver is ended at every step of every operation: a repeat converges, nothing is lost.

The steps are found by running the operation once; nobody lists them by hand.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rds_csi.model.access import AccessMode
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import Killed
from tests.unit.node.calls import SIZE, Calls

Act = Callable[[Calls], Awaitable[object]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of records are written here; that they are durable is tested with the store."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


async def nothing(_calls: Calls) -> None:
    """No preparation."""


async def staged(calls: Calls) -> None:
    await calls.stage()
    if not calls.block and calls.mode is not AccessMode.MULTI_NODE_READER_ONLY:
        calls.disk.data = "what a pod wrote"


async def published(calls: Calls) -> None:
    await staged(calls)
    await calls.publish()


async def unpublished(calls: Calls) -> None:
    await published(calls)
    await calls.unpublish()


async def larger(calls: Calls) -> None:
    await published(calls)
    calls.disk.size = 2 * SIZE


async def stage(calls: Calls) -> None:
    await calls.stage()


async def publish(calls: Calls) -> None:
    await calls.publish()


async def unpublish(calls: Calls) -> None:
    await calls.unpublish()


async def unstage(calls: Calls) -> None:
    await calls.unstage()


async def expand(calls: Calls) -> None:
    assert await calls.expand(2 * SIZE) == 2 * SIZE


@dataclass(frozen=True)
class Kind:
    """A kind of volume."""

    name: str
    content: str
    fs_type: str = "ext4"
    block: bool = False
    readonly: bool = False
    mode: AccessMode = AccessMode.SINGLE_NODE_MULTI_WRITER
    path_layer: bool = False


KINDS = (
    Kind("ext4 to be made", "blank"),
    Kind("xfs to be made", "blank", fs_type="xfs"),
    Kind("ext4 with data", "ext4"),
    Kind("read-only target", "ext4", readonly=True),
    Kind("reader", "xfs", fs_type="xfs", mode=AccessMode.MULTI_NODE_READER_ONLY),
    Kind("block", "blank", block=True),
    Kind("read-only block", "blank", block=True, readonly=True),
    Kind("xfs to be made, with a map", "blank", fs_type="xfs", path_layer=True),
    Kind("ext4 with data, with a map", "ext4", path_layer=True),
    Kind("read-only block, with a map", "blank", block=True, readonly=True, path_layer=True),
)


@dataclass(frozen=True)
class Operation:
    """One call, and the state before it."""

    prepare: Act
    act: Act


OPERATIONS = (
    Operation(nothing, stage),
    Operation(staged, publish),
    Operation(published, unpublish),
    Operation(unpublished, unstage),
    Operation(larger, expand),
)


def name_of(value: Operation | Kind) -> str:
    return value.name if isinstance(value, Kind) else value.act.__name__


def world(root: Path, kind: Kind, number: int) -> Calls:
    host = FakeHost(root / str(number))
    calls = Calls(
        host=host,
        fs_type=kind.fs_type,
        block=kind.block,
        readonly=kind.readonly,
        mode=kind.mode,
        path_layer=kind.path_layer,
    )
    calls.create(kind.content)
    return calls


def state(host: FakeHost) -> tuple[object, ...]:
    """Everything that a repeated call must have brought about."""
    return (
        sorted((entry.point.rpartition("/")[2], entry.options) for entry in host.table.entries[2:]),
        sorted(host.connections),
        [(each.uuid, each.size, each.active) for each in host.mapper.maps.values()],
        sorted(path.name for path in host.kubelet.rglob("*")),
        {nqn: (disk.content, disk.fs_size, disk.data) for nqn, disk in host.rds.items()},
        sorted(path.name for path in host.state.glob("*.json")),
    )


async def end_at(calls: Calls, act: Act, step: int, how: str) -> None:
    """Run ``act`` in a task of its own that ends at the step."""
    steps = calls.host.steps
    steps.passed.clear()
    steps.stop, steps.how = step, how
    with pytest.raises(Killed if how == "kill" else asyncio.CancelledError):
        await asyncio.gather(act(calls))
    steps.stop = 0
    calls.host.check()


async def take_down(calls: Calls) -> None:
    await calls.unpublish()
    calls.host.check()
    await calls.unstage()
    calls.host.check()


@pytest.mark.parametrize("how", ["kill", "cancel"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
async def test_ended_at_every_step(
    tmp_path: Path, kind: Kind, operation: Operation, how: str
) -> None:
    whole = world(tmp_path, kind, 0)
    await operation.prepare(whole)
    whole.host.steps.passed.clear()
    await operation.act(whole)
    steps = len(whole.host.steps.passed)
    assert steps >= 2, "nothing is done outside"
    wanted = state(whole.host)
    for step in range(1, steps + 1):
        calls = world(tmp_path, kind, step)
        await operation.prepare(calls)
        await end_at(calls, operation.act, step, how)
        passed = calls.host.steps.passed[-1]
        await operation.act(calls)
        calls.host.check()
        assert state(calls.host) == wanted, f"after a repeat from {passed}"
        data = calls.disk.data
        await take_down(calls)
        assert calls.host.leaks() == [], f"after a repeat from {passed}"
        assert calls.disk.data == data
        assert calls.host.formats <= 1


@pytest.mark.parametrize("operation", OPERATIONS[:4], ids=name_of)
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
async def test_ended_and_given_up(tmp_path: Path, kind: Kind, operation: Operation) -> None:
    """The pod is deleted instead: the kubelet unpublishes and unstages, and never repeats."""
    whole = world(tmp_path, kind, 0)
    await operation.prepare(whole)
    whole.host.steps.passed.clear()
    await operation.act(whole)
    for step in range(1, len(whole.host.steps.passed) + 1):
        calls = world(tmp_path, kind, step)
        await operation.prepare(calls)
        await end_at(calls, operation.act, step, "kill")
        data = calls.disk.data
        await take_down(calls)
        marks = [leak for leak in calls.host.leaks() if not leak.endswith(".json")]
        assert marks == [], f"ended {calls.host.steps.passed[-1]}"
        # The mark of an interrupted format stays, and makes the next stage possible.
        await calls.stage()
        assert calls.disk.data == data
        assert calls.host.formats <= 1
        await calls.unstage()
        assert calls.host.leaks() == []


async def test_ended_twice(tmp_path: Path) -> None:
    """mkfs is killed half-way, and then the repeated stage is killed, at every step of it."""
    kind = Kind("xfs to be made", "blank", fs_type="xfs")
    whole = world(tmp_path, kind, 0)
    await whole.stage()
    steps = len(whole.host.steps.passed)
    wanted = state(whole.host)
    names = whole.host.steps.passed.copy()
    for first in (number for number, name in enumerate(names, start=1) if "mkfs" in name):
        for second in range(1, steps + 1):
            calls = world(tmp_path, kind, 1000 * first + second)
            await end_at(calls, stage, first, "kill")
            calls.host.steps.passed.clear()
            calls.host.steps.stop = second
            try:
                await asyncio.gather(stage(calls))
            except Killed:
                calls.host.steps.stop = 0
                await stage(calls)
            calls.host.steps.stop = 0
            assert state(calls.host) == wanted, f"{first} and {second}"
