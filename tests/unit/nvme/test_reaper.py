"""The reaper: what it takes down, and above all what it does not."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import structlog.testing

from rds_csi.errors import Unavailable, VolumeInUse
from rds_csi.nvme.reaper import Finding, Reaper, Verdict
from rds_csi.nvme.sysfs import Subsystem
from tests.unit.fakes.clock import FakeClock
from tests.unit.fakes.sysfs import HOST_NQN, OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import DELETE, PREFIX, A, B, Kernel

ROOT_DISK = "nqn.2014-08.org.nixos:boot-disk"


@dataclass
class World:
    """A reaper over a played kernel, with everything that may speak for a volume."""

    kernel: Kernel
    clock: FakeClock = field(default_factory=FakeClock)
    recorded: set[str] = field(default_factory=set)
    locked: set[str] = field(default_factory=set)
    record_error: Exception | None = None
    reaped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connector = self.kernel.connector()
        self.reaper = self.make()

    def make(
        self, *, dry_run: bool = False, seed: int = 1, maps: "Overlaid | None" = None
    ) -> Reaper:
        return Reaper(
            sysfs=self.kernel.sysfs,
            connector=self.connector,
            host=HOST_NQN,
            nqn_prefix=PREFIX,
            recorded=self.records,
            mounted=lambda: self.kernel.mounted.__contains__,
            locked=self.locked.__contains__,
            clock=self.clock,
            rng=random.Random(seed),
            dry_run=dry_run,
            on_disconnect=self.reaped.append,
            maps=maps,
        )

    async def records(self) -> set[str]:
        await asyncio.sleep(0)
        if self.record_error is not None:
            raise self.record_error
        return set(self.recorded)

    async def after(self, seconds: float) -> list[Finding]:
        self.clock.time += seconds
        return await self.reaper.once()

    @property
    def left(self) -> list[str]:
        return [controller.nqn for controller in self.kernel.sysfs.controllers()]


@pytest.fixture
def world(tree: FakeSysfs) -> World:
    kernel = Kernel(tree)
    kernel.removes(takes=0)
    return World(kernel)


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.nqn: finding.verdict.reason for finding in findings}


@pytest.mark.requirement("NODE-05")
async def test_no_orphans(world: World) -> None:
    world.kernel.tree.connect(A)
    world.recorded.add(A)
    await world.after(0)
    (finding,) = await world.after(10_000)
    assert finding == Finding(A, Verdict(False, "recorded as staged"))
    assert world.left == [A]


@pytest.mark.requirement("NODE-04")
@pytest.mark.requirement("NODE-05")
async def test_with_orphans(world: World) -> None:
    world.kernel.tree.connect(ROOT_DISK)
    world.kernel.tree.connect(A, size=None)
    world.kernel.tree.connect(B)
    await world.after(0)
    findings = await world.after(301)
    assert verdicts(findings) == {
        ROOT_DISK: "not the name of a volume of this driver",
        A: "it leads to no device, for 301 s",
        B: "nothing uses its device, for 301 s",
    }
    assert world.left == [ROOT_DISK]
    assert world.reaped == [A, B]


@dataclass
class Overlaid:
    """The volume's own maps over everything: one of this name."""

    name: str
    removed: list[str] = field(default_factory=list)
    refuses: bool = False

    def names_over(self, _devno: tuple[int, int]) -> set[str]:
        return {self.name}

    async def remove_over(self, nqn: str) -> None:
        if self.refuses:
            raise VolumeInUse("its map is still in use")
        self.removed.append(nqn)


async def test_a_map_goes_before_its_connection_or_both_stay(world: World) -> None:
    over = Overlaid("dm-7")
    world.reaper = world.make(maps=over)
    for nqn, device, holder in ((A, "nvme0n1", "dm-7"), (B, "nvme1n1", "dm-1")):
        world.kernel.tree.connect(nqn)
        world.kernel.tree.hold(device, holder)
    over.refuses = True
    await world.after(0)
    first, second = await world.after(301)
    assert first.error == "its map is still in use"
    assert second.verdict.reason == "held by another block device"
    assert world.left == [A, B]
    over.refuses = False
    await world.after(1)
    assert over.removed == [A]


@pytest.mark.requirement("NODE-05")
async def test_disconnect_error_does_not_hold_up_the_others(world: World) -> None:
    world.kernel.tree.connect(A)
    world.kernel.tree.connect(B)
    world.kernel.runner.forget()
    world.kernel.runner.on(*DELETE, error=Unavailable("no"), times=1)
    world.kernel.removes(takes=0)
    await world.after(0)
    first, second = await world.after(301)
    assert (first.error, second.error) == ("no", "")
    assert world.left == [A]
    assert world.reaped == [B]
    await world.after(1)  # and the next pass tries again
    assert world.left == []


@pytest.mark.requirement("NODE-05")
@pytest.mark.looptime
async def test_cancelled_while_disconnecting(world: World) -> None:
    world.kernel.tree.connect(A, size=None)
    world.kernel.tree.connect(B, size=None)
    world.kernel.runner.forget()
    world.kernel.runner.on(*DELETE, takes=10)
    task = asyncio.create_task(world.reaper.once(starting=True))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(world.kernel.runner.cancelled) == len(world.kernel.runner.calls) == 1
    assert not world.connector.busy(A)


@pytest.mark.requirement("NODE-05")
async def test_empty_list(world: World) -> None:
    assert await world.reaper.once() == []
    assert await world.reaper.once(starting=True) == []


class Broken:
    """A sysfs that cannot be read."""

    def subsystems(self, wanted: Callable[[str], bool]) -> list[Subsystem]:
        raise PermissionError("sysfs")


@pytest.mark.requirement("NODE-05")
@pytest.mark.looptime
@pytest.mark.parametrize("broken", ["sysfs", "records"])
async def test_list_error_disconnects_nothing(world: World, broken: str) -> None:
    world.kernel.tree.connect(A, size=None)
    if broken == "records":
        world.record_error = OSError("state directory")
    else:
        world.reaper._sysfs = Broken()
    with pytest.raises(OSError, match=r"sysfs|state"):
        await world.reaper.once(starting=True)
    await world.reaper.at_start()  # a warning, not an error
    running = asyncio.create_task(world.reaper.run())
    await asyncio.sleep(1000)
    assert not running.done()
    running.cancel()
    assert world.left == [A]


async def test_records_that_fail_at_the_last_moment_disconnect_nothing(world: World) -> None:
    world.kernel.tree.connect(A, size=None)
    answers: list[set[str] | Exception] = [set(), OSError("state directory")]

    async def records() -> set[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    world.reaper._recorded = records
    (finding,) = await world.reaper.once(starting=True)
    assert finding.error == "state directory"
    assert world.left == [A]


async def test_once_is_not_enough(world: World) -> None:
    world.kernel.tree.connect(A, size=None)
    world.clock.time += 10_000
    await world.after(0)
    assert world.left == [A]
    await world.after(299)
    assert world.left == [A]
    await world.after(1)
    assert world.left == []


async def test_use_in_between_starts_the_grace_anew(world: World) -> None:
    world.kernel.tree.connect(A)
    await world.after(0)
    world.kernel.mounted.add(world.kernel.tree.devno("nvme0n1"))
    await world.after(200)
    world.kernel.mounted.clear()
    await world.after(200)
    assert world.left == [A]
    await world.after(299)
    assert world.left == [A]
    await world.after(1)
    assert world.left == []


async def test_io_in_between_starts_the_grace_anew(world: World) -> None:
    world.kernel.tree.connect(A)
    path = "nvme0c0n1" if world.kernel.tree.multipath else "nvme0n1"
    for number in range(5):
        (world.kernel.tree.block(path) / "stat").write_text(f" {number} 0 0 0 0 0 0\n")
        (finding,) = await world.after(301)
        assert "waiting" in finding.verdict.reason
    await world.after(301)
    assert world.left == []


async def test_another_connection_under_the_same_name_starts_anew(world: World) -> None:
    world.kernel.tree.connect(A)
    await world.after(0)
    world.kernel.tree.disconnect("nvme0")
    world.kernel.tree.connect(B)
    world.kernel.tree.connect(A)
    await world.after(301)
    assert world.left == [B, A]


async def test_gone_and_back_starts_anew(world: World) -> None:
    world.kernel.tree.connect(A)
    await world.after(0)
    world.kernel.tree.disconnect("nvme0")
    await world.after(1)
    world.kernel.tree.connect(A)
    await world.after(301)
    assert world.left == [A]


@pytest.mark.requirement("PIT-03")
@pytest.mark.parametrize("what", ["rpc", "record", "mount", "held"])
async def test_what_comes_up_at_the_last_moment_keeps_it(world: World, what: str) -> None:
    world.kernel.tree.connect(A)
    await world.after(0)
    calls = 0

    async def records() -> set[str]:
        nonlocal calls
        calls += 1
        if calls < 2:
            return set()
        if what == "rpc":
            world.locked.add(A)
        elif what == "mount":
            world.kernel.mounted.add(world.kernel.tree.devno("nvme0n1"))
        elif what == "held":
            world.kernel.tree.hold("nvme0n1")
        return {A} if what == "record" else set()

    world.reaper._recorded = records
    (finding,) = await world.after(301)
    assert finding.error == "it is used now"
    assert world.left == [A]
    assert world.reaped == []
    assert world.kernel.runner.calls == []


@pytest.mark.requirement("ANTI-04")
@pytest.mark.requirement("NODE-04")
async def test_what_it_does_is_logged(world: World) -> None:
    world.kernel.tree.connect(A, size=None)
    with structlog.testing.capture_logs() as logs:
        await world.after(0)
        await world.after(301)
    counts = [log["orphans"] for log in logs if log["event"] == "looked for orphaned connections"]
    assert counts == [0, 1]
    (entry,) = [log for log in logs if log["event"] == "orphan disconnected"]
    assert entry["nqn"] == A
    assert entry["log_level"] == "warning"
    assert "leads to no device" in entry["reason"]


async def test_dry_run_only_says(world: World) -> None:
    world.reaper = world.make(dry_run=True)
    world.kernel.tree.connect(A)
    await world.after(0)
    (finding,) = await world.after(301)
    assert finding.verdict.disconnect
    assert world.left == [A]
    assert world.reaped == []
    assert world.kernel.runner.calls == []


async def test_mixed_host_identities_are_left_alone(world: World) -> None:
    world.kernel.tree.connect(A)
    world.kernel.tree.connect(A, hostnqn=OTHER_NQN)
    await world.after(0)
    await world.after(1000)
    assert world.left == [A, A]


@pytest.mark.requirement("CONN-04")
@pytest.mark.requirement("NODE-03")
@pytest.mark.looptime
async def test_at_start_is_bounded_and_never_blocks(world: World) -> None:
    world.kernel.tree.connect(A, size=None)
    world.kernel.runner.forget()
    world.kernel.runner.on(*DELETE, takes=1000)
    world.kernel.runner.run = _never  # type: ignore[method-assign,assignment]
    started = asyncio.get_running_loop().time()
    await world.reaper.at_start()
    assert asyncio.get_running_loop().time() - started == pytest.approx(120)


async def _never(*_args: object, **_options: object) -> None:
    await asyncio.sleep(1_000_000)


@pytest.mark.requirement("OPEN-02")
@pytest.mark.requirement("CONN-04")
async def test_at_start_takes_down_what_leads_to_no_device(world: World) -> None:
    world.kernel.tree.connect(A, size=None)
    world.kernel.tree.connect(B)
    await world.reaper.at_start()
    assert world.left == [B]


@pytest.mark.requirement("OPEN-02")
@pytest.mark.requirement("CONN-04")
@pytest.mark.looptime
async def test_runs_at_jittered_intervals(world: World) -> None:
    instants: list[float] = []

    async def records() -> set[str]:
        instants.append(asyncio.get_running_loop().time())
        return set()

    reapers = [world.make(seed=seed) for seed in (1, 2)]
    for reaper in reapers:
        reaper._recorded = records
    tasks = [asyncio.create_task(reaper.run()) for reaper in reapers]
    await asyncio.sleep(65 * 5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert 8 <= len(instants) <= 10
    assert len(set(instants)) == len(instants)
    assert all(60 <= instant <= 66 for instant in instants[:2])


@pytest.mark.parametrize("state", ["live", "connecting"])
async def test_all_paths_of_an_orphan_are_taken_down(world: World, state: str) -> None:
    """Also where one of them is down, as long as an address is; where they are joined."""
    world.kernel.tree.connect(A)
    world.kernel.tree.connect(A, address="192.0.2.2", state=state)
    await world.after(0)
    await world.after(10_000)
    joined = world.kernel.tree.multipath or state == "live"
    assert world.left == ([] if joined else [A, A])
    assert world.reaped == ([A] if joined else [])
