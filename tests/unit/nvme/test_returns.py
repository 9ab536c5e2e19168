"""Each return of a target is judged once, and what it forgot is said and remembered."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rds_csi.nvme import returns
from rds_csi.nvme.counters import Verdict
from rds_csi.nvme.returns import Returns
from tests.unit.fakes.ssh import until
from tests.unit.fakes.sysfs import OTHER_NQN
from tests.unit.nvme.counting import MIB, Counting, CountingHost
from tests.unit.nvme.kernel import A, B

VOLUME = A.rpartition(":")[2]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[CountingHost]:
    made = CountingHost(tmp_path)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def started(host: CountingHost) -> AsyncIterator[Returns]:
    """A driver that knows what the one before it knew, and looks when it is told to."""
    made = host.driver()
    made._uevents.open()
    await made._load()
    try:
        yield made
    finally:
        made._uevents.close()


@pytest.fixture
async def driver(host: CountingHost) -> AsyncIterator[Returns]:
    async with started(host) as made:
        yield made


@contextlib.asynccontextmanager
async def running(driver: Returns) -> AsyncIterator[None]:
    task = asyncio.create_task(driver.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("booted", "verdict"), [(False, "kept"), (True, "booted")])
async def test_a_target_that_was_seen_to_be_away(
    host: CountingHost, driver: Returns, *, told: bool, booted: bool, verdict: str
) -> None:
    target = Counting(host, A)
    await driver.look()
    host.clock.time += 100
    target.write(5 * MIB)
    await driver.look()
    alive = host.clock.time
    host.clock.time += 30
    target.away()
    await driver.look()
    host.clock.time += 30
    target.back(booted=booted, told=told)
    target.write(MIB)
    await driver.look()
    assert host.verdicts == [verdict]
    doubt = driver.doubt(VOLUME)
    assert (doubt is not None) is booted
    assert driver.booted == booted
    if doubt is not None:
        assert (doubt.verdict, doubt.since, doubt.until) == (Verdict.BOOTED, alive, alive + 60)
    # Judged once, whatever else is looked at.
    asked = host.asked
    for _ in range(3):
        await driver.look()
    assert host.verdicts == [verdict]
    assert host.asked == asked == 2


@pytest.mark.parametrize(("booted", "verdict"), [(False, "kept"), (True, "booted")])
async def test_an_outage_between_two_looks_is_told_by_the_kernel(
    host: CountingHost, driver: Returns, *, booted: bool, verdict: str
) -> None:
    target = Counting(host, A)
    for _ in range(2):
        await driver.look()
    target.away()
    target.back(booted=booted)
    target.write(MIB)
    await driver.look()
    assert host.verdicts == [verdict]


async def test_a_look_after_the_return_and_before_its_event_hides_nothing(
    host: CountingHost, driver: Returns
) -> None:
    """What the last look before the event showed may be of the time after."""
    target = Counting(host, A, sent=3 * MIB)
    for _ in range(2):
        await driver.look()
    target.away()
    target.back(booted=True, told=False)
    target.write(600 * MIB)
    await driver.look()
    host.tell(target.name)
    await driver.look()
    assert host.verdicts == ["unknown"]


async def test_a_fresh_connection_is_no_return(host: CountingHost, driver: Returns) -> None:
    """The kernel tells of it too, perhaps only after it was seen."""
    target = Counting(host, A)
    target.answer.effect = lambda _call: host.tell(target.name)
    host.tell(target.name)
    for _ in range(3):
        await driver.look()
    assert (host.verdicts, host.asked) == ([], 1)


async def test_where_the_kernel_dropped_events_all_are_asked(
    host: CountingHost, driver: Returns
) -> None:
    for nqn in (A, B):
        Counting(host, nqn)
    for _ in range(2):
        await driver.look()
    driver._uevents._lost = True
    await driver.look()
    assert (host.verdicts, host.asked) == (["kept", "kept"], 4)


async def test_a_target_that_says_nothing_is_asked_thrice_and_then_unknown(
    host: CountingHost, driver: Returns
) -> None:
    target = Counting(host, A)
    target.silent()
    for _ in range(6):
        await driver.look()
    assert (host.verdicts, host.asked) == ([], 3)
    target.away()
    await driver.look()
    target.back()
    with capture_logs() as log:
        for _ in range(6):
            await driver.look()
    assert (host.verdicts, host.asked) == (["unknown"], 6)
    said = [each for each in log if each["log_level"] == "warning"]
    assert [(each["event"], each["volume"]) for each in said] == [
        ("the target was away; what it kept cannot be told", VOLUME)
    ]
    assert driver.booted == 0


async def test_one_that_cannot_be_asked_at_once_is_judged_when_it_can(
    host: CountingHost, driver: Returns
) -> None:
    target = Counting(host, A)
    await driver.look()
    target.away()
    await driver.look()
    target.back(booted=True)
    shown, target.answer.result = target.answer.result, host.runner.on("x").result
    await driver.look()
    assert host.verdicts == []
    target.answer.result = shown
    await driver.look()
    assert host.verdicts == ["booted"]


async def test_what_other_nodes_share_can_only_be_lost_or_unknown(
    host: CountingHost, driver: Returns
) -> None:
    host.shared = {VOLUME}
    target = Counting(host, A)
    await driver.look()
    for booted in (False, True):
        target.away()
        await driver.look()
        target.back(booted=booted)
        await driver.look()
    assert host.verdicts == ["unknown", "booted"]


async def test_the_loss_is_said_with_volume_and_instants(
    host: CountingHost, driver: Returns
) -> None:
    target = Counting(host, A)
    await driver.look()
    target.away()
    await driver.look()
    target.back(booted=True)
    host.clock.time += 60
    with capture_logs() as log:
        await driver.look()
    (said,) = [each for each in log if each["log_level"] == "error"]
    assert said["event"] == "the target began anew: what was not flushed before is lost"
    assert (said["volume"], said["nqn"]) == (VOLUME, A)
    assert (said["alive_at"], said["back_at"]) == (
        "2001-09-09T01:46:40+00:00",
        "2001-09-09T01:47:40+00:00",
    )


async def test_connected_anew_there_is_no_doubt_any_more(
    host: CountingHost, driver: Returns
) -> None:
    target = Counting(host, A)
    await driver.look()
    target.away()
    await driver.look()
    target.back(booted=True)
    await driver.look()
    assert driver.doubt(VOLUME) is not None
    host.tree.disconnect(target.name)
    again = Counting(host, A)
    assert again.name == target.name
    host.runner._answers.remove(target.answer)
    await driver.look()
    assert driver.doubt(VOLUME) is None
    host.tree.disconnect(again.name)
    await driver.look()
    assert not host.file.exists()


@pytest.mark.parametrize(("booted", "verdict"), [(False, "unknown"), (True, "booted")])
async def test_a_map_outlives_connections_and_so_does_what_is_known(
    host: CountingHost, driver: Returns, *, booted: bool, verdict: str
) -> None:
    """The kernel gave the connection up, and a new one was made below what is mounted."""
    host.mapped = {VOLUME}
    target = Counting(host, A)
    await driver.look()
    host.tree.disconnect(target.name)
    host.runner.forget()
    for _ in range(2):
        await driver.look()
    assert host.verdicts == []
    Counting(host, A, sent=0 if booted else target.sent)
    for _ in range(2):
        await driver.look()
    assert host.verdicts == [verdict]
    assert driver.doubt(VOLUME) is not None
    # Unstaged, there is nothing to doubt any more.
    host.mapped.clear()
    host.tree.disconnect(target.name)
    await driver.look()
    assert driver.doubt(VOLUME) is None


async def test_one_way_of_two_that_comes_back(host: CountingHost, driver: Returns) -> None:
    """One connection held all the time: whatever was asked, the target kept it."""
    first = Counting(host, A)
    second = host.tree.connect(A)
    host.tree.set(second, "dev", "0:0")
    await driver.look()
    host.tree.set(second, "state", "connecting")
    first.write(MIB)
    await driver.look()
    host.tree.set(second, "state", "live")
    host.tell(second)
    await driver.look()
    assert host.verdicts == ["kept"]


async def test_somebody_elses_connections_are_not_asked(
    host: CountingHost, driver: Returns
) -> None:
    host.tree.connect(A, hostnqn=OTHER_NQN)
    host.tree.connect("nqn.2014-08.org.example:disk")
    await driver.look()
    assert host.asked == 0


async def test_few_are_asked_at_once(host: CountingHost, driver: Returns) -> None:
    for number in range(12):
        target = Counting(host, A[:-2] + f"{number:02}")
        target.answer.takes = 0.001
    await driver.look()
    assert host.asked == 12
    assert host.runner.most_running["nvme"] == 4


async def test_who_has_gone_again_is_not_asked(host: CountingHost, driver: Returns) -> None:
    """The program would hang in the kernel for as long as the outage lasts."""
    targets = [Counting(host, A[:-2] + f"{number:02}") for number in range(5)]
    for target in targets[:4]:
        target.answer.effect = lambda _call: targets[4].away()
    await driver.look()
    assert host.asked == 4
    targets[4].back()
    await driver.look()
    assert (host.asked, host.verdicts) == (5, [])


# Restarts, and the service


@pytest.mark.parametrize("booted", [False, True])
async def test_a_driver_that_was_away_itself_sees_what_was_lost(
    host: CountingHost, *, booted: bool
) -> None:
    target = Counting(host, A)
    async with started(host) as driver:
        await driver.look()
    target.away()
    target.back(booted=booted)
    for _ in range(2):
        # The one after the next knows it too.
        async with started(host) as driver:
            for _ in range(2):
                await driver.look()
            # Nobody saw an outage: where nothing is missing, there was none.
            assert host.verdicts == (["booted"] if booted else [])
            assert (driver.doubt(VOLUME) is not None) is booted


@pytest.mark.parametrize(("booted", "verdict"), [(False, "unknown"), (True, "booted")])
async def test_an_outage_that_outlasts_the_driver_is_judged_by_the_next(
    host: CountingHost, *, booted: bool, verdict: str
) -> None:
    target = Counting(host, A)
    host.shared = {VOLUME}
    async with started(host) as driver:
        await driver.look()
        target.away()
        await driver.look()
    async with started(host) as driver:
        await driver.look()
        assert host.verdicts == []
        target.back(booted=booted)
        await driver.look()
    assert host.verdicts == [verdict]


async def test_a_file_that_is_no_use_is_said_and_replaced(host: CountingHost) -> None:
    host.file.parent.mkdir()
    host.file.write_text("garbage")
    Counting(host, A)
    with capture_logs() as log:
        async with started(host) as driver:
            await driver.look()
    assert [each["event"] for each in log] == ["what targets counted cannot be read"]
    assert list(json.loads(host.file.read_text())["targets"]) == [A]


async def test_a_state_directory_that_cannot_be_written_is_said(
    host: CountingHost, driver: Returns
) -> None:
    host.file.parent.write_text("not a directory")
    Counting(host, A)
    with capture_logs() as log:
        await driver.look()
    assert [each["event"] for each in log] == ["what targets counted cannot be kept"]


async def test_the_service_looks_when_the_kernel_tells(
    host: CountingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "INTERVAL", 3600.0)
    target = Counting(host, A)
    async with running(host.driver()):
        await until(host.file.exists)
        target.back(booted=True)
        await until(lambda: host.verdicts == ["booted"])


async def test_the_service_looks_now_and_then_where_the_kernel_tells_nothing(
    host: CountingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "INTERVAL", 3600.0)
    monkeypatch.setattr(returns, "DEAF", 0.001)
    target = Counting(host, A)
    driver = host.driver(uevents=False)
    async with running(driver):
        await until(host.file.exists)
        target.away()
        await until(lambda: driver._known[A].away)
        target.back(booted=True)
        await until(lambda: host.verdicts == ["booted"])
