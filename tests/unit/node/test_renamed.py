"""An export has another name after each hand-over: the node goes by the one the attach tells.

What is frozen in the PersistentVolume is the plain name, which nobody answers to by then.
"""

from dataclasses import replace

import pytest

from rds_csi.errors import FailedPrecondition
from rds_csi.model.volume import export_nqn
from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import SIZE, VOLUME, Calls

PREFIX = "nqn.2000-02.com.mikrotik"
KINDS = pytest.mark.parametrize("kind", ["ext4", "xfs", "block"])


def name(generation: int) -> str:
    return export_nqn(PREFIX, VOLUME, generation)


def volume(host: FakeHost, kind: str) -> Calls:
    """A volume of the kind on the RDS, exported to nobody."""
    block = kind == "block"
    calls = Calls(host=host, block=block, fs_type="" if block else kind)
    calls.create("blank")
    return calls


def attach(calls: Calls, generation: int, nqn: str = "") -> Calls:
    """The calls after a hand-over: the export has that name and no other."""
    (before,) = calls.host.rds
    nqn = nqn or name(generation)
    calls.host.rds = {nqn: calls.host.rds[before]}
    address = {"nvmeAddress": "10.0.0.1", "nvmePort": "4420", "nqn": nqn}
    told = {**address, "size": str(SIZE), "generation": str(generation)}
    return calls.but(published=told)


async def stage(calls: Calls) -> None:
    """As the kubelet does: both contexts, and the name in the frozen one is the plain one."""
    request = calls.stage_request()
    frozen = {"nqn": name(0), "nvmePort": "4420", "ctrlLossTmo": "-1"}
    await calls.host.node().node_stage_volume(replace(request, volume_context=frozen))


def connected(host: FakeHost) -> list[str]:
    return sorted(host.connections)


@KINDS
async def test_a_whole_life_under_the_name_of_the_attach(host: FakeHost, kind: str) -> None:
    plain = volume(host, kind)
    for generation in (1, 2, 3):
        calls = attach(plain, generation)
        await stage(calls)
        await calls.publish()
        assert connected(host) == [name(generation)]
        assert await calls.health() == []
        assert await calls.expand(SIZE) == SIZE
        assert (await calls.stats())[0].total > 0
        # A restarted driver finds all of it again.
        await stage(calls)
        await calls.publish()
        await calls.unpublish()
        await calls.unstage()
        assert host.leaks() == []


@KINDS
async def test_what_is_in_use_by_an_older_name_is_given_to_nobody(
    host: FakeHost, kind: str
) -> None:
    first = attach(volume(host, kind), 1)
    await stage(first)
    await first.publish()
    again = attach(first, 3)
    for call in (stage(again), again.publish(), again.but(target_name="another").publish()):
        with pytest.raises(FailedPrecondition, match="stop the pods that use it on this node"):
            await call
    assert connected(host) == [name(1)]
    assert [each.reason for each in await again.health()] == ["StaleGeneration"]
    await again.unpublish()
    await again.unstage()
    assert host.leaks() == []
    await stage(again)
    await again.publish()
    assert connected(host) == [name(3)]


async def test_an_idle_connection_of_an_older_name_is_taken_down_first(host: FakeHost) -> None:
    """Its kernel would ask for that name for ever."""
    first = attach(volume(host, "block"), 1)
    await stage(first)
    again = attach(first, 2)
    with pytest.raises(FailedPrecondition, match="stop the pods"):
        await again.publish()
    await stage(again)
    await again.publish()
    assert connected(host) == [name(2)]


@KINDS
async def test_a_volume_of_before_such_names_goes_on_and_gets_one_later(
    host: FakeHost, kind: str
) -> None:
    old = attach(volume(host, kind), 1, name(0))
    await stage(old)
    await old.publish()
    # The node plugin is newer now, the volume is not handed over.
    await stage(old)
    await old.publish()
    assert connected(host) == [name(0)]
    await old.unpublish()
    await old.unstage()
    new = attach(old, 2)
    await stage(new)
    await new.publish()
    assert connected(host) == [name(2)]


async def test_a_volume_that_is_not_connected_at_all_is_not_staged(host: FakeHost) -> None:
    calls = attach(volume(host, "ext4"), 2)
    with pytest.raises(FailedPrecondition, match="it is not staged: not connected"):
        await calls.publish()
