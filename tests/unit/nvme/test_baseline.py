"""What is known of a target: what it proves at a return, and that it survives a restart whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.nvme.baseline import BaselineFile, Doubt, Known, Sight, compare
from rds_csi.nvme.counters import UNIT, Counters, Traffic, Verdict

MIB = 1 << 20
GIB = 1 << 30


def counted(read: int, written: int) -> Counters:
    """What a target shows that was sent so many bytes, 4 KiB each time."""
    return Counters(
        reads=read // 4096,
        writes=written // 4096,
        read_units=-(-read // UNIT),
        written_units=-(-written // UNIT),
    )


def sight(
    at: float, written: int, *, instance: int = 7, pending: int = 0, size: int = GIB
) -> Sight:
    moved = {instance: Traffic(0, written)}
    return Sight(at=at, moved=moved, pending=pending, exact=True, size=size)


def known(*, before: int = 64 * MIB, first: int = 0, seen: int = 0, **changes: object) -> Known:
    """The target was sent ``before``; its connection carried ``first``, and at last ``seen``."""
    last = sight(2, seen)
    made = Known(
        counters=counted(MIB, before), sight=sight(1, first), seen=last, earlier=last, away=True
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "after", "now", "verdict"),
    [
        # Nothing was sent since: all that there is was there before.
        (known(), counted(MIB, 64 * MIB), sight(3, 0), Verdict.KEPT),
        (known(), counted(0, 0), sight(3, 0), Verdict.BOOTED),
        # More than before, and far less than was sent.
        (known(seen=GIB), counted(MIB, 80 * MIB), sight(3, GIB + 80 * MIB), Verdict.BOOTED),
        # What came since explains everything.
        (known(), counted(MIB, 70 * MIB), sight(3, 70 * MIB), Verdict.UNKNOWN),
        # What is under way may be in the counters, and in no traffic yet.
        (known(), counted(MIB, 64 * MIB), sight(3, 0, pending=16), Verdict.UNKNOWN),
        # It was never asked, or never said anything.
        (known(counters=None), counted(MIB, 64 * MIB), sight(3, 0), Verdict.UNKNOWN),
        # A connection that has gone took its traffic with it.
        (known(), counted(MIB, 64 * MIB), sight(3, 0, instance=8), Verdict.UNKNOWN),
        # A volume that has grown got another block device, without any boot.
        (known(), counted(0, 0), sight(3, 0, size=2 * GIB), Verdict.UNKNOWN),
        (known(), counted(MIB, 64 * MIB), sight(3, 0, size=2 * GIB), Verdict.KEPT),
    ],
)
def test_what_a_return_proves(case: Known, after: Counters, now: Sight, verdict: Verdict) -> None:
    assert compare(case, after, now, exclusive=True) is verdict


def test_what_other_nodes_sent_is_not_known() -> None:
    same = counted(MIB, 64 * MIB)
    assert compare(known(), same, sight(3, 0), exclusive=False) is Verdict.UNKNOWN
    assert compare(known(), counted(0, 0), sight(3, 0), exclusive=False) is Verdict.BOOTED


def test_what_was_under_way_at_the_first_sight_is_not_counted_twice() -> None:
    """Counted before the counters were read, and ended after: it is no loss."""
    before = sight(1, 0, pending=64)
    case = known(before=256 * MIB, seen=128 * MIB, sight=before)
    after = counted(MIB, 256 * MIB)
    assert compare(case, after, sight(3, 128 * MIB), exclusive=True) is not Verdict.BOOTED
    # Without anything under way it were one.
    case = known(before=256 * MIB, seen=128 * MIB)
    assert compare(case, after, sight(3, 128 * MIB), exclusive=True) is Verdict.BOOTED


def test_what_may_have_failed_is_no_proof() -> None:
    case = known(before=256 * MIB, seen=GIB)
    case = replace(case, seen=replace(case.seen, exact=False))
    after = counted(MIB, 256 * MIB)
    assert compare(case, after, sight(3, GIB), exclusive=True) is not Verdict.BOOTED


def test_doubts_are_joined() -> None:
    booted = Doubt(verdict=Verdict.BOOTED, since=10, until=20)
    unknown = Doubt(verdict=Verdict.UNKNOWN, since=30, until=40)
    both = Doubt(verdict=Verdict.BOOTED, since=10, until=40)
    assert booted.joined(unknown) == unknown.joined(booted) == both
    assert unknown.joined(unknown) == unknown
    assert booted.when == "1970-01-01T00:00:10+00:00 and 1970-01-01T00:00:20+00:00"


@pytest.fixture
def file(tmp_path: Path) -> BaselineFile:
    return BaselineFile(tmp_path / "state" / "targets", "this-boot")


DOUBT = Doubt(verdict=Verdict.UNKNOWN, since=1.5, until=2.5)
KNOWN = {
    "a": known(seen=5 * MIB, doubt=DOUBT),
    "b": known(counters=None, away=False, sight=Sight(at=1, size=0)),
}


def test_what_was_kept_is_read_again(file: BaselineFile) -> None:
    assert file.read() == {}
    file.write(KNOWN)
    assert file.read() == KNOWN
    assert BaselineFile(file.path, "another boot").read() == {}
    file.write({})
    assert list(file.path.parent.iterdir()) == []
    file.write({})


@pytest.mark.parametrize(
    "content", ["", "[]", "7", "{}", '{"version": 1, "boot": "this-boot", "targets": {"a": {}}}']
)
def test_a_file_of_somebody_else_is_refused(file: BaselineFile, content: str) -> None:
    file.path.parent.mkdir()
    file.path.write_text(content)
    with pytest.raises(ValueError, match=r"."):
        file.read()


def test_a_later_version_is_not_misread(file: BaselineFile) -> None:
    file.write(KNOWN)
    file.path.write_text(json.dumps(json.loads(file.path.read_text()) | {"version": 2}))
    assert file.read() == {}


def test_the_boot_is_the_kernels_word(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("an-id\n")
    assert BaselineFile.of_this_boot(tmp_path / "x", tmp_path / "boot_id").boot == "an-id"
    assert len(BaselineFile.of_this_boot(tmp_path / "x").boot) == 36
