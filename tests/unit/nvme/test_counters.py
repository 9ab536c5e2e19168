"""What a target's counters prove of it, and what they do not; and whose they are."""

import os
from pathlib import Path

import pytest

from rds_csi.errors import CommandFailed, Unavailable
from rds_csi.nvme.counters import UNIT, CounterReader, Counters, Moved, Traffic, Verdict, judge
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import Result
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import HOST_NQN, FakeSysfs
from tests.unit.nvme.counting import Counting, CountingHost, dumped
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


def test_the_log_page_is_read_where_its_counters_stand() -> None:
    # Printed by nvme-cli 2.3, of a Linux target that was sent ten MiB; its zeroes as it had them.
    page = dumped({32: 1, 48: 0x15, 64: 3, 80: 0x10})
    assert page.splitlines()[3] == f'0020: 01{" 00" * 15} "{"." * 16}"'
    assert Counters.parse(page) == counted(3, 16, 1, 21)
    # nvme-cli 3.1, of the same; and one whose last line is not like those before.
    rows = page.splitlines()
    short = [*rows[:2], "*", *rows[3:8], "*"]
    assert Counters.parse("\n".join([*short, "0200:", ""])) == counted(3, 16, 1, 21)
    assert Counters.parse("\n".join([*short, rows[-1]])) == counted(3, 16, 1, 21)
    large = 0x0102030405060708090A0B0C0D0E0F10
    assert Counters.parse(dumped({80: large})).writes == large


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no such log page",
        dumped({80: 1}).rsplit("01f0", 1)[0],
        dumped({80: 1}).replace("0010: ", "0020: ", 1),
        dumped({80: 1}) + dumped({80: 2}),
        "*\n" + dumped({80: 1}).split("\n", 2)[2],
        "\n".join([*dumped({}).splitlines()[:2], "*"]),
        "\n".join([*dumped({}).splitlines()[:2], "*", "0210:"]),
        dumped({80: 1}).replace("0010: ", "*\n0200: ", 1),
    ],
)
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="bytes"):
        Counters.parse(text)


@pytest.mark.parametrize(
    ("keep_alive", "limit"),
    [("5", "10000"), ("1", "2000"), ("3600", "60000"), ("0", "60000"), ("", "60000")],
)
async def test_a_question_ends_as_soon_as_a_silent_link_is_found(
    tmp_path: Path, keep_alive: str, limit: str
) -> None:
    host = CountingHost(tmp_path)
    target = Counting(host, A)
    host.tree.set(target.name, "kato", keep_alive)
    sysfs = Sysfs(host.tree.sys, dev=host.tree.dev)
    (controller,) = sysfs.controllers(A)
    await CounterReader(host.runner, sysfs, HOST_NQN).read(controller, volume="v")
    (call,) = host.runner.asked("nvme", "admin-passthru")
    assert call.args[-1] == f"--timeout={limit}"


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
    runner.on("nvme", "admin-passthru", result=Result(0, "nothing", ""))
    with pytest.raises(Unavailable if theirs else CommandFailed):
        await reader(tree, runner).read(controller, volume="v")
    assert bool(runner.calls) is not theirs


async def test_a_connection_that_is_not_live_cannot_be_asked(tmp_path: Path) -> None:
    tree = FakeSysfs(tmp_path / "fake")
    tree.connect(A)
    (controller,) = Sysfs(tree.sys).controllers(A)
    with pytest.raises(Unavailable, match="cannot be opened"):
        await reader(tree, FakeRunner()).read(controller, volume="v")
