"""Quirks are set by name, faults strike when they should."""

from pathlib import Path

import pytest

from rds_csi.simulator import Quirks, Simulator


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
