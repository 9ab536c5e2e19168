"""No table is ever loaded that leads to anything but its volume, whatever happens.

``--hypothesis-profile=exhaustive`` does more than ten thousand steps.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rds_csi.errors import Unavailable
from rds_csi.node.connected import Volumes
from rds_csi.node.mender import Mender
from rds_csi.pathlayer.maps import MapIdentity, Maps
from rds_csi.runtime.process import Result
from tests.unit.fakes.device_mapper import FakeTable
from tests.unit.fakes.node_host import FakeHost, Held
from tests.unit.node.calls import SIZE, VOLUME, nqn, published
from tests.unit.node.mapped_lives import CALLS, Kernel, Step, World

FEWEST = 12
"""Steps of a life; the exhaustive profile has a thousand lives."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits here, for nothing changes while it does."""
    sleep = asyncio.sleep

    async def here(work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return work(*args, **named)

    async def at_once(_seconds: float) -> None:
        await sleep(0)

    monkeypatch.setattr(asyncio, "to_thread", here)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


MEANWHILE = ("lose", "swap", "plug", "hide", "handover", "away")
BETWEEN = (
    *("back", "attach", "shrink", "enlarge", "replace", "restore", "release"),
    *("multipathd", "cluster", "second", "tamper"),
)
STEPS = st.tuples(
    st.sampled_from([*CALLS * 2, *("start", "lose", "mend") * 5, *MEANWHILE, *BETWEEN]),
    st.integers(0, 1),
    st.sampled_from([""] * 6 + ["kill"] * 2 + [*MEANWHILE]),
    st.integers(1, 30),
)


async def life(root: Path, steps: list[Step]) -> None:
    world = World(root)
    for step in steps:
        await world.run(step)
    await world.converge()


def alone(*whats: str) -> list[Step]:
    return [(what, 0, "", 0) for what in whats]


LOST = alone("start", "lose")
OTHERS = alone("start", "replace", "mend")
HELD = alone("start", "lose", "plug", "cluster", "mend")


@pytest.mark.timeout(1800)  # the exhaustive profile
@example(steps=[*LOST, ("mend", 0, "swap", 8)])
@example(steps=OTHERS)
@given(steps=st.lists(STEPS, min_size=FEWEST, max_size=3 * FEWEST))
def test_no_table_leads_to_anything_else(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(life(Path(folder), steps))


@pytest.mark.parametrize("block", [False, True])
async def test_a_table_that_is_loaded_and_not_in_use_leads_nowhere(
    host: FakeHost, block: bool
) -> None:
    """Who mended it was killed in between: sysfs shows the new device, and I/O waits."""
    calls = await published(host, block=block, path_layer=True)
    bare = nqn(VOLUME)
    host.unplug(bare)
    host._numbers += 10
    host._plug(bare)
    (found,) = host.mapper.maps.values()
    assert found.active is not None
    found.active.idle = True
    found.loaded = FakeTable(SIZE // 512, [host.connections[bare].devno], queues=True)
    host.mapper._show(found)
    for call in (calls.stage, calls.publish):
        with pytest.raises(Unavailable, match="its I/O waits"):
            await call()
    await calls.unpublish()
    if not block:
        with pytest.raises(Unavailable, match="its I/O waits"):
            await calls.unstage()


# The play shows what is wrong, where the driver does not look


async def unproven(host: Kernel, _held: Held, words: tuple[str, ...]) -> Result:
    """A program runs on whatever has the name and number of its device."""
    await host.steps.boundary(f"{words[0]} holds nothing")
    return await host._outcome(words)


async def trusting(*_args: object) -> None:
    """Any content will do."""


def of_any_generation(volumes: Volumes, _nqn: str, volume: str) -> MapIdentity:
    return volumes._maps.identity(volume, 1)


def nobody_holds(*_args: object) -> None:
    """Any device is free."""


@pytest.mark.parametrize(
    ("blind", "steps", "shown"),
    [
        ((Kernel, "_held_open", unproven), [*LOST, ("mend", 0, "swap", 0)], "leads to"),
        ((Mender, "_require_same_file_system", trusting), OTHERS, "another content"),
        (
            (Volumes, "map_identity", of_any_generation),
            alone("start", "end", "attach", "start"),
            "leads to",
        ),
        (
            (Maps, "_require_free", nobody_holds),
            alone("start", "lose", "plug", "cluster", "mend"),
            "one device",
        ),
    ],
    ids=["device", "content", "generation", "holder"],
)
async def test_a_blind_driver_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    blind: tuple[type, str, object],
    steps: list[Step],
    shown: str,
) -> None:
    """Where something happens within the last step: at one of its boundaries."""
    *before, (what, which, meanwhile, _) = steps
    found = []
    for at in range(1, 20) if meanwhile else (0,):
        lived = [*before, (what, which, meanwhile, at)]
        await life(tmp_path / f"sees-{at}", lived)
        with monkeypatch.context() as patch:
            patch.setattr(*blind)
            try:
                await life(tmp_path / f"blind-{at}", lived)
            except AssertionError as error:
                found.append(str(error))
    assert [each for each in found if shown in each], found
