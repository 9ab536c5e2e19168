"""GetCapacity promises only what CreateVolume can make, to the byte."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rds_csi.controller.service import Controller, ControllerSettings
from rds_csi.csi import v1 as csi
from rds_csi.errors import DriverError, PoolFull
from rds_csi.model.parameters import VolumeParameters
from rds_csi.model.volume import (
    GIB,
    MAXIMUM_SIZE,
    MIB,
    MINIMUM_SIZE,
    MINIMUM_XFS,
    TIB,
    largest_size,
    volume_id,
)
from rds_csi.routeros import Disks

from .calls import block, create, delete, expand, mount
from .conftest import BASE, CLUSTER, OWNER, PREFIX, Rds

KINDS = {"ext4": mount(), "xfs": mount("xfs"), "block": block()}
RESERVE = 5 * GIB + 12345


async def asked(controller: Controller, *wanted: csi.VolumeCapability) -> csi.GetCapacityResponse:
    return await controller.get_capacity(csi.GetCapacityRequest(volume_capabilities=list(wanted)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reserve", [0, RESERVE])
async def test_what_is_promised_can_be_made_and_no_mebibyte_more(
    rds: Rds, kind: str, reserve: int
) -> None:
    controller = Controller(
        Disks(rds.session(), owner=OWNER, base_path=BASE, reserve=reserve),
        ControllerSettings(
            owner=OWNER,
            cluster_id=CLUSTER,
            nqn_prefix=PREFIX,
            defaults=VolumeParameters(nvme_addresses=("10.0.0.5",), volume_path=BASE),
            reserve=reserve,
        ),
    )
    for free in (
        *(0, 1, MIB - 1, MINIMUM_SIZE - 1, MINIMUM_SIZE, MINIMUM_SIZE + 1, MINIMUM_SIZE + MIB - 1),
        *(MINIMUM_XFS - 1, MINIMUM_XFS, MINIMUM_XFS + 1, GIB - 1, 7 * GIB + 123457),
    ):
        rds.simulator.fill_pool("raid10", free=reserve + free)
        reply = await asked(controller, KINDS[kind])
        assert reply.maximum_volume_size == reply.available_capacity
        room = csi.CapacityRange(required_bytes=reply.available_capacity or 1)
        if not reply.available_capacity:
            assert free < (MINIMUM_XFS if kind == "xfs" else MINIMUM_SIZE)
            with pytest.raises(DriverError):
                await create(controller, capacity_range=room, volume_capabilities=[KINDS[kind]])
            continue
        more = csi.CapacityRange(required_bytes=reply.available_capacity + 1)
        with pytest.raises(DriverError):
            await create(controller, capacity_range=more, volume_capabilities=[KINDS[kind]])
        for wanted in (room, csi.CapacityRange(required_bytes=reply.minimum_volume_size or 0)):
            volume = await create(
                controller, capacity_range=wanted, volume_capabilities=[KINDS[kind]]
            )
            assert volume.capacity_bytes == wanted.required_bytes
            await delete(controller, volume.volume_id)


async def test_what_was_promised_is_no_room_although_it_is_free(rds: Rds) -> None:
    """Files that take no space until it is written: as after nodes have trimmed all of them."""
    rds.simulator.quirks.preallocate = False
    controller = rds.controller()
    whole = rds.simulator.free("raid10")
    await create(controller, "pvc-ours", capacity_range=csi.CapacityRange(required_bytes=6 * TIB))
    # Another cluster's, and nobody's.
    rds.simulator.make_directory("raid10/other")
    for slot, file, size in (("theirs", "other/theirs.img", 5 * TIB), ("swap", "swap", TIB)):
        said = await rds.simulator.run(
            f'/disk/add type=file slot={slot} file-path="raid10/{file}" file-size={size}'
        )
        assert said == ""
    assert rds.simulator.free("raid10") == whole
    room = whole - 12 * TIB
    reply = await asked(controller)
    assert reply.available_capacity == room // MIB * MIB
    found = await rds.backend().capacity(BASE)
    assert (found.free, found.promised, found.room) == (whole, 12 * TIB, room)
    more = csi.CapacityRange(required_bytes=room + MIB)
    with pytest.raises(PoolFull, match=f"{room} bytes are free and promised to no volume"):
        await create(controller, "pvc-more", capacity_range=more)
    with pytest.raises(PoolFull, match=f"{room} bytes are free and promised to no volume"):
        await expand(controller, volume_id("pvc-ours"), 6 * TIB + room + MIB)
    grown = 6 * TIB + room // MIB * MIB
    assert await expand(controller, volume_id("pvc-ours"), grown) == grown
    assert (await asked(controller)).available_capacity == 0
    await delete(controller, volume_id("pvc-ours"))
    assert (await asked(controller)).available_capacity == (room + 6 * TIB) // MIB * MIB


async def test_more_promised_than_there_is_leaves_no_room(rds: Rds) -> None:
    rds.simulator.quirks.preallocate = False
    controller = rds.controller()
    await create(controller, capacity_range=csi.CapacityRange(required_bytes=10 * TIB))
    for each in rds.simulator.device.store.pools.values():
        each.size = 8 * TIB
    assert (await rds.backend().capacity(BASE)).room == 0
    assert (await asked(controller)).available_capacity == 0
    with pytest.raises(PoolFull, match=r"room: -\d+ bytes"):
        await create(controller, "pvc-more")


async def test_no_more_than_one_volume_can_have(rds: Rds) -> None:
    assert rds.simulator.free("raid10") == MAXIMUM_SIZE
    pool = rds.simulator.device.store.pools
    for each in pool.values():
        each.size = 4 * MAXIMUM_SIZE + 1
    reply = await asked(rds.controller(), mount())
    assert reply.available_capacity == reply.maximum_volume_size == MAXIMUM_SIZE


async def test_what_nobody_can_have_has_no_room(rds: Rds) -> None:
    reply = await asked(rds.controller(), mount("btrfs"))
    assert reply.available_capacity == reply.maximum_volume_size == 0


async def test_asked_for_no_use_in_particular(rds: Rds) -> None:
    rds.simulator.fill_pool("raid10", free=MINIMUM_SIZE + 5)
    reply = await asked(rds.controller())
    assert reply.available_capacity == reply.minimum_volume_size == MINIMUM_SIZE


@given(st.integers(-(2**64), 2**64), st.sampled_from([MINIMUM_SIZE, MINIMUM_XFS]))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_the_rule_for_any_room(room: int, minimum: int) -> None:
    size = largest_size(room, minimum)
    assert size % MIB == 0
    assert size == 0 or minimum <= size <= min(room, MAXIMUM_SIZE)
    bigger = size + MIB if size else minimum
    assert bigger > room or bigger > MAXIMUM_SIZE
