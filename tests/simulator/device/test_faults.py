"""Quirks are set by name, faults strike when they should."""

from pathlib import Path
from typing import Any

import pytest

from rds_csi.simulator import Quirks, Simulator
from rds_csi.simulator.device.faults import Faults


def test_quirks_are_set_by_name() -> None:
    quirks = Quirks()
    quirks.set("slot-limit", "32")
    quirks.set("preallocate", "no")
    quirks.set("lag", "1.5")
    quirks.set("resize", "ignored")
    assert quirks == Quirks(slot_limit=32, preallocate=False, lag=1.5, resize="ignored")
    for name, value in (("nope", "1"), ("resize", "x"), ("preallocate", "maybe"), ("lag", "x")):
        with pytest.raises(ValueError):
            quirks.set(name, value)


def test_faults_are_checked_when_planned(tmp_path: Path) -> None:
    rds = Simulator(tmp_path)
    with pytest.raises(ValueError, match="unknown fault"):
        rds.faults.add("explode")  # type: ignore[arg-type] # that is the test
    with pytest.raises(ValueError, match=r".*"):
        rds.faults.add("garbage", count=-1)


def test_a_fault_strikes_what_it_matches_after_what_it_skips_as_often_as_told() -> None:
    faults = Faults()
    planned = faults.add("garbage", match="^/disk/add", skip=1, count=2)
    assert faults.strike("/disk/print") is None
    assert [faults.strike("/disk/add x") for _ in range(4)] == [None, planned, planned, None]
    assert faults.pending == []


def test_a_count_of_none_strikes_for_ever() -> None:
    faults = Faults()
    planned = faults.add("truncate", count=0)
    assert [faults.strike("any") for _ in range(50)] == [planned] * 50


def test_only_one_strikes_and_the_first_planned_comes_first() -> None:
    faults = Faults()
    first, second = faults.add("drop-before"), faults.add("drop-after")
    assert [faults.strike("x"), faults.strike("x"), faults.strike("x")] == [first, second, None]


def test_clearing_forgets_all_of_them() -> None:
    faults = Faults(refuse_auth=True)
    faults.add("garbage", count=0)
    faults.clear()
    assert faults == Faults()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"match": "("}, "no regular expression"),
        ({"skip": -1}, "cannot be negative"),
        ({"count": -1}, "cannot be negative"),
    ],
)
def test_what_cannot_be_planned_is_not(settings: dict[str, Any], said: str) -> None:
    faults = Faults()
    with pytest.raises(ValueError, match=said):
        faults.add("garbage", **settings)
    assert faults.pending == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lag", "nan", "0 or more"),
        ("lag", "inf", "0 or more"),
        ("lag", -1, "0 or more"),
        ("slot-limit", "1.5", "is a number"),
        ("interleave", "2", "yes or no"),
        ("export-spacing", -1, "0 or more"),
        ("growth", "x", "fixed, announced"),
        ("discards", "", "free, kept"),
        ("keepalive", "", "answer, refuse, hang"),
        ("set", "x", "unknown quirk 'set'"),
    ],
)
def test_what_is_wrong_with_a_quirk_is_said(name: str, value: str | int, said: str) -> None:
    quirks = Quirks()
    with pytest.raises(ValueError, match=said):
        quirks.set(name, value)
    assert quirks == Quirks()


def test_a_kind_target_is_one_word(rds: Simulator) -> None:
    """What nobody has measured, an RDS does in the harsher way; all of it at once is a quirk."""
    harsh = Quirks()
    kind = Quirks(
        export_spacing=0.0,
        growth="announced",
        stable_identifiers=True,
        allow_list_cuts=True,
        discards="kept",
    )
    assert rds.quirks == harsh
    rds.quirks.set("kind-target", "yes")
    assert rds.quirks == kind
    rds.quirks.set("growth", "fixed")
    rds.quirks.set("kind-target", "no")
    assert rds.quirks == harsh
    with pytest.raises(ValueError, match="yes or no"):
        rds.quirks.set("kind-target", "perhaps")
    assert rds.quirks == harsh


def test_only_clocks_may_go_backwards() -> None:
    quirks = Quirks()
    quirks.set("clock-error", "-2.5")
    quirks.set("gmt_offset", -3600)
    assert quirks == Quirks(clock_error=-2.5, gmt_offset=-3600)
