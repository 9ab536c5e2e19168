"""What a map's way is, and when the healer has no right to it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rds_csi.errors import CommandFailed
from rds_csi.node.ways import Way, barred, judge
from rds_csi.runtime.process import Result
from tests.unit.fakes.device_mapper import FakeTable
from tests.unit.node.mapped_host import ADDRESS, OTHER, SIZE, VOLUME, MappedHost, nqn, sectors


@pytest.fixture
def host(tmp_path: Path) -> MappedHost:
    return MappedHost(tmp_path)


async def test_a_path_that_works_to_a_live_device_is_a_way(host: MappedHost) -> None:
    await host.staged()
    assert await host.way() is Way.WELL
    (seen,) = await host.sight.all()
    assert judge(seen, [ADDRESS]) == (Way.WELL, "")


async def test_what_the_kernel_gave_up_is_lost_although_its_path_has_not_failed(
    host: MappedHost,
) -> None:
    """No I/O, no failure: the kernel calls the path of a device that is gone active."""
    await host.staged()
    host.lose()
    host.map().active.lost.clear()  # type: ignore[union-attr]
    assert await host.way() is Way.LOST


async def test_a_path_that_failed_over_a_live_device_is_lost(host: MappedHost) -> None:
    """Without native multipath a request fails into the map, and the device stays."""
    await host.staged()
    active = host.map().active
    assert active is not None
    active.lost.update(active.paths)
    assert await host.way() is Way.LOST
    (seen,) = await host.sight.all()
    assert judge(seen, [ADDRESS])[0] is Way.LOST


async def test_a_device_that_is_only_loaded_is_no_way(host: MappedHost) -> None:
    """The healer was killed between two commands."""
    await host.staged()
    host.lose()
    await host.connected_again()
    host.map().active.lost.clear()  # type: ignore[union-attr]
    host.map().loaded = FakeTable(sectors(SIZE), [host.connections[nqn()].devno], queues=True)
    assert await host.way() is Way.LOST


async def test_a_suspended_map_has_no_way(host: MappedHost) -> None:
    await host.staged()
    seen = await host.seen()
    assert judge(replace(seen, map=replace(seen.map, suspended=True)), [])[0] is Way.LOST


async def test_what_the_kernel_is_at_is_left_to_it(host: MappedHost) -> None:
    await host.staged()
    host.states[nqn()] = "connecting"
    assert await host.way() is Way.KERNEL
    host.at[nqn()] = "10.9.9.9"
    assert await host.way() is Way.MOVED
    host.states[nqn()] = "deleting (no IO)"
    assert await host.way() is Way.KERNEL


async def test_a_live_connection_at_an_old_address_is_a_way(host: MappedHost) -> None:
    await host.staged()
    host.at[nqn()] = "10.9.9.9"
    assert await host.way() is Way.WELL


async def test_a_connection_without_a_device_is_empty(host: MappedHost) -> None:
    await host.staged()
    host.hide(nqn())
    assert await host.way() is Way.EMPTY


async def test_another_host_identitys_connection_is_no_way(host: MappedHost) -> None:
    await host.staged()
    seen = await host.seen()
    host.sight._host_nqn = "nqn.2014-08.org.nvmexpress:uuid:somebody-else"
    assert (await host.seen()).controllers == ()
    assert seen.controllers != ()
    assert await host.way() is Way.LOST


async def test_a_way_is_one_also_without_a_record(host: MappedHost) -> None:
    """The map says in whose name it was made: health does not call wrong what works."""
    await host.staged()
    await host.store.delete(VOLUME)
    assert await host.way() is Way.WELL
    (seen,) = await host.sight.all()
    assert judge(seen, []) == (Way.WELL, "")
    host.lose()
    assert await host.way() is Way.BARRED
    assert "no staging record" in barred(await host.seen())


async def test_without_a_record_another_generations_connection_is_no_way(host: MappedHost) -> None:
    await host.staged()
    await host.store.delete(VOLUME)
    found = await host.found()
    host.rds[nqn(generation=2)] = host.rds[nqn()]
    await host.connected_again(generation=2)
    host.lose()
    seen = await host.seen()
    assert (seen.map.identity, seen.controllers) == (found.identity, ())
    assert await host.way() is Way.BARRED


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"nqn": nqn(generation=2)}, "staging record names"),
        ({"nqn": nqn(OTHER)}, "staging record names"),
        ({"staging_path": ""}, "no staging record"),
        ({"superseded": 2}, "handed over since"),
        ({"uuid": ""}, "which file system"),
    ],
)
async def test_what_is_not_proven_by_its_record_is_barred(
    host: MappedHost, record: dict[str, Any], why: str
) -> None:
    await host.staged(**record)
    host.lose()
    assert await host.way() is Way.BARRED
    assert why in barred(await host.seen())


async def test_a_raw_block_volume_needs_no_file_system_on_record(host: MappedHost) -> None:
    await host.staged(fs_type="", uuid="")
    host.lose()
    assert await host.way() is Way.LOST


async def test_a_name_without_a_generation_could_be_another_holders(host: MappedHost) -> None:
    await host.staged(generation=0)
    host.lose(generation=0)
    assert "no generation" in barred(await host.seen())


async def test_without_a_record_nothing_is_healed(host: MappedHost) -> None:
    await host.staged()
    host.lose()
    await host.store.delete(VOLUME)
    assert "no staging record" in barred(await host.seen())


async def test_two_maps_of_a_volume_are_nobodys(host: MappedHost) -> None:
    await host.staged(generation=1)
    await host.staged(generation=2)
    host.lose(generation=2)
    for seen in await host.sight.all():
        assert "more than one map" in barred(seen)
    assert (await host.seen()).map.identity.generation == 2


async def test_what_is_barred_and_well_is_left_alone(host: MappedHost) -> None:
    await host.staged(superseded=2)
    assert await host.way() is Way.WELL


async def test_no_map_no_program(host: MappedHost) -> None:
    assert await host.sight.all() == []
    assert await host.sight.at(VOLUME) is None
    assert host.calls == []


async def test_a_map_that_goes_away_is_none(host: MappedHost) -> None:
    await host.staged()
    host.refusals["dmsetup"] = Result(1, "", "No such device or address")
    with pytest.raises(CommandFailed):
        await host.sight.at(VOLUME)
    found = await host.found()
    host.steps.at = "after dmsetup"
    host.steps.then = lambda: host.mapper._hide(host.mapper.maps.pop(found.devno[1]))
    assert await host.sight.at(VOLUME) is None


async def test_a_status_that_is_not_ours_is_no_way(host: MappedHost) -> None:
    await host.staged()
    (seen,) = await host.sight.all()
    assert judge(replace(seen, status=None), [ADDRESS])[0] is Way.LOST
