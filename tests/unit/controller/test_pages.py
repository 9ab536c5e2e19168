"""Our volumes a page at a time: none twice, none left out, whatever happens between two pages."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.controller.pages import Listing
from rds_csi.errors import BadToken, InvalidRequest, Unavailable
from rds_csi.model.volume import volume_id
from rds_csi.routeros import Disk, Disks
from tests.unit.fakes.clock import FakeClock


def disk(slot: str) -> Disk:
    return Disk(
        slot=slot,
        size=1,
        file_path="",
        comment="",
        record=None,
        nqn="",
        port=4420,
        exported=False,
        allowed_host="",
    )


class FakeDisks:
    """A RDS of which only the listing is asked; RouterOS gives no order."""

    def __init__(self, names: list[str]) -> None:
        self.slots = [volume_id(name) for name in names]
        self.asked = 0
        self.error: Exception | None = None

    async def list(self) -> list[Disk]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return [disk(slot) for slot in self.slots]


class SlowDisks(FakeDisks):
    """A listing shows what is there when it begins, and takes a second."""

    async def list(self) -> list[Disk]:
        found = await super().list()
        await asyncio.sleep(1)
        return found


class World:
    def __init__(self, names: list[str], page: int = 3) -> None:
        self.rds = FakeDisks(names)
        self.clock = FakeClock()
        self.listing = Listing(cast("Disks", self.rds), self.clock, page)

    async def all(self, entries: int = 0, **fields: Any) -> list[list[str]]:
        """The slots of every page, to the end."""
        pages: list[list[str]] = []
        token = ""
        while True:
            found, token = await self.listing.page(token, entries, **fields)
            pages.append([each.slot for each in found])
            if not token:
                return pages
            assert len(pages) <= len(self.rds.slots), "the same page again and again"


NAMES = [f"v{number}" for number in range(7)]


@given(st.integers(0, 12), st.integers(1, 5), st.integers(0, 7))
async def test_the_pages_are_all_volumes_in_order_once(
    volumes: int, page: int, entries: int
) -> None:
    world = World([f"v{number}" for number in range(volumes)], page)
    pages = await world.all(entries)
    assert [slot for each in pages for slot in each] == sorted(world.rds.slots)
    limit = min(entries or page, page)
    assert all(len(each) <= limit for each in pages)
    # No page is empty but that of nothing: a client need not come again for nothing.
    assert all(pages) or volumes == 0


async def test_a_listing_asks_the_rds_once() -> None:
    world = World(NAMES)
    assert len(await world.all()) == 3
    assert world.rds.asked == 1
    await world.all()
    assert world.rds.asked == 2


async def test_a_first_page_is_never_an_old_answer() -> None:
    world = World(NAMES)
    await world.all()
    world.rds.slots.clear()
    assert await world.all() == [[]]


@pytest.mark.parametrize(("pause", "asked"), [(59.0, 1), (61.0, 2)])
async def test_later_pages_come_from_the_first_answer_for_a_minute(
    pause: float, asked: int
) -> None:
    world = World(NAMES)
    _, token = await world.listing.page("", 0)
    world.clock.time += pause
    await world.listing.page(token, 0)
    assert world.rds.asked == asked


async def test_after_a_restart_the_token_still_counts() -> None:
    world = World(NAMES)
    first, token = await world.listing.page("", 2)
    successor = Listing(cast("Disks", world.rds), world.clock, 3)
    second, _ = await successor.page(token, 2)
    slots = [each.slot for each in (*first, *second)]
    assert slots == sorted(world.rds.slots)[:4]


async def test_the_volume_of_the_token_may_be_gone() -> None:
    world = World(NAMES)
    first, token = await world.listing.page("", 2)
    world.rds.slots.remove(token)
    world.rds.slots.remove(first[0].slot)
    world.clock.time += 100
    second, _ = await world.listing.page(token, 2)
    assert [each.slot for each in second] == sorted(world.rds.slots)[:2]


async def test_those_that_are_not_wanted_fill_no_page() -> None:
    world = World(NAMES)
    wanted = set(sorted(world.rds.slots)[1::2])
    pages = await world.all(2, only=lambda each: each.slot in wanted)
    assert pages == [sorted(wanted)[:2], sorted(wanted)[2:]]


@pytest.mark.parametrize("token", ["x", "pvc-", "*2B", volume_id("a").upper(), "2"])
async def test_a_token_that_is_not_ours(token: str) -> None:
    world = World(NAMES)
    with pytest.raises(BadToken, match="list from the start"):
        await world.listing.page(token, 0)
    assert world.rds.asked == 0


async def test_fewer_than_none_cannot_be_asked_for() -> None:
    with pytest.raises(InvalidRequest, match="negative"):
        await World(NAMES).listing.page("", -1)


async def test_after_a_failed_listing_the_next_one_asks_again() -> None:
    world = World(NAMES)
    await world.all()
    world.rds.error = Unavailable("gone")
    with pytest.raises(Unavailable):
        await world.listing.page("", 0)
    world.rds.error = None
    assert [slot for each in await world.all() for slot in each] == sorted(world.rds.slots)


async def test_first_pages_at_once_share_an_answer_that_is_of_after_their_calls() -> None:
    rds = SlowDisks(["one"])
    listing = Listing(cast("Disks", rds), FakeClock(), 100)
    early = asyncio.create_task(listing.page("", 0))
    await asyncio.sleep(0.5)
    # Made while the first listing is under way: whoever asks from now on has to be shown it.
    rds.slots.append(volume_id("two"))
    late = [asyncio.create_task(listing.page("", 0)) for _ in range(10)]
    found, _ = await early
    assert len(found) == 1
    assert [len(found) for found, _ in await asyncio.gather(*late)] == [2] * 10
    assert rds.asked == 2


async def test_an_error_or_a_caller_that_leaves_is_nobody_elses() -> None:
    rds = SlowDisks(["one"])
    listing = Listing(cast("Disks", rds), FakeClock(), 100)
    first, second, third = (asyncio.create_task(listing.page("", 0)) for _ in range(3))
    await asyncio.sleep(0.5)
    first.cancel()
    for each in (second, third):
        found, _ = await each
        assert len(found) == 1
    with pytest.raises(asyncio.CancelledError):
        await first
    rds.error = Unavailable("away")
    failed = await asyncio.gather(*(listing.page("", 0) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in failed)
