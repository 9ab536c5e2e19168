"""The records in the controller's memory: what is remembered, and when the RDS is asked anew."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from rds_csi.controller.records import Records
from rds_csi.errors import (
    ConcurrentChange,
    DriverError,
    MadeForOther,
    OutcomeUnknown,
    RecordFull,
    VolumeInUse,
    VolumeMismatch,
)
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import export_nqn, volume_id
from rds_csi.routeros import Disk
from rds_csi.runtime.clock import SystemClock

OWNER = "d/c"
PREFIX = "nqn.2000-02.com.mikrotik"
SLOT = volume_id("one")
A = Publication("a", AccessMode.SINGLE_NODE_WRITER)
B = Publication("b", AccessMode.SINGLE_NODE_WRITER)


def disk(record: Record, **changes: object) -> Disk:
    return replace(
        Disk(
            slot=SLOT,
            size=1,
            file_path="raid10/csi/x.img",
            comment=record.encode(),
            record=record,
            nqn="nqn.2000-02.com.mikrotik:x",
            port=4420,
            exported=bool(record.nodes),
            allowed_host="",
        ),
        **changes,  # type: ignore[arg-type]
    )


@dataclass
class FakeRds:
    """One disk; what it was asked; and how a change ends, whether it was done or not."""

    stored: Disk
    asked: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """The name that each change gave the export; empty: none."""
    ending: BaseException | None = None

    async def get(self, slot: str) -> Disk:
        assert slot == self.stored.slot
        self.asked.append("get")
        return self.stored

    async def change(
        self,
        slot: str,
        expected: str,
        record: Record,
        *,
        exported: bool,
        allowed_host: str = "",
        opens: bool = False,
        nqn: str = "",
    ) -> Disk:
        assert slot == self.stored.slot
        self.names.append(nqn)
        assert opens == (bool(record.nodes) and not self.stored.exported)
        self.asked.append("change")
        if expected != self.stored.comment:
            raise ConcurrentChange("its record is another one by now", disk=self.stored)
        self.stored = disk(
            record, exported=exported, allowed_host=allowed_host, nqn=nqn or self.stored.nqn
        )
        ending, self.ending = self.ending, None
        if ending is not None:
            raise ending
        return self.stored


@pytest.fixture
def rds() -> FakeRds:
    return FakeRds(disk(Record(owner=OWNER, name="one", created=1, access="ext4")))


@pytest.fixture
def records(rds: FakeRds) -> Records:
    return keeping(rds, PREFIX)


def keeping(rds: FakeRds, nqn_prefix: str) -> Records:
    clock = SystemClock()
    return Records(rds, OWNER, "c", clock, nqn_prefix=nqn_prefix)  # type: ignore[arg-type]


async def test_what_was_answered_last_saves_the_read(rds: FakeRds, records: Records) -> None:
    await records.change(SLOT, lambda record: record.with_node(A))
    await records.change(SLOT, lambda record: record.without_node("a"))
    assert rds.asked == ["get", "change", "change"]


@pytest.mark.parametrize(
    "ending", [OutcomeUnknown("cut off"), asyncio.CancelledError(), RuntimeError("bug")]
)
async def test_after_a_change_that_was_cut_off_the_rds_is_asked_first(
    rds: FakeRds, records: Records, ending: BaseException
) -> None:
    """Nobody knows what stands there: what was remembered before it is no ground to act on."""
    records.remember(rds.stored)
    rds.ending = ending
    with pytest.raises(type(ending)):
        await records.change(SLOT, lambda record: record.with_node(A))
    rds.asked.clear()
    seen: list[Record] = []

    def look(record: Record) -> Record:
        seen.append(record)
        return record.without_node("a")

    await records.change(SLOT, look)
    assert rds.asked == ["get", "change"]
    assert [record.nodes for record in seen] == [(A,)]
    assert rds.stored.record is not None
    assert rds.stored.record.nodes == ()


@pytest.mark.parametrize("refusal", [VolumeInUse, MadeForOther, RecordFull, VolumeMismatch])
async def test_a_refusal_of_what_is_remembered_is_asked_about(
    rds: FakeRds, records: Records, refusal: type[DriverError]
) -> None:
    free = rds.stored
    assert free.record is not None
    records.remember(disk(free.record.with_node(B)))

    def admit(record: Record) -> Record:
        if record.nodes:
            raise refusal("held")
        return record.with_node(A)

    changed = await records.change(SLOT, admit)
    assert rds.asked == ["get", "change"]
    assert changed.record == free.record.with_node(A)
    rds.stored = disk(free.record.with_node(B))
    records.forget(SLOT)
    rds.asked.clear()
    with pytest.raises(refusal):
        await records.change(SLOT, admit)
    assert rds.asked == ["get"]


async def test_no_change_is_proven_by_one_read_and_no_write(rds: FakeRds, records: Records) -> None:
    held = await records.change(SLOT, lambda record: record.with_node(A))
    rds.asked.clear()
    assert await records.change(SLOT, lambda record: record.with_node(A)) == held
    assert rds.asked == ["get"]


@pytest.mark.parametrize(
    "changes",
    [
        {"exported": False},
        {"allowed_host": "nqn.2014-08.org.nvmexpress:uuid:1"},
        {"mountable": True},
    ],
)
async def test_a_record_that_stands_over_a_wrong_export_is_written_again(
    rds: FakeRds, records: Records, changes: dict[str, object]
) -> None:
    assert rds.stored.record is not None
    held = disk(rds.stored.record.with_node(A))
    rds.stored = replace(held, **changes)  # type: ignore[arg-type]
    assert await records.change(SLOT, lambda record: record.with_node(A)) == held
    assert rds.asked == ["get", "change"]


async def test_others_who_are_always_faster(rds: FakeRds, records: Records) -> None:
    """Each answer is of another record: after five attempts it is the caller's turn."""

    async def lost(*_: object, **__: object) -> Disk:
        assert rds.stored.record is not None
        rds.stored = disk(replace(rds.stored.record, created=rds.stored.record.created + 1))
        rds.asked.append("change")
        raise ConcurrentChange("its record is another one by now", disk=rds.stored)

    rds.change = lost  # type: ignore[method-assign]
    with pytest.raises(ConcurrentChange, match="under each of 5 attempts"):
        await records.change(SLOT, lambda record: record.with_node(A))
    assert rds.asked == ["get", *["change"] * 5]


async def test_an_error_without_the_disk_is_passed_on(rds: FakeRds, records: Records) -> None:
    rds.ending = ConcurrentChange("it changed while the RDS worked on it")
    with pytest.raises(DriverError, match="while the RDS"):
        await records.change(SLOT, lambda record: record.with_node(A))
    assert rds.asked == ["get", "change"]


class TestNames:
    """An export gets the name of a hand-over, and nobody's name is taken from under him."""

    async def test_each_first_holder_is_given_a_name_that_none_had(
        self, rds: FakeRds, records: Records
    ) -> None:
        for entry in (A, B, B):
            await records.change(SLOT, lambda record, entry=entry: record.with_node(entry))  # type: ignore[misc]
            await records.change(SLOT, lambda record: record.without_node(""))
        names = [export_nqn(PREFIX, SLOT, generation) for generation in (1, 2, 3)]
        # Closing it changes no name: the next hand-over does.
        assert rds.names == [names[0], "", names[1], "", names[2], ""]

    async def test_holders_at_the_same_time_share_a_name(
        self, rds: FakeRds, records: Records
    ) -> None:
        for change in (
            lambda record: record.with_node(A),
            lambda record: record.with_node(B),
            lambda record: record.without_node("a"),
            lambda record: record.with_node(A),
        ):
            await records.change(SLOT, change)
        assert rds.names == [export_nqn(PREFIX, SLOT, 1), "", "", ""]

    async def test_what_is_held_at_an_upgrade_keeps_its_name_until_it_is_handed_over(
        self, rds: FakeRds, records: Records
    ) -> None:
        assert rds.stored.record is not None
        held = rds.stored.record.with_node(A)
        text = held.encode("rds-csi/1")
        old = Record.parse(text)
        assert old is not None
        rds.stored = replace(disk(old), comment=text)
        again = await records.change(SLOT, lambda record: record.with_node(A))
        assert again.nqn == rds.stored.nqn == "nqn.2000-02.com.mikrotik:x"
        assert rds.stored.comment.startswith("rds-csi/2 ")
        await records.change(SLOT, lambda record: record.without_node("a"))
        new = await records.change(SLOT, lambda record: record.with_node(B))
        assert new.nqn == export_nqn(PREFIX, SLOT, 1)
        assert rds.names == ["", "", new.nqn]

    async def test_an_open_export_of_the_go_driver_keeps_its_name(self) -> None:
        """A node of that driver may have it connected this very moment."""
        slot = "pvc-0f923194-922a-5dd8-b376-c2c6ccb56dd8"
        for exported, name in ((True, ""), (False, export_nqn(PREFIX, slot, 1))):
            foreign = replace(
                disk(Record(owner=OWNER, name="x", created=1, access="")),
                slot=slot,
                comment="",
                record=None,
                exported=exported,
            )
            rds = FakeRds(foreign)
            records = keeping(rds, PREFIX)
            await records.change(slot, lambda record: record.with_node(A))
            assert rds.names == [name]
            rds.stored = replace(rds.stored, slot=slot)
            records.forget(slot)
            await records.change(slot, lambda record: record.without_node("a"))
            rds.stored = replace(rds.stored, slot=slot)
            records.forget(slot)
            await records.change(slot, lambda record: record.with_node(B))
            assert rds.names[-1] == export_nqn(PREFIX, slot, 2)

    async def test_without_a_prefix_exports_keep_their_names(self, rds: FakeRds) -> None:
        records = keeping(rds, "")
        held = await records.change(SLOT, lambda record: record.with_node(A))
        assert held.record is not None
        assert held.record.generation == 1
        assert rds.names == [""]
