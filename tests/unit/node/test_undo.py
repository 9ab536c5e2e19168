"""A stage that fails undoes what it did, and only that."""

import asyncio

import pytest

from rds_csi.errors import (
    OPEN,
    CommandStuck,
    ConnectFailed,
    DriverError,
    FailedPrecondition,
    Internal,
    NotBlank,
    NotUndone,
)
from rds_csi.rpc.operations import Operations
from rds_csi.runtime.process import Result
from tests.unit.fakes.mounts import DEVTMPFS, Entry
from tests.unit.fakes.node_host import FakeHost, SteppedStore
from tests.unit.node.calls import VOLUME, Calls, nqn, reboot, record


async def test_a_failed_connect_leaves_nothing(calls: Calls, host: FakeHost) -> None:
    del host.rds[nqn(VOLUME)]
    with pytest.raises(ConnectFailed):
        await calls.stage()
    assert host.leaks() == []


@pytest.mark.parametrize("program", ["blkid", "mount"])
async def test_a_failure_at_any_program_leaves_nothing(
    calls: Calls, host: FakeHost, program: str
) -> None:
    host.refusals[program] = Result(1, "", "it does not work")
    with pytest.raises(DriverError, match="it does not work"):
        await calls.stage()
    assert host.leaks() == []
    host.refusals.clear()
    await calls.stage()


async def test_what_was_on_record_before_a_failed_stage_stays(calls: Calls, host: FakeHost) -> None:
    """After a reboot: the record alone knows that the volume was formatted, and its targets."""
    await calls.stage()
    await calls.publish()
    reboot(host)
    before = record(host)
    host.refusals["mount"] = Result(32, "", "it does not work")
    with pytest.raises(FailedPrecondition, match="it does not work"):
        await calls.stage()
    assert host.connections == {}
    assert record(host) == before


@pytest.mark.looptime
@pytest.mark.parametrize("where", ["mounted", "published", "out of sight"])
@pytest.mark.parametrize("block", [False, True])
async def test_a_failure_does_not_disconnect_what_is_used_elsewhere_by_then(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch, block: bool, where: str
) -> None:
    """An administrator was faster between our connect and what failed then."""

    async def fail(_store: object, _staged: object) -> None:
        if where == "out of sight":
            host.claimed.add("nvme1n1")
        else:
            device, node = ((259, 1), "/") if where == "mounted" else (DEVTMPFS, "/nvme1n1")
            host.table.entries.append(
                Entry(device, node, "/mnt/rescue", ("rw",), "ext4", "/dev/nvme1n1", {"mode": "rw"})
            )
            host.table._write()
        raise OSError("no space left on device")

    calls.create("ext4")
    monkeypatch.setattr(SteppedStore, "write", fail)
    said = "mounted in another" if where == "out of sight" else "/mnt/rescue"
    with pytest.raises(NotUndone, match=f"no space left.*{said}"):
        await calls.but(block=block).stage()
    assert list(host.connections) == [nqn(VOLUME)]


async def test_what_cannot_be_asked_whether_it_is_held_stays_connected(
    calls: Calls, host: FakeHost
) -> None:
    host.refusals["probe"] = Result(1, "", "it does not work")
    with pytest.raises(NotUndone, match=r"cannot be read.*could not be undone"):
        await calls.stage()
    assert list(host.connections) == [nqn(VOLUME)]
    host.refusals.clear()
    await calls.stage()


async def test_a_failure_does_not_undo_what_was_there(calls: Calls, host: FakeHost) -> None:
    block = calls.but(block=True)
    await block.stage()
    assert list(host.connections) == [nqn(VOLUME)]
    host.refusals["blkid"] = Result(1, "", "it does not work")
    with pytest.raises(NotBlank):
        await calls.stage()
    assert list(host.connections) == [nqn(VOLUME)]


@pytest.mark.requirement("PIT-01")
async def test_a_stuck_program_keeps_what_it_works_on(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_device: str, _command: object) -> Result:
        raise CommandStuck("mkfs hangs")

    monkeypatch.setattr(host, "_mkfs", hang)
    with pytest.raises(CommandStuck) as caught:
        await calls.stage()
    assert caught.value.code in OPEN
    assert list(host.connections) == [nqn(VOLUME)]
    assert record(host)["formatting"]


async def test_an_undoing_that_fails_makes_the_answer_an_open_one(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a final code the kubelet never asks for an unstage of the connection that is left."""

    async def fail(_nqn: str, *, volume: str = "") -> None:
        raise Internal(f"cannot disconnect {volume}")

    monkeypatch.setattr(host, "disconnect", fail)
    host.refusals["mount"] = Result(32, "", "the mount failed")
    with pytest.raises(NotUndone, match=r"the mount failed; .*cannot disconnect") as caught:
        await calls.stage()
    assert caught.value.code in OPEN
    assert list(host.connections) == [nqn(VOLUME)]


async def test_a_failure_that_is_undone_in_full_keeps_its_own_code(
    calls: Calls, host: FakeHost
) -> None:
    host.refusals["mount"] = Result(32, "", "the mount failed")
    with pytest.raises(FailedPrecondition, match="the mount failed"):
        await calls.stage()
    assert host.leaks() == []


async def test_a_program_that_hangs_while_undoing_keeps_the_volume_locked(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = asyncio.Event()

    async def hang(_nqn: str, *, volume: str = "") -> None:
        raise CommandStuck("the disconnect hangs", gone=gone, volume=volume)

    monkeypatch.setattr(host, "disconnect", hang)
    host.refusals["mount"] = Result(32, "", "the mount failed")
    operations = Operations()
    with pytest.raises(NotUndone):
        await operations.run("NodeStageVolume", calls.stage, timeout=10, volume=VOLUME)
    assert operations.locked(VOLUME)
    gone.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not operations.locked(VOLUME)


async def test_a_mount_of_something_else_is_undone(
    calls: Calls, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.create("ext4")
    original = host.table._mount_device

    def elsewhere(fs_type: str, options: list[str], device: str, point: str) -> Result:
        result = original(fs_type, options, device, point)
        host.table.entries[-1].options = ("ro",)
        return result

    monkeypatch.setattr(host.table, "_mount_device", elsewhere)
    with pytest.raises(Internal, match="mounted was"):
        await calls.stage()
    assert host.leaks() == []
