"""What was connected and mounted under an older hand-over is given to nobody, and not changed."""

import json

import pytest

from rds_csi.errors import FailedPrecondition, InvalidRequest, VolumeInUse
from rds_csi.model.access import AccessMode
from tests.unit.fakes.node_host import FakeHost, SteppedStore
from tests.unit.node.calls import SIZE, VOLUME, Calls, nqn, reboot

KINDS = pytest.mark.parametrize("kind", ["ext4", "xfs", "block"])


def volume(host: FakeHost, kind: str, generation: int | None = 1) -> Calls:
    """A volume of the kind on the RDS, as it is attached first."""
    block = kind == "block"
    calls = Calls(host=host, block=block, fs_type="" if block else kind, generation=generation)
    calls.create("blank" if block else kind)
    return calls


def record(host: FakeHost) -> dict[str, object]:
    found = json.loads((host.state / f"{VOLUME}.json").read_text())
    assert isinstance(found, dict)
    return found


def look(host: FakeHost) -> tuple[object, ...]:
    """Everything on the node but what is on record."""
    return (
        host.table.path.read_bytes(),
        {name: (each.name, each.size) for name, each in host.connections.items()},
        sorted(host.kubelet.rglob("*")),
        [(disk.fs_size, disk.content) for disk in host.rds.values()],
    )


async def refused(calls: Calls, *, stage: bool = True, publish: bool = True) -> None:
    """Both calls are refused, say what to do, and run no program that changes anything."""
    before = look(calls.host)
    calls.host.calls.clear()
    for call, wanted in ((calls.stage, stage), (calls.publish, publish)):
        if wanted:
            with pytest.raises(FailedPrecondition, match="stop the pods that use it on this node"):
                await call()
    assert look(calls.host) == before
    assert calls.host.calls == []


async def taken_down_and_used_anew(calls: Calls) -> None:
    """The kubelet's way out of a refusal."""
    (old,) = (each.name for each in calls.host.connections.values())
    await calls.unpublish()
    await calls.unstage()
    assert calls.host.leaks() == []
    await calls.stage()
    await calls.publish()
    (new,) = (each.name for each in calls.host.connections.values())
    assert new != old
    assert await calls.health() == []


@KINDS
@pytest.mark.parametrize("generation", [0, 1])
async def test_a_publication_of_an_older_generation_is_not_given_back(
    host: FakeHost, kind: str, generation: int
) -> None:
    calls = volume(host, kind, generation)
    await calls.stage()
    await calls.publish()
    later = calls.but(generation=3)
    await refused(later)
    await refused(later.but(target_name="another"))
    await taken_down_and_used_anew(later)
    assert record(host)["generation"] == 3


@KINDS
async def test_a_staged_volume_of_an_older_generation_is_not_published(
    host: FakeHost, kind: str
) -> None:
    calls = volume(host, kind)
    await calls.stage()
    later = calls.but(generation=3)
    await refused(later, stage=kind != "block")
    assert not later.target_path.exists()
    await taken_down_and_used_anew(later)


@KINDS
async def test_a_connection_of_an_older_generation_that_nothing_uses_is_made_anew(
    host: FakeHost, kind: str
) -> None:
    calls = volume(host, kind)
    await calls.stage()
    if kind != "block":
        host.table.run(["umount", str(calls.stage_path)])
    await calls.but(generation=3).stage()
    assert host.connections[nqn(VOLUME)].name == "nvme2n1"
    assert record(host)["generation"] == 3
    await calls.but(generation=3).publish()


@pytest.mark.looptime
@KINDS
async def test_what_is_held_out_of_sight_keeps_its_connection(host: FakeHost, kind: str) -> None:
    calls = volume(host, kind)
    await calls.stage()
    if kind != "block":
        host.table.run(["umount", str(calls.stage_path)])
    host.claimed.add("nvme1n1")
    with pytest.raises(VolumeInUse, match="another mount namespace"):
        await calls.but(generation=3).stage()
    assert host.connections[nqn(VOLUME)].name == "nvme1n1"


@KINDS
@pytest.mark.parametrize("how", ["none", "unreadable", "of an older version"])
async def test_what_nobody_knows_the_generation_of_is_not_given_back(
    host: FakeHost, kind: str, how: str
) -> None:
    calls = volume(host, kind)
    await calls.stage()
    await calls.publish()
    path = host.state / f"{VOLUME}.json"
    if how == "none":
        path.unlink()
    elif how == "unreadable":
        path.write_bytes(b"{")
    else:
        old = record(host)
        del old["generation"], old["superseded"]
        path.write_text(json.dumps(old))
    await refused(calls)
    await taken_down_and_used_anew(calls)


@KINDS
async def test_an_idle_connection_that_nobody_recorded_is_made_anew(
    host: FakeHost, kind: str
) -> None:
    calls = volume(host, kind)
    host._plug(nqn(VOLUME))
    await calls.stage()
    assert host.connections[nqn(VOLUME)].name == "nvme2n1"


@KINDS
async def test_a_controller_that_does_not_count_is_served_as_ever(
    host: FakeHost, kind: str
) -> None:
    """Attached by an older controller: on a node that knows a generation, and on one that does not.

    What was known stays known: the same mount is refused once the controller counts again.
    """
    calls = volume(host, kind)
    await calls.stage()
    uncounted = calls.but(generation=None)
    await uncounted.stage()
    await uncounted.publish()
    assert record(host)["generation"] == 1
    await refused(calls.but(generation=2))
    await taken_down_and_used_anew(uncounted)
    assert record(host)["generation"] is None
    await uncounted.publish()
    await refused(calls)


@KINDS
async def test_a_volume_that_was_never_handed_over_goes_on_after_an_upgrade(
    host: FakeHost, kind: str
) -> None:
    """Attached before there were generations, and its attach repeated by a newer controller."""
    calls = volume(host, kind, None)
    await calls.stage()
    await calls.publish()
    await calls.but(generation=0).stage()
    await calls.but(generation=0).publish()
    assert record(host)["generation"] == 0
    await refused(calls.but(generation=1))


def of_an_older_plugin(host: FakeHost) -> None:
    """Its record, without what it does not know."""
    found = record(host)
    for name in ("generation", "superseded", "lost", "ungrown"):
        del found[name]
    (host.state / f"{VOLUME}.json").write_text(json.dumps(found))


@KINDS
async def test_an_upgrade_disturbs_no_running_pod(host: FakeHost, kind: str) -> None:
    """Attached and staged before; its attachment keeps the context without a number for good."""
    calls = volume(host, kind, None)
    await calls.stage()
    await calls.publish()
    of_an_older_plugin(host)
    await calls.stage()
    await calls.publish()
    second = calls.but(target_name="second")
    await second.publish()
    assert await calls.health() == []
    calls.disk.size = 2 * SIZE
    host.rescans_until_seen = 1
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    await second.unpublish()
    await taken_down_and_used_anew(calls.but(generation=1))


@KINDS
async def test_what_an_older_plugin_staged_runs_on_and_is_given_anew_once_unstaged(
    host: FakeHost, kind: str
) -> None:
    """The controller was upgraded first, or the node rolled back: the generation is not known."""
    calls = volume(host, kind, 3)
    await calls.stage()
    await calls.publish()
    of_an_older_plugin(host)
    assert await calls.health() == []
    assert await calls.stats()
    await refused(calls.but(target_name="second"))
    await taken_down_and_used_anew(calls)
    await calls.but(target_name="second").publish()


@KINDS
async def test_an_outdated_call_is_refused(host: FakeHost, kind: str) -> None:
    calls = volume(host, kind, 3)
    await calls.stage()
    await calls.publish()
    await refused(calls.but(generation=2))
    await calls.stage()
    await calls.publish()
    assert await calls.health() == []
    host.table.run(["umount", str(calls.target_path)])
    host.table.run(["umount", str(calls.stage_path)])
    await refused(calls.but(generation=2), publish=False)


@KINDS
async def test_a_record_that_a_reboot_left_refuses_no_restored_volume(
    host: FakeHost, kind: str
) -> None:
    """The RDS was restored from a backup, and counts from there: no unstage would ever come."""
    calls = volume(host, kind, 15)
    await calls.stage()
    await calls.publish()
    reboot(host)
    restored = calls.but(generation=13)
    await restored.stage()
    await restored.publish()
    assert record(host)["generation"] == 13
    assert await restored.health() == []
    await refused(calls)


@KINDS
async def test_once_a_later_generation_is_known_the_older_call_is_outdated(
    host: FakeHost, kind: str
) -> None:
    calls = volume(host, kind)
    await calls.stage()
    await calls.publish()
    await refused(calls.but(generation=3))
    await refused(calls)
    await taken_down_and_used_anew(calls.but(generation=3))


@pytest.mark.parametrize("kind", ["ext4", "block"])
async def test_health_says_it_and_nothing_grows(host: FakeHost, kind: str) -> None:
    calls = volume(host, kind)
    await calls.stage()
    await calls.publish()
    await refused(calls.but(generation=3))
    (found,) = await calls.health()
    assert (found.status.name, found.reason) == ("DEGRADED", "StaleGeneration")
    assert "generation 1" in found.message
    assert "stop the pods" in found.message
    calls.disk.size = 2 * SIZE
    with pytest.raises(FailedPrecondition, match=r"not grown.*stop the pods"):
        await calls.expand(2 * SIZE)
    assert host.connections[nqn(VOLUME)].size == SIZE
    assert calls.disk.fs_size == (SIZE if kind == "ext4" else 0)
    assert await calls.stats(), "it can be measured as ever"


async def test_a_refusal_does_not_depend_on_its_being_noted(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = volume(host, "ext4")
    await calls.stage()

    async def full(_store: object, _staged: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(SteppedStore, "write", full)
    await refused(calls.but(generation=3))


async def test_readers_that_join_share_a_generation(host: FakeHost) -> None:
    calls = volume(host, "ext4").but(mode=AccessMode.MULTI_NODE_READER_ONLY)
    for _ in range(2):
        await calls.stage()
        await calls.publish()
    assert len(host.table.points()) == 2


async def test_the_mark_of_a_format_is_of_no_generation(host: FakeHost) -> None:
    """What is kept of it beyond the stage must not make a later call an outdated one."""
    calls = volume(host, "ext4", 7)
    calls.create("blank")
    host.steps.stop = 0
    original = host._mkfs

    async def broken(device: str, command: list[str]) -> object:
        calls.disk.content = "half"
        raise FailedPrecondition("mkfs was cut off")

    host._mkfs = broken  # type: ignore[method-assign,assignment]
    with pytest.raises(FailedPrecondition, match="cut off"):
        await calls.stage()
    assert record(host)["formatting"]
    assert record(host)["generation"] is None
    host._mkfs = original  # type: ignore[method-assign]
    await calls.but(generation=1).stage()


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "9" * 30, "½"])
async def test_a_generation_that_is_no_number_is_refused(host: FakeHost, text: str) -> None:
    calls = volume(host, "ext4")
    bad = calls.but(published={**calls.publish_context, "generation": text})
    for call in (bad.stage, bad.publish):
        with pytest.raises(InvalidRequest, match="generation"):
            await call()
    assert host.steps.passed == []
