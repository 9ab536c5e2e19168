"""What a target's counters prove of it, and what they do not; and whose they are."""

import json
import os
from pathlib import Path

import pytest

from rds_csi.errors import CommandFailed, Unavailable
from rds_csi.nvme.counters import UNIT, CounterReader, Counters, Moved, Traffic, Verdict, judge
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import Result
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import HOST_NQN, FakeSysfs
from tests.unit.nvme.kernel import A

NOTHING = Traffic()
GIB = 1 << 30


def counted(reads: int, writes: int, read_units: int, written_units: int) -> Counters:
    return Counters(reads=reads, writes=writes, read_units=read_units, written_units=written_units)


ZERO = counted(0, 0, 0, 0)
BEFORE = counted(120, 348, 5, 75)
BOOTED = counted(3, 0, 1, 0)
"""Both as a lab's target showed them: before its power was cut, and after it was back."""


@pytest.mark.parametrize(
    ("before", "after", "done", "possible", "verdict"),
    [
        (BEFORE, BEFORE, NOTHING, NOTHING, Verdict.KEPT),
        (BEFORE, BOOTED, NOTHING, NOTHING, Verdict.BOOTED),
        # Larger than before, but far below what this host had written by then.
        (BEFORE, counted(900, 900, 90, 90), Traffic(0, GIB), Traffic(GIB, GIB), Verdict.BOOTED),
        # What came since the loss alone may explain all there is.
        (BEFORE, counted(900, 900, 90, 90), NOTHING, Traffic(GIB, GIB), Verdict.UNKNOWN),
        # Nobody knows what others sent.
        (BEFORE, BEFORE, NOTHING, None, Verdict.UNKNOWN),
        (BEFORE, BOOTED, NOTHING, None, Verdict.BOOTED),
        # A file without a block device counts nothing, however much was moved.
        (ZERO, ZERO, Traffic(GIB, GIB), NOTHING, Verdict.UNKNOWN),
        (BEFORE, ZERO, NOTHING, NOTHING, Verdict.BOOTED),
        # So little that rounding up to units hides it.
        (counted(3, 1, 1, 1), counted(3, 1, 1, 1), NOTHING, NOTHING, Verdict.UNKNOWN),
    ],
)
def test_what_counters_prove(
    before: Counters, after: Counters, done: Traffic, possible: Traffic | None, verdict: Verdict
) -> None:
    assert judge(before, after, done=done, possible=possible) is verdict


@pytest.mark.parametrize("moved", [0, UNIT - 1, UNIT, 10 * UNIT, 1000 * UNIT])
@pytest.mark.parametrize("later", [0, 1, UNIT, 50 * UNIT])
@pytest.mark.parametrize("history", [0, 1, UNIT, 77 * UNIT + 1])
def test_no_verdict_is_ever_the_wrong_one(history: int, moved: int, later: int) -> None:
    """A target that counts exactly, as Linux's does: it kept everything, or began at 0."""

    def showing(written: int) -> Counters:
        return counted(5, written // 4096 + 1, 1, -(-written // UNIT))

    before = showing(history)
    kept, booted = showing(history + moved + later), showing(later)
    told = {"done": Traffic(0, moved), "possible": Traffic(0, later)}
    assert judge(before, kept, **told) is not Verdict.BOOTED
    assert judge(before, booted, **told) is not Verdict.KEPT


@pytest.mark.parametrize("kind", [str, int])
def test_numbers_are_text_or_numbers(kind: type) -> None:
    shown = {"host_read_commands": 120, "host_write_commands": 348}
    shown |= {"data_units_read": 5, "data_units_written": 75}
    assert Counters.parse(json.dumps({key: kind(each) for key, each in shown.items()})) == BEFORE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"host_read_commands": true}'])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Counters.parse(text)


def reader(tree: FakeSysfs, runner: FakeRunner) -> CounterReader:
    return CounterReader(runner, Sysfs(tree.sys, dev=tree.dev), HOST_NQN)


@pytest.mark.parametrize("multipath", [True, False])
def test_traffic_is_what_the_kernel_counted(tmp_path: Path, *, multipath: bool) -> None:
    tree = FakeSysfs(tmp_path / "fake", multipath=multipath)
    tree.connect(A)
    path = "nvme0c0n1" if multipath else "nvme0n1"
    (tree.block(path) / "stat").write_text(" 113 1 4344 111 42 52 74416 1507 3 856 1851\n")
    (controller,) = Sysfs(tree.sys).controllers(A)
    found = reader(tree, FakeRunner())
    moved = Moved(traffic=Traffic(4344 * 512, 74416 * 512), pending=3, exact=multipath)
    assert found.moved(controller) == moved
    assert found.instance(controller) == (tree.sys / "class/nvme/nvme0").lstat().st_ino
    tree.disconnect("nvme0")
    assert found.moved(controller) == Moved()
    assert found.instance(controller) == 0


@pytest.mark.parametrize("theirs", [False, True])
async def test_only_the_connection_that_is_meant_is_asked(tmp_path: Path, *, theirs: bool) -> None:
    tree, runner = FakeSysfs(tmp_path / "fake"), FakeRunner()
    tree.connect(A)
    (controller,) = Sysfs(tree.sys).controllers(A)
    (tree.dev / "nvme0").write_text("")
    number = (tree.dev / "nvme0").stat().st_rdev
    shown = f"{os.major(number)}:{os.minor(number)}" if not theirs else "240:7"
    (tree.controller("nvme0") / "dev").write_text(shown)
    runner.on("nvme", "smart-log", result=Result(0, "nothing", ""))
    with pytest.raises(Unavailable if theirs else CommandFailed):
        await reader(tree, runner).read(controller, volume="v")
    assert bool(runner.calls) is not theirs


async def test_a_connection_that_is_not_live_cannot_be_asked(tmp_path: Path) -> None:
    tree = FakeSysfs(tmp_path / "fake")
    tree.connect(A)
    (controller,) = Sysfs(tree.sys).controllers(A)
    with pytest.raises(Unavailable, match="cannot be opened"):
        await reader(tree, FakeRunner()).read(controller, volume="v")
