"""Two lines at once on one RDS, in every order of their steps: one after the other, or refused.

A step is a command of a menu; what lies between two of them takes as long as it likes. The lines
are the driver's own, run by the simulator's interpreter. Each schedule starts from the same RDS,
and its end is compared with what the lines do one after the other.
"""

import json
import random
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement, permutations
from pathlib import Path
from typing import Any

import pytest

from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import MIB, export_nqn
from rds_csi.routeros import commands, fragments
from rds_csi.routeros.failures import is_locked
from rds_csi.routeros.quoting import wrap
from rds_csi.routeros.reply import read
from rds_csi.simulator import Simulator
from rds_csi.simulator.language.parser import parse
from rds_csi.simulator.language.values import Id, Value
from rds_csi.simulator.menus.addresses import AddressMenu

from .conftest import BASE, OWNER, PREFIX
from .volumes import SLOT, path_of, record

NONCE = "0" * 16
A, B = (Publication(node, AccessMode.SINGLE_NODE_WRITER) for node in "ab")
FREE = record()


def change(before: Record, after: Record) -> str:
    return commands.change(
        slot=SLOT,
        expected=before.encode(),
        record=after,
        exported=bool(after.nodes),
        allowed_host="",
        base_path=BASE,
        nqn=export_nqn(PREFIX, SLOT, after.generation) if after.nodes else "",
    )


def create(size: int = 64 * MIB, created: int = FREE.created) -> str:
    return commands.create(
        slot=SLOT,
        size=size,
        file_path=path_of(SLOT),
        nqn=f"{PREFIX}:{SLOT}",
        port=4420,
        record=Record(owner=OWNER, name="one", created=created, access="ext4"),
        reserve=0,
    )


def expand(size: int) -> str:
    return commands.expand(slot=SLOT, size=size, owner=OWNER, base_path=BASE, reserve=0)


def lines() -> dict[str, str]:
    """Made anew for each test: some take a piece of them away."""
    return {
        "publish to a": change(FREE, FREE.with_node(A)),
        "publish to b": change(FREE, FREE.with_node(B)),
        "unpublish": change(FREE.with_node(A), FREE.with_node(A).without_node("")),
        "expand to 128": expand(128 * MIB),
        "expand to 256": expand(256 * MIB),
        "delete": commands.delete(slot=SLOT, owner=OWNER, base_path=BASE),
        "create": create(),
        "create anew": create(96 * MIB, created=1),
    }


NAMES = tuple(lines())


@dataclass(frozen=True)
class Outcome:
    """What became of the RDS, and what each line said; LOCKED where it was not its turn."""

    rds: str
    said: tuple[str, ...]


LOCKED = "locked"


class Bench:
    """An RDS that can be had in the same state again and again."""

    def __init__(self, simulator: Simulator, start: str) -> None:
        self.simulator = simulator
        self.start = start
        simulator.quirks.interleave = True

    async def reset(self) -> None:
        device = self.simulator.device
        for disk in list(device.store.disks.values()):
            await device.remove_disk(disk)
        for name, size in self.simulator.files.items():
            if size is not None:
                device.files.remove(name)
        device.store.items.clear()
        if self.start != "nothing":
            await self.simulator.run(wrap(create(), NONCE))
        if self.start == "published":
            line = change(FREE, FREE.with_node(A))
            await self.simulator.run(wrap(line, NONCE))

    async def end(self, coroutines: list[Coroutine[Any, Any, str]], choose: "Chooser") -> Outcome:
        """Run the lines step by step; ``choose`` says whose turn it is."""
        said = [""] * len(coroutines)
        alive = list(range(len(coroutines)))
        while alive:
            turn = alive[choose(len(alive))] if len(alive) > 1 else alive[0]
            try:
                waits = coroutines[turn].send(None)
                assert waits is None, f"a line waits for {waits}"
            except StopIteration as stop:
                said[turn] = summary(stop.value)
                alive.remove(turn)
        return Outcome(await self.state(), tuple(said))

    async def state(self) -> str:
        disks = {
            slot: [disk.size, sorted((name, str(value)) for name, value in disk.properties.items())]
            for slot, disk in self.simulator.disks.items()
        }
        addresses = self.simulator.device.store.items.get("ip/firewall/address-list", [])
        exported = sorted(self.simulator.exported)
        return json.dumps([disks, sorted(self.simulator.files), exported, addresses])

    async def run(self, chosen: Iterable[str], choose: "Chooser") -> Outcome:
        await self.reset()
        return await self.end([self.simulator.run(wrap(line, NONCE)) for line in chosen], choose)

    async def serial(self, *chosen: str) -> Outcome:
        """One after the other, in this order."""
        return await self.run(chosen, lambda _: 0)

    async def allowed(self, one: str, other: str) -> set[Outcome]:
        """What may become of two lines: as if in turn, or as if one had never been there."""
        in_turn, reverse = await self.serial(one, other), await self.serial(other, one)
        first, second = await self.serial(one), await self.serial(other)
        return {
            in_turn,
            Outcome(reverse.rds, reverse.said[::-1]),
            Outcome(first.rds, (first.said[0], LOCKED)),
            Outcome(second.rds, (LOCKED, second.said[0])),
        }

    async def every_end(self, *chosen: str) -> AsyncIterator[Outcome]:
        """The end of every schedule there is, depth first."""
        path: list[tuple[int, int]] = []
        while True:
            chooser = Follow(path)
            yield await self.run(chosen, chooser)
            path = chooser.taken
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return
            path[-1] = (path[-1][0] + 1, path[-1][1])

    async def some_ends(self, *chosen: str, count: int = 60) -> AsyncIterator[Outcome]:
        """The end of that many schedules, where there are too many to see them all."""
        rng = random.Random(0)
        for _ in range(count):
            yield await self.run(chosen, rng.randrange)


Chooser = Callable[[int], int]


class Follow:
    """Follows a path of choices, then always takes the first; ``taken`` is the whole of it."""

    def __init__(self, path: list[tuple[int, int]]) -> None:
        self._ahead = iter(path)
        self.taken: list[tuple[int, int]] = []

    def __call__(self, count: int) -> int:
        choice, _ = next(self._ahead, (0, count))
        self.taken.append((choice, count))
        return choice


def summary(output: str) -> str:
    """What a line said, without what differs between two that did the same."""
    reply = read(output, NONCE)
    assert reply is not None, output
    if reply.error is not None:
        return LOCKED if is_locked(reply.error) else reply.error
    return re.sub(r'"\.id":"[^"]*"', "", "\n".join(reply.lines))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Bench]:
    simulator = Simulator(tmp_path / "rds")
    simulator.make_directory(BASE)
    parsed = cache(lambda line: parse(line, simulator._console.grammar))
    path = "rds_csi.simulator.console.parse"
    monkeypatch.setattr(path, lambda line, _grammar: parsed(line))
    # Thousands of lines, none of which has to survive anything.
    monkeypatch.setattr(simulator.device.store, "save", lambda: None)
    return lambda start: Bench(simulator, start)


@pytest.mark.parametrize(
    ("start", "names"),
    [
        ("nothing", ["create", "create anew", "delete", "publish to a"]),
        ("free", ["publish to a", "publish to b", "delete", "expand to 128", "expand to 256"]),
        ("published", ["unpublish", "publish to b", "delete", "expand to 128"]),
    ],
)
async def test_two_lines_in_every_order_of_their_steps(
    bench: Callable[[str], Bench], start: str, names: list[str]
) -> None:
    here, known = bench(start), lines()
    schedules = 0
    for one, other in combinations_with_replacement(names, 2):
        allowed = await here.allowed(known[one], known[other])
        async for outcome in here.every_end(known[one], known[other]):
            schedules += 1
            assert outcome in allowed, (one, other, outcome)
    assert schedules > 10 * len(names) ** 2 / 2


async def test_lines_that_see_each_others_lock_are_safe_without_its_uniqueness(
    bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should a RouterOS take a second entry of one address, then both lines may be refused."""
    add = AddressMenu._add

    def add_another(menu: AddressMenu, given: dict[str, Value]) -> Id:
        given["address"] = f"127.0.0.{len(menu._items)}"
        return add(menu, given)

    monkeypatch.setattr(AddressMenu, "_add", add_another)
    here, known = bench("free"), lines()
    nothing = Outcome((await here.serial()).rds, (LOCKED, LOCKED))
    for one, other in (("publish to a", "publish to b"), ("publish to a", "delete")):
        allowed = await here.allowed(known[one], known[other])
        refused = 0
        async for outcome in here.some_ends(known[one], known[other]):
            assert outcome in allowed or outcome == nothing, outcome
            refused += outcome == nothing
        assert refused


@pytest.mark.parametrize(
    ("one", "other", "start"),
    [
        ("publish to a", "publish to b", "free"),
        ("publish to a", "delete", "free"),
        ("expand to 128", "expand to 256", "free"),
    ],
)
async def test_without_the_lock_they_destroy_each_others_work(
    bench: Callable[[str], Bench],
    monkeypatch: pytest.MonkeyPatch,
    one: str,
    other: str,
    start: str,
) -> None:
    """What the lock is for: both win, a volume in use is deleted, a grown one is cut."""

    def unlocked(slot: str, *body: str) -> str:
        return fragments.block(f':local csiSlot "{slot}"', *body)

    monkeypatch.setattr(commands, "locked", unlocked)
    here, known = bench(start), lines()
    allowed = await here.allowed(known[one], known[other])
    async for outcome in here.some_ends(known[one], known[other]):
        if outcome not in allowed:
            return
    pytest.fail("the test sees nothing")


@pytest.mark.parametrize("seed", range(8))
async def test_of_three_lines_only_those_in_turn_do_anything(
    bench: Callable[[str], Bench], seed: int
) -> None:
    """As if those that were not refused had run in some order, and the others never."""
    rng = random.Random(seed)
    here, known = bench(rng.choice(["nothing", "free", "published"])), lines()
    names = [rng.choice(NAMES) for _ in range(3)]
    for _ in range(10):
        outcome = await here.run([known[name] for name in names], rng.randrange)
        ran = [place for place, said in enumerate(outcome.said) if said != LOCKED]
        assert ran
        serial = []
        for order in permutations(ran):
            done = await here.serial(*(known[names[place]] for place in order))
            said = [LOCKED] * 3
            for place, text in zip(order, done.said, strict=True):
                said[place] = text
            serial.append(Outcome(done.rds, tuple(said)))
        assert outcome in serial, (names, outcome)
