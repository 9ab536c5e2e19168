"""Paths that are missing come back, and never where the volume may be another node's by now."""

import asyncio
import itertools
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rds_csi.errors import InvalidParameter
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.node.path_keeper import PathKeeper
from rds_csi.node.staging import StagedVolume, StagingStore
from tests.unit.fakes.clock import FakeClock
from tests.unit.fakes.sysfs import HOST_NQN, OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import A, Kernel, option

pytestmark = pytest.mark.looptime

ONE, TWO = "192.0.2.1", "192.0.2.2"
VOLUME = A.rpartition(":")[2]
STAGED = StagedVolume(
    volume=VOLUME,
    nqn=A,
    address=f"{ONE},{TWO}",
    port=4420,
    staging_path="/stage",
    fs_type="ext4",
    connection=(("ctrlLossTmo", "-1"), ("keepAliveTmo", "7"), ("reconnectDelay", "3")),
)


@dataclass
class Keeping:
    """A keeper over a played kernel."""

    kernel: Kernel
    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.kernel.works()
        self.store = StagingStore(self.directory)
        self.connector = self.kernel.connector()
        self.keeper = PathKeeper(
            initiator=self.connector,
            subsystems=self.kernel.sysfs,
            store=self.store,
            host_nqn=HOST_NQN,
            rng=random.Random(1),
            clock=self.clock,
        )

    def addresses(self, nqn: str = A) -> list[str]:
        return [each.address for each in self.kernel.sysfs.controllers(nqn)]

    def tries(self) -> int:
        """How often an address was found not to connect."""
        return self.kernel.events.count("path_failed")


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(Kernel(FakeSysfs(tmp_path / "fake")), tmp_path / "state")


async def test_a_missing_path_comes_back_as_its_class_says(keeping: Keeping) -> None:
    await keeping.store.write(STAGED)
    keeping.kernel.tree.connect(A, address=ONE)
    await keeping.keeper.once()
    assert keeping.addresses() == [ONE, TWO]
    (call,) = keeping.kernel.runner.asked("nvme")
    assert (option(call, "-c"), option(call, "-k"), option(call, "-l")) == ("3", "7", "-1")
    await keeping.keeper.once()
    assert len(keeping.kernel.runner.asked("nvme")) == 1


async def test_one_that_stays_away_is_tried_less_and_less_often(keeping: Keeping) -> None:
    await keeping.store.write(STAGED)
    keeping.kernel.tree.connect(A, address=ONE)
    keeping.kernel.away = {TWO}
    tried = []
    for second in range(300):
        keeping.clock.time = second
        before = keeping.tries()
        await keeping.keeper.once()
        tried += [second] * (keeping.tries() - before)
    waits = [later - earlier for earlier, later in itertools.pairwise(tried)]
    growing, longest = waits[:6], waits[6:]
    assert growing[0] <= 3
    assert growing == sorted(growing)
    assert longest
    assert all(60 <= wait <= 67 for wait in longest)
    # Once it was back, it counts from the start.
    keeping.kernel.away.clear()
    keeping.clock.time = 400
    await keeping.keeper.once()
    assert sorted(keeping.addresses()) == [ONE, TWO]
    await keeping.keeper.once()
    assert keeping.keeper._turns == {}


@pytest.mark.parametrize(
    "change",
    [
        {"staging_path": ""},
        {"superseded": 3},
        {"address": ONE},
        {"address": "nonsense,too"},
    ],
    ids=["not staged", "handed over since", "one address", "no address"],
)
async def test_what_is_not_to_have_more_paths_is_left_alone(
    keeping: Keeping, change: dict[str, object]
) -> None:
    await keeping.store.write(replace(STAGED, **change))  # type: ignore[arg-type]
    keeping.kernel.tree.connect(A, address=ONE)
    await keeping.keeper.once()
    assert keeping.addresses() == [ONE]


@pytest.mark.parametrize("hostnqn", ["", OTHER_NQN])
async def test_a_first_connection_is_never_made(keeping: Keeping, hostnqn: str) -> None:
    await keeping.store.write(STAGED)
    if hostnqn:
        keeping.kernel.tree.connect(A, address=ONE, hostnqn=hostnqn)
    await keeping.keeper.once()
    assert not keeping.kernel.runner.calls


@pytest.mark.parametrize(("nqn", "comes"), [(A, False), (f"{A}.2", True)])
async def test_beside_what_waits_only_a_name_of_one_hand_over_is_asked_for(
    keeping: Keeping, nqn: str, comes: bool
) -> None:
    """Who lost the volume to another node must not come back by itself."""
    await keeping.store.write(replace(STAGED, nqn=nqn))
    keeping.kernel.tree.connect(nqn, address=ONE, state="connecting")
    await keeping.keeper.once()
    assert keeping.addresses(nqn) == ([ONE, TWO] if comes else [ONE])


@pytest.mark.parametrize("then", ["unstaged", "handed over", "lost"])
async def test_what_changed_while_it_was_asked_counts(keeping: Keeping, then: str) -> None:
    await keeping.store.write(STAGED)
    keeping.kernel.tree.connect(A, address=ONE)
    answered, asked = asyncio.Event(), asyncio.Event()

    async def answers(_endpoint: object) -> bool:
        asked.set()
        await answered.wait()
        return True

    keeping.connector._paths._answers = answers
    work = asyncio.create_task(keeping.keeper.once())
    await asked.wait()
    match then:
        case "unstaged":
            await keeping.store.delete(VOLUME)
        case "handed over":
            await keeping.store.write(replace(STAGED, superseded=2))
        case "lost":
            keeping.kernel.tree.set("nvme0", "state", "connecting")
    answered.set()
    await work
    assert keeping.addresses() == [ONE]


async def test_one_that_fails_holds_up_no_other(keeping: Keeping) -> None:
    other = f"{A[:-1]}b"
    broken = replace(STAGED, connection=(("ctrlLossTmo", "soon"),))
    with pytest.raises(InvalidParameter):
        _ = broken.config
    await keeping.store.write(broken)
    await keeping.store.write(replace(STAGED, volume=other.rpartition(":")[2], nqn=other))
    for nqn in (A, other):
        keeping.kernel.tree.connect(nqn, address=ONE)
    await keeping.keeper.once()
    assert keeping.addresses() == [ONE]
    assert keeping.addresses(other) == [ONE, TWO]


async def test_a_stage_is_not_kept_waiting_by_many(keeping: Keeping) -> None:
    for number in range(12):
        nqn = f"{A[:-2]}{number:02x}"
        await keeping.store.write(replace(STAGED, volume=nqn.rpartition(":")[2], nqn=nqn))
        keeping.kernel.tree.connect(nqn, address=ONE)
    await keeping.keeper.once()
    assert keeping.kernel.runner.most_running["nvme"] == 4
    assert len(keeping.kernel.runner.asked("nvme")) == 12


async def test_it_looks_again_and_again_whatever_goes_wrong(keeping: Keeping) -> None:
    await keeping.store.write(STAGED)
    looks = 0

    async def listing() -> list[StagedVolume]:
        nonlocal looks
        looks += 1
        raise OSError("the disk is full")

    keeping.keeper._store.list = listing  # type: ignore[method-assign]
    work = asyncio.create_task(keeping.keeper.run())
    await asyncio.sleep(100)
    assert not work.done()
    assert looks == 6
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


def test_the_settings_of_a_record_of_an_older_version_are_the_defaults() -> None:
    assert replace(STAGED, connection=()).config == ConnectionConfig()
    assert Target(STAGED.addresses, 4420, A) == Target((ONE, TWO), 4420, A)
