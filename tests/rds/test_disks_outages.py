"""What an operation says when the RDS goes away under it, and that repeating it converges."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from rds_csi.errors import (
    NotAuthorised,
    OutcomeUnknown,
    RouterOSError,
    Unavailable,
    UnsupportedRouterOS,
    VolumeNotFound,
)
from rds_csi.model.volume import MIB
from rds_csi.routeros import Disks

from .conftest import BASE, OWNER, Rds
from .volumes import SLOT, create, path_of, record

LOST = ("drop-before", "drop-after", "truncate")
MUTATIONS: dict[str, Callable[[Disks], Awaitable[object]]] = {
    "create": create,
    "publish": lambda disks: disks.change(
        SLOT, record().encode(), record("one", "a"), exported=True
    ),
    "expand": lambda disks: disks.expand(SLOT, 128 * MIB),
    "delete": lambda disks: disks.delete(SLOT),
}
READS: dict[str, Callable[[Disks], Awaitable[object]]] = {
    "get": lambda disks: disks.get(SLOT),
    "list": lambda disks: disks.list(),
    "capacity": lambda disks: disks.capacity(BASE),
    "system": lambda disks: disks.system(),
}


async def prepared(rds: Rds, operation: str) -> Disks:
    disks = rds.backend()
    await disks.system()
    if operation != "create":
        await create(disks)
    return disks


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("operation", MUTATIONS)
async def test_a_lost_reply_is_unknown_and_the_repeat_converges(
    rds: Rds, operation: str, kind: str
) -> None:
    disks = await prepared(rds, operation)
    before = rds.execs()
    rds.simulator.faults.add(kind)  # type: ignore[arg-type]
    with pytest.raises(OutcomeUnknown) as caught:
        await MUTATIONS[operation](disks)
    assert rds.execs() - before == 1, "a mutation is sent once"
    assert caught.value.volume == SLOT
    await rds.eventually(lambda: MUTATIONS[operation](disks))
    if operation == "delete":
        assert rds.slots() == rds.files() == []
    else:
        assert rds.slots() == [SLOT]
        assert rds.files() == [path_of(SLOT)]
        disk = rds.disk(SLOT)
        assert disk.size == (128 if operation == "expand" else 64) * MIB
        assert disk.exported == (operation == "publish")
    assert rds.simulator.device.hazards == []


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("operation", READS)
async def test_a_read_is_repeated_by_itself(rds: Rds, operation: str, kind: str) -> None:
    disks = await prepared(rds, operation)
    rds.simulator.faults.add(kind)  # type: ignore[arg-type]
    await READS[operation](disks)


@pytest.mark.parametrize("operation", READS)
async def test_a_read_that_stays_lost_is_unavailable_and_never_not_found(
    rds: Rds, operation: str
) -> None:
    disks = await prepared(rds, operation)
    rds.simulator.faults.add("drop-before", count=0)
    with pytest.raises(Unavailable) as caught:
        await READS[operation](disks)
    assert not isinstance(caught.value, VolumeNotFound)


@pytest.mark.parametrize("kind", ["garbage", "invalid-utf8", "no-exit-status"])
@pytest.mark.parametrize("operation", ["create", "delete"])
async def test_a_strange_reply_is_either_proof_or_unknown(
    rds: Rds, operation: str, kind: str
) -> None:
    disks = await prepared(rds, operation)
    rds.simulator.faults.add(kind)  # type: ignore[arg-type]
    with contextlib.suppress(OutcomeUnknown, RouterOSError):
        await MUTATIONS[operation](disks)
    await rds.eventually(lambda: MUTATIONS[operation](disks))
    assert rds.slots() == ([SLOT] if operation == "create" else [])


@pytest.mark.parametrize("kind", ["stall-before", "stall-after"])
async def test_a_stalled_rds_costs_the_callers_time_and_nothing_else(rds: Rds, kind: str) -> None:
    disks = await prepared(rds, "create")
    rds.simulator.faults.add(kind)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await create(disks)
    made, existed = await create(disks)
    assert existed == (kind == "stall-after")
    assert made.size == 64 * MIB


async def test_changes_of_one_slot_run_in_the_order_of_the_calls(rds: Rds) -> None:
    disks = await prepared(rds, "create")
    rds.simulator.quirks.latency = 0.02
    results = await asyncio.gather(
        create(disks),
        disks.expand(SLOT, 128 * MIB),
        disks.change(SLOT, record().encode(), record("one", "a"), exported=True),
        disks.change(SLOT, record("one", "a").encode(), record(), exported=False),
        disks.delete(SLOT),
        return_exceptions=True,
    )
    assert [each for each in results if isinstance(each, BaseException)] == []
    assert rds.slots() == rds.files() == []
    assert disks._writers == {}


async def test_changes_of_different_slots_run_side_by_side(rds: Rds) -> None:
    disks = await prepared(rds, "create")
    rds.simulator.quirks.latency = 0.5
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(create(disks, name) for name in "abcd"))
    assert asyncio.get_running_loop().time() - started < 1.9


async def test_an_rds_that_is_down_is_unavailable_and_heals(rds: Rds) -> None:
    disks = rds.backend()
    await rds.stop()
    for operation in (*MUTATIONS.values(), *READS.values()):
        with pytest.raises(Unavailable) as caught:
            await operation(disks)
        assert not isinstance(caught.value, OutcomeUnknown), "nothing was sent"
    await rds.start()
    await rds.eventually(lambda: create(disks))


async def test_a_reboot_is_survived(rds: Rds) -> None:
    disks = await prepared(rds, "publish")
    await rds.simulator.reboot()
    disk = await rds.eventually(lambda: disks.get(SLOT))
    assert disk.record == record()


async def test_a_refused_key_is_not_a_missing_volume(rds: Rds) -> None:
    disks = rds.backend()
    rds.simulator.faults.refuse_auth = True
    for operation in (*MUTATIONS.values(), *READS.values()):
        with pytest.raises(NotAuthorised):
            await operation(disks)


async def test_an_upgrade_is_noticed_at_the_next_connection(rds: Rds) -> None:
    disks = rds.backend()
    rds.simulator.set_version("7.20.9")
    with pytest.raises(UnsupportedRouterOS, match=r"7\.20"):
        await disks.list()
    rds.simulator.set_version("7.24")
    async with asyncio.timeout(10):
        while True:
            try:
                assert await disks.list() == []
                break
            except UnsupportedRouterOS:
                await asyncio.sleep(0.1)


async def test_a_disk_that_was_made_but_not_confirmed_is_not_a_final_failure(rds: Rds) -> None:
    disks = await prepared(rds, "create")
    rds.simulator.faults.add(
        "runtime-error", text="action failed (6)", command="/disk/print", after="/disk/add"
    )
    with pytest.raises(OutcomeUnknown, match=r"whether it was done is not known: .*action failed"):
        await create(disks)
    assert (await create(disks))[1]


@pytest.mark.parametrize("answer", ["answer", "refuse"])
async def test_a_refused_keepalive_is_a_sign_of_life_too(
    rds: Rds, answer: Literal["answer", "refuse"]
) -> None:
    rds.simulator.quirks.keepalive = answer
    session = rds.session(keepalive_interval=0.3, keepalive_count=2)
    disks = Disks(session, owner=OWNER, base_path=BASE)
    await disks.list()
    await asyncio.sleep(1.5)
    await disks.list()
    assert session.statistics.connects == 1
