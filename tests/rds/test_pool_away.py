"""A pool that is not mounted, as while an RDS boots: what can be said then, and what cannot."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import OPEN, DriverError, PoolAway, Unavailable, VolumeNotFound
from rds_csi.model.volume import GIB, MIB
from rds_csi.routeros import Disks

from .calls import NODE_A, NODE_B, delete, expand, mount, publish, unpublish
from .calls import create as create_volume
from .conftest import BASE, Rds
from .volumes import LEGACY, SLOT, changes, create, path_of

POOL = "raid10"
SIZES = ("absent", "zero", "kept")


@pytest.fixture
async def disks(rds: Rds) -> Disks:
    """The backend on a connection that stands."""
    backend = rds.backend()
    await backend.system()
    return backend


@pytest.fixture
async def controller(rds: Rds) -> Controller:
    return rds.controller()


async def reboot_without_pool(rds: Rds) -> None:
    """The RDS boots, and its pool takes longer than its SSH service."""
    await rds.simulator.unmount_pool(POOL)
    await rds.simulator.reboot()


async def settled(attempt: Callable[[], Awaitable[object]]) -> object:
    """Call again while the connection is made anew, as a sidecar does."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await attempt()
            except PoolAway:
                raise
            except Unavailable:
                await asyncio.sleep(0.05)


# Delete


async def test_a_file_left_by_a_crash_is_not_taken_for_gone_because_its_pool_is(
    rds: Rds, disks: Disks
) -> None:
    """The crash was that of the RDS: between disk and file, and its pool is not up again yet."""
    await create(disks)
    await rds.simulator.run(f'/disk/remove [find where slot="{SLOT}"]')
    await rds.simulator.unmount_pool(POOL)
    with pytest.raises(PoolAway, match="raid10 is not mounted"):
        await disks.delete(SLOT)
    await rds.simulator.mount_pool(POOL)
    assert rds.files() == [path_of(SLOT)]
    await disks.delete(SLOT)
    assert rds.files() == []


@pytest.mark.parametrize("size", SIZES)
async def test_a_disk_is_not_removed_while_its_file_cannot_be(
    rds: Rds, disks: Disks, size: str
) -> None:
    """With the disk gone nobody would know any more where the file was."""
    rds.simulator.quirks.set("size-without-file", size)
    await create(disks)
    before = changes(rds)
    await rds.simulator.unmount_pool(POOL)
    with pytest.raises(PoolAway, match="raid10 is not mounted"):
        await disks.delete(SLOT)
    assert changes(rds) == before
    assert rds.slots() == [SLOT]
    await rds.simulator.mount_pool(POOL)
    await disks.delete(SLOT)
    assert rds.slots() == rds.files() == []


async def test_a_pool_that_goes_away_during_the_delete_makes_it_no_success(
    rds: Rds, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(disks)
    device = rds.simulator.device
    original = device.remove_disk

    async def and_away(disk: object) -> None:
        await original(disk)  # type: ignore[arg-type]
        await rds.simulator.unmount_pool(POOL)

    monkeypatch.setattr(device, "remove_disk", and_away)
    with pytest.raises(PoolAway, match="raid10 is not mounted"):
        await disks.delete(SLOT)
    await rds.simulator.mount_pool(POOL)
    assert rds.files() == [path_of(SLOT)]
    await disks.delete(SLOT)
    assert rds.files() == []


async def test_a_disk_whose_file_is_lost_can_be_deleted(rds: Rds, disks: Disks) -> None:
    """Its pool is mounted, so that there is no such file is a fact."""
    await create(disks)
    rds.simulator.path(path_of(SLOT)).unlink()
    await disks.delete(SLOT)
    assert rds.slots() == []


async def test_a_delete_repeated_is_fine_on_a_pool_that_is_mounted(rds: Rds, disks: Disks) -> None:
    await create(disks)
    await disks.delete(SLOT)
    await disks.delete(SLOT)
    await disks.delete(LEGACY)
    assert rds.files() == []


async def test_the_file_of_a_go_drivers_volume_left_by_a_crash_is_removed(
    rds: Rds, disks: Disks
) -> None:
    """Exactly the file that driver made, and nothing that is merely called alike."""
    rds.simulator.make_directory(f"{BASE}/sub")
    rds.simulator.make_directory("raid10/other")
    await rds.add_disk(LEGACY)
    await rds.simulator.run(f'/disk/remove [find where slot="{LEGACY}"]')
    others = [
        f"{BASE}/{LEGACY}.img.bak",
        f"{BASE}/x{LEGACY}.img",
        f"{BASE}/sub/{LEGACY}.img",
        f"raid10/other/{LEGACY}.img",
        f"{LEGACY}.img",
    ]
    for other in others:
        rds.simulator.path(other).write_bytes(b"theirs")
    before = rds.execs()
    await disks.delete(LEGACY)
    assert rds.execs() - before == 1
    assert rds.files() == sorted(others)


async def test_the_file_of_a_go_drivers_volume_stays_while_a_disk_uses_it(
    rds: Rds, disks: Disks
) -> None:
    await rds.add_disk(LEGACY)
    await rds.simulator.run(f'/disk/remove [find where slot="{LEGACY}"]')
    await rds.simulator.run(f'/disk/add type=file slot="iso" file-path="{BASE}/{LEGACY}.img"')
    with pytest.raises(DriverError, match="another disk on the RDS uses its file"):
        await disks.delete(LEGACY)
    assert rds.files() == [f"{BASE}/{LEGACY}.img"]


async def test_no_other_volumes_file_is_taken_for_a_go_drivers(rds: Rds, disks: Disks) -> None:
    await create(disks)
    rds.simulator.path(f"{BASE}/{SLOT}.img").write_bytes(b"theirs")
    await disks.delete(LEGACY)
    await disks.delete(SLOT)
    assert rds.files() == [f"{BASE}/{SLOT}.img"]


# A disk without a size


@pytest.mark.parametrize("size", SIZES)
async def test_after_a_boot_without_the_pool_everything_is_told_or_asked_again(
    rds: Rds, size: str
) -> None:
    rds.simulator.quirks.set("size-without-file", size)
    controller = rds.controller()
    volume = await create_volume(controller)
    other = await create_volume(controller, "other")
    await publish(controller, volume)
    await reboot_without_pool(rds)
    controller = rds.controller()
    shown = 0 if size != "kept" else 64 * MIB

    listed = await rds.eventually(lambda: controller.list_volumes(csi.ListVolumesRequest()))
    ids = [entry.volume.volume_id for entry in listed.entries if entry.volume]
    assert ids == sorted([volume.volume_id, other.volume_id])
    assert {entry.volume.capacity_bytes for entry in listed.entries if entry.volume} == {shown}
    found = await controller.controller_get_volume(
        csi.ControllerGetVolumeRequest(volume_id=volume.volume_id)
    )
    assert found.status is not None
    assert found.status.published_node_ids == [NODE_A]
    if not shown:
        ill = await controller.controller_list_volume_health(
            csi.ControllerListVolumeHealthRequest()
        )
        reasons = {
            (entry.volume_id, status.reason, "shows no size" in status.message)
            for entry in ill.entries
            for status in entry.health_statuses
        }
        assert (volume.volume_id, "BackingFileUnavailable", True) in reasons
        assert (other.volume_id, "BackingFileUnavailable", True) in reasons

    await unpublish(controller, volume)
    assert rds.disk(volume.volume_id).record is not None
    assert rds.disk(volume.volume_id).record.nodes == ()  # type: ignore[union-attr]
    assert not rds.disk(volume.volume_id).exported

    await rds.simulator.mount_pool(POOL)
    assert await expand(controller, volume.volume_id, 128 * MIB) == 128 * MIB
    await publish(controller, volume, NODE_B)


Attempt = Callable[[Controller, csi.Volume], Awaitable[object]]
ATTEMPTS: dict[str, Attempt] = {
    "create": lambda controller, _volume: create_volume(controller),
    "create another": lambda controller, _volume: create_volume(controller, "new"),
    "publish": publish,
    "expand": lambda controller, volume: expand(controller, volume.volume_id, GIB),
    "delete": lambda controller, volume: delete(controller, volume.volume_id),
    "capacity": lambda controller, _volume: controller.get_capacity(csi.GetCapacityRequest()),
}


@pytest.mark.parametrize("size", ["absent", "zero"])
@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_what_needs_the_pool_is_asked_for_again_and_works_when_it_is_back(
    rds: Rds, attempt: str, size: str
) -> None:
    """No final code: the provisioner would forget the volume, the resizer wait for its pods."""
    rds.simulator.quirks.set("size-without-file", size)
    controller = rds.controller()
    volume = await create_volume(controller)
    before = rds.disk(volume.volume_id)
    await reboot_without_pool(rds)
    for each in (controller, rds.controller()):
        with pytest.raises(DriverError) as caught:
            await settled(partial(ATTEMPTS[attempt], each, volume))
        assert isinstance(caught.value, PoolAway)
        assert caught.value.code in OPEN
    assert rds.disk(volume.volume_id) == before
    assert not rds.disk(volume.volume_id).exported, "never exported over a file out of reach"
    await rds.simulator.mount_pool(POOL)
    await ATTEMPTS[attempt](controller, volume)


async def test_a_second_node_of_a_volume_out_of_reach_is_not_told_a_size(
    rds: Rds, controller: Controller
) -> None:
    mode = csi.VolumeCapabilityAccessModeMode.MULTI_NODE_READER_ONLY
    volume = await create_volume(controller, volume_capabilities=[mount(mode=mode)])
    await publish(controller, volume, volume_capability=mount(mode=mode))
    await rds.simulator.unmount_pool(POOL)
    with pytest.raises(PoolAway):
        await publish(controller, volume, NODE_B, volume_capability=mount(mode=mode))
    await rds.simulator.mount_pool(POOL)
    context = await publish(controller, volume, NODE_B, volume_capability=mount(mode=mode))
    assert context["size"] == str(64 * MIB)


async def test_a_pool_that_is_gone_is_no_reason_to_wait_until_no_pod_uses_the_claim(
    rds: Rds, disks: Disks
) -> None:
    """The resizer takes FAILED_PRECONDITION for "not while it is in use"."""
    await create(disks)
    [pool] = rds.simulator.device.store.pools.values()
    rds.simulator.device.store.rename(pool, "broken")
    pool.mount_point = "broken"
    rds.simulator.quirks.size_without_file = "kept"
    for attempt in (disks.expand(SLOT, GIB), disks.delete(SLOT)):
        with pytest.raises(PoolAway, match="has no disk raid10, the pool of the volume"):
            await attempt


async def test_a_volume_that_does_not_exist_is_not_found_all_the_same(
    rds: Rds, controller: Controller
) -> None:
    await rds.simulator.unmount_pool(POOL)
    with pytest.raises(VolumeNotFound):
        await expand(controller, SLOT, GIB)
