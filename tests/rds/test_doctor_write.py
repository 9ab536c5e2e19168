"""``rds-csi doctor rds --write``: the round trip, what is measured, and that nothing is left."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.doctor.check import Checks, Status
from rds_csi.doctor.rds import measures
from rds_csi.doctor.rds.measures import Measured
from rds_csi.doctor.rds.scratch import Bench, round_trip, scratch_owner
from rds_csi.doctor.rds.unknowns import NOT_FROM_HERE, QUESTIONS
from rds_csi.model.record import Record, owner_tag
from rds_csi.simulator.device.export import Bookkeeper, Export
from rds_csi.simulator.device.faults import FaultKind

from .conftest import BASE, Rds
from .doctoring import SHARED, Doctor, exporting, one, statuses
from .user_target import UserTarget

(RESIZE, SAME_SLOT, OVER_FILE, ALLOW, COPY_DISK, COPY_FILE, COPY_FROM, EXIT, SLOT, EXPORTS) = range(
    10
)
MOUNTABLE, BY_PATH, LONG_LINE, GOES_ON, RENAME = range(10, 15)


@pytest.fixture
def export() -> UserTarget:
    return UserTarget()


@pytest.fixture
async def rds(client_key: Path, tmp_path: Path, export: UserTarget) -> AsyncIterator[Rds]:
    async with exporting(client_key, tmp_path, export) as found:
        yield found


@pytest.fixture
def doctor(rds: Rds, export: UserTarget, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    monkeypatch.setattr(measures, "_LATER", 0.4)
    return Doctor(rds, export.port)


def nothing_is_left(doctor: Doctor) -> None:
    assert doctor.rds.slots() == []
    assert doctor.rds.files() == []
    assert doctor.rds.simulator.exported == set()


async def test_all_is_measured_and_nothing_is_left(doctor: Doctor) -> None:
    found = await doctor.examine(write=True)
    assert statuses(found) == {}
    assert "exported it, wrote and read a block of it, closed and removed it" in (
        one(found, "export round trip").found
    )
    results = [finding.result for finding in found.unknowns]
    assert results[RESIZE] == (
        "unexported: honoured, 33554432 bytes; exported: honoured, 50331648 bytes; connected: "
        "honoured, 67108864 bytes; the host sees 33554432 bytes before and 33554432 after, "
        "and is not told"
    )
    assert "already exists" in results[SAME_SLOT]
    assert results[OVER_FILE] == ("accepted, the disk shows 16777216 bytes; the old data is in it")
    assert results[ALLOW].count("accepted, read back the same") == 3
    assert results[ALLOW].endswith(
        "allowed: admitted; another: refused (status 0x184 (connect: invalid host)); connected, "
        "then another is allowed: goes on reading; the second of two with a comma: admitted"
    )
    assert results[COPY_DISK].startswith("refused: RouterOS says: bad command name copy")
    assert results[COPY_FILE].endswith("16777216 bytes less free after copying 16777216: a copy")
    assert (
        "with file-size accepted; size 16777216, the same NQN as the source" in results[COPY_FROM]
    )
    assert results[EXIT].startswith("success: 0 (csi-doctor); unknown command: 0 (bad command name")
    assert results[SLOT] == "40 characters: accepted, and found again under its whole name"
    assert results[EXPORTS] == "0 are open now"
    assert results[MOUNTABLE].startswith("0 of 0 disks")
    assert results[BY_PATH].endswith(": 1 and 0")
    assert results[LONG_LINE].startswith("accepted, 4480 characters")
    assert results[GOES_ON].startswith("yes")
    assert results[RENAME] == (
        "closed: accepted, read back the same; exported: refused: failure: can not change nqn "
        "while exported, not read back the same; connected, then closed: loses it (it hung up); "
        "renamed: accepted, read back the same, and loses it (it hung up); opened again: loses it "
        "(it hung up); the old name: refused "
        "(status 0x182 (connect: invalid parameters)); the new name: admitted"
    )
    assert all(finding.how for finding in found.unknowns)
    beyond = {
        QUESTIONS[number].text for number in (SAME_SLOT, COPY_DISK, EXPORTS, MOUNTABLE, RENAME)
    }
    assert {finding.question for finding in found.unknowns if finding.missing} == beyond
    nothing_is_left(doctor)


async def test_a_target_that_drops_who_is_no_longer_allowed(
    doctor: Doctor,
) -> None:
    doctor.rds.simulator.quirks.allow_list_cuts = True
    measured = await measures.allow_host(doctor.bench())
    assert "connected, then another is allowed: loses it (it hung up)" in measured.result
    nothing_is_left(doctor)


@pytest.mark.parametrize("name_ends_it", [True, False])
async def test_a_target_on_which_a_session_outlives_the_closing(
    doctor: Doctor, export: UserTarget, monkeypatch: pytest.MonkeyPatch, name_ends_it: bool
) -> None:
    """The only hole that fencing by name has: the doctor finds it, and says what to do."""

    async def closing(disk: int) -> None:
        export.exports.pop(disk, None)

    async def renaming(to: Export) -> None:
        await Bookkeeper.export(export, to)

    monkeypatch.setattr(export, "unexport", closing)
    if not name_ends_it:
        monkeypatch.setattr(export, "export", renaming)
    measured = await measures.rename(doctor.bench())
    assert "connected, then closed: goes on writing" in measured.result
    assert ("opened again: goes on writing" in measured.result) is not name_ends_it
    assert ("so a former holder" in measured.result) is not name_ends_it
    nothing_is_left(doctor)


@pytest.mark.parametrize("room", [0, 256, 512, 8192])
async def test_data_goes_with_the_command_if_the_target_has_room(
    doctor: Doctor, export: UserTarget, room: int
) -> None:
    export.room = room
    checks = Checks()
    await round_trip(checks, doctor.bench(), (("127.0.0.1", doctor.nvme_port),))
    assert checks.results[-1].status is Status.OK
    assert "wrote and read a block" in checks.results[-1].found


async def test_a_target_that_announces_growth(doctor: Doctor) -> None:
    doctor.rds.simulator.quirks.growth = "announced"
    measured = await measures.resize(doctor.bench())
    assert measured.result.endswith("before and 67108864 after, and is told so")


@pytest.mark.parametrize(
    "measure",
    [
        *(measures.resize, measures.over_file, measures.allow_host),
        *(measures.copy_settings, measures.copy_disk, measures.rename),
    ],
)
async def test_without_a_way_to_the_target_what_ssh_tells_is_measured(
    doctor: Doctor, unused_tcp_port: int, measure: Callable[[Bench], Awaitable[Measured]]
) -> None:
    doctor.nvme_port = unused_tcp_port
    measured = await measure(doctor.bench())
    assert measured.result
    assert "no connected host could look" in measured.unseen
    assert "refused" in measured.unseen.lower() or "Connect call failed" in measured.unseen
    nothing_is_left(doctor)


async def test_an_export_that_does_not_keep_what_is_written(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget(*_: object) -> None:
        pass

    monkeypatch.setattr("rds_csi.doctor.rds.initiator.Initiator.write", forget)
    checks = Checks()
    await round_trip(checks, doctor.bench(), (("127.0.0.1", doctor.nvme_port),))
    assert checks.results[-1].status is Status.FAILED
    assert "reads otherwise than it was written" in checks.results[-1].found
    nothing_is_left(doctor)


@pytest.mark.parametrize("same", [True, False])
async def test_what_is_written_at_one_address_is_read_at_each(
    doctor: Doctor,
    export: UserTarget,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    same: bool,
) -> None:
    """Two addresses of one RDS, or one of its copy: then the second would be no second path."""
    second = UserTarget(host="127.0.0.2")
    second.port = export.port
    exported = export.export

    async def at_both(new: Export) -> None:
        await exported(new)
        copy = tmp_path / "copy.img"
        shutil.copy(new.path, copy)
        await second.export(new if same else replace(new, path=copy))

    monkeypatch.setattr(export, "export", at_both)
    await second.start(1)
    checks = Checks()
    addresses = tuple((host, export.port) for host in (second.host, export.host))
    await round_trip(checks, doctor.bench(), addresses)
    await second.stop()
    assert [each.status for each in checks if each.name == "NVMe address"] == [Status.OK] * 2
    if same:
        assert checks.results[-1].status is Status.OK
    else:
        assert checks.results[-1].status is Status.FAILED
        assert "read at 127.0.0.2: are both the same RDS?" in checks.results[-1].found
    nothing_is_left(doctor)


async def test_an_address_that_does_not_answer_leaves_the_others_to_look_through(
    doctor: Doctor,
) -> None:
    checks, bench = Checks(), doctor.bench()
    await round_trip(
        checks, bench, (("127.0.0.9", doctor.nvme_port), ("127.0.0.1", doctor.nvme_port))
    )
    assert [each.status for each in checks.results] == [Status.FAILED, Status.OK, Status.OK]
    assert bench.data_address == "127.0.0.1"
    nothing_is_left(doctor)


async def test_without_write_every_question_is_still_there(doctor: Doctor) -> None:
    found = await doctor.examine()
    assert [each.question for each in found.unknowns] == [each.text for each in QUESTIONS]
    for question, finding in zip(QUESTIONS, found.unknowns, strict=True):
        assert finding.result or finding.missing == f"{NOT_FROM_HERE} --write was not given"
        assert bool(finding.result) is not question.writes


@pytest.mark.parametrize(
    ("quirk", "value", "measure", "result"),
    [
        ("resize", "ignored", measures.resize, "unexported: RouterOS did not honour the new size"),
        (
            "resize",
            "needs-unexport",
            measures.resize,
            "exported: RouterOS says: failure: can not resize",
        ),
        ("rename", "refused", measures.rename, "closed: refused: failure: can not change nqn"),
        ("rename", "ignored", measures.rename, "closed: accepted, not read back the same"),
        ("rename", "open", measures.rename, "exported: accepted, read back the same"),
        ("slot_limit", 32, measures.long_slot, "refused: RouterOS says: value of slot is too long"),
        ("exit_status", 1, measures.exit_status, "unknown command: 1"),
        ("preallocate", "no", measures.copy_file, "perhaps a reflink"),
    ],
)
async def test_what_differs_between_devices_is_measured(
    doctor: Doctor,
    *,
    quirk: str,
    value: str,
    measure: Callable[[Bench], Awaitable[Measured]],
    result: str,
) -> None:
    doctor.rds.simulator.quirks.set(quirk, value)
    assert result in (await measure(doctor.bench())).result
    nothing_is_left(doctor)


async def test_a_command_that_the_version_lacks_is_measured_as_refused(doctor: Doctor) -> None:
    doctor.rds.simulator.set_version("7.22")
    measured = await measures.copy_file(doctor.bench())
    assert measured.result.startswith("refused: RouterOS says: bad command name copy")
    nothing_is_left(doctor)


async def test_volumes_of_others_are_not_touched(doctor: Doctor) -> None:
    for slot in ("backup", f"pvc-{1:028}"):
        await doctor.rds.add_disk(slot, comment="somebody's", exported=True)
    before = {slot: doctor.rds.disk(slot) for slot in doctor.rds.slots()}
    assert len(before) == 2
    files = doctor.rds.files()
    await doctor.examine(write=True)
    assert {slot: doctor.rds.disk(slot) for slot in doctor.rds.slots()} == before
    assert doctor.rds.files() == files


async def test_no_controller_sees_a_scratch_volume(doctor: Doctor) -> None:
    """Not even while it is there."""
    backend = doctor.rds.backend()
    seen = set()
    task = asyncio.create_task(doctor.examine(write=True))
    while not task.done():
        scratch = [slot for slot in doctor.rds.slots() if slot.startswith("doctor-")]
        if scratch:
            seen.update(scratch)
            assert await backend.list() == []
        await asyncio.sleep(0.01)
    await task
    assert seen


async def test_a_closed_port_while_the_scratch_volume_is_exported(
    doctor: Doctor, unused_tcp_port: int
) -> None:
    doctor.nvme_port = unused_tcp_port
    found = await doctor.examine(write=True)
    assert statuses(found) == {"NVMe address": Status.FAILED}
    nothing_is_left(doctor)


async def test_a_full_pool_is_said_and_measures_nothing(doctor: Doctor) -> None:
    doctor.rds.simulator.fill_pool("raid10", free=10)
    found = await doctor.examine(write=True)
    assert statuses(found) == {"pool": Status.FAILED, "export round trip": Status.FAILED}
    assert "could not make it" in one(found, "export round trip").found
    assert "too little room" in found.unknowns[RESIZE].missing
    nothing_is_left(doctor)


@pytest.mark.parametrize("kind", ["drop-after", "drop-before", "garbage", "truncate"])
@pytest.mark.parametrize("match", ["/disk/add", "nvme-tcp-export=yes", "/disk/remove"])
async def test_a_lost_answer_fails_the_round_trip_and_leaves_nothing(
    doctor: Doctor, kind: FaultKind, match: str
) -> None:
    doctor.rds.simulator.faults.add(kind, match=match)
    checks, bench = Checks(), doctor.bench()
    await round_trip(checks, bench, (("127.0.0.1", doctor.nvme_port),))
    assert checks.results[-1].status is Status.FAILED
    assert checks.results[-1].name == "export round trip"
    assert bench.left == []
    nothing_is_left(doctor)


async def test_what_cannot_be_removed_is_named(doctor: Doctor) -> None:
    doctor.rds.simulator.faults.add(
        "runtime-error", match="/disk/remove", command="/disk/remove", count=0, text="is busy"
    )
    found = await doctor.examine(write=True)
    left = [check for check in found.checks if check.name == "scratch volumes"][-1]
    assert left.status is Status.FAILED
    assert "is busy" in left.found
    assert doctor.rds.slots()
    assert all(slot in left.found for slot in doctor.rds.slots())


@pytest.mark.parametrize("execs", [16, 17, 18, 20, 26])
async def test_interrupted_it_removes_what_it_made(doctor: Doctor, execs: int) -> None:
    task = asyncio.create_task(doctor.examine(write=True))
    while doctor.rds.execs() < execs:
        await asyncio.sleep(0)
        assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    nothing_is_left(doctor)


async def test_what_a_killed_doctor_left_is_told_and_removed_when_old(doctor: Doctor) -> None:
    owner = scratch_owner(SHARED)
    slot, file_only = f"doctor-{'a' * 24}", f"doctor-{'b' * 24}"
    tag = owner_tag(owner)
    comment = Record(owner=owner, name="n", created=int(time.time()) - 10, access="block")
    await doctor.rds.simulator.run(
        f"/disk/add type=file slot={slot} file-path={BASE}/{slot}-{tag}.img file-size=1M "
        f'comment="{comment.encode()}"'
    )
    found = await doctor.examine(write=True)
    assert one(found, "scratch volumes").status is Status.WARNING
    assert doctor.rds.slots() == [slot]
    old = Record(owner=owner, name="n", created=1, access="block")
    await doctor.rds.simulator.run(f'/disk/set {slot} comment="{old.encode()}"')
    doctor.rds.simulator.path(f"{BASE}/{file_only}-{tag}.img").write_bytes(b"x")
    found = await doctor.examine()
    assert one(found, "scratch volumes").found == f"left by an earlier run: {slot}, {file_only}"
    assert len(doctor.rds.files()) == 2
    found = await doctor.examine(write=True)
    assert f"removed what an earlier run left: {slot}" in one(found, "scratch volumes").found
    assert doctor.rds.slots() == doctor.rds.files() == []
