"""The line that grows a volume: what is proven before, and what becomes of an export in use.

By its text alone; what it does on an RDS is proven in ``tests/rds/test_growth_in_use.py``.
"""

from rds_csi.model.volume import MIB
from rds_csi.routeros.failures import PERHAPS
from tests.unit.routeros.test_commands import expand


def test_nothing_is_made_smaller() -> None:
    script = expand()
    _, place, _ = script.places("/disk/set ")
    assert f"$csiSize < {64 * MIB}" in script.conditions(place)
    assert script.code[place:].startswith(f"/disk/set ($csiDisk->0) file-size={64 * MIB}")


def test_there_is_room_before_anything_is_closed_or_grown() -> None:
    """Only what is opened again is, whether there is room or not."""
    script = expand()
    close, enlarge, _ = script.places("/disk/set ")
    for place in (close, enlarge):
        assert script.proofs(place) >= {"grows-later", "pool-gone", "not-mounted", "pool-full"}


def test_what_nodes_have_without_maps_is_refused_before_anything() -> None:
    script = expand()
    (refused,) = script.refusals("grows-later")
    mapped = script.places(":set csiMapped false")
    assert mapped[0] < refused < min(script.places("/disk/set "))
    before = script.code[:refused]
    assert before.rindex("!$csiMapped") > before.rindex(f"$csiSize < {64 * MIB}")


def test_what_is_in_use_is_closed_first_and_opened_whatever_happened() -> None:
    """Where a line ends between two steps the export is closed, and the next one opens it."""
    script = expand()
    close, enlarge, again = script.places("/disk/set ")
    assert "nvme-tcp-export=no" in script.code[close:enlarge]
    assert "nvme-tcp-export=yes" in script.code[again:]
    small = f"$csiSize < {64 * MIB}"
    for place in (close, again):
        assert "$csiMapped" in script.conditions(place)
    assert small in script.conditions(close)
    assert small not in script.conditions(again), "one of the size wanted may be closed"
    caught = script.places(":set csiBad $csiWhy")
    told = script.places(":error $csiBad")
    assert len(caught) == 1
    # Not under what may still be at work: that would fix the size of the moment.
    unsure, sure = told
    assert caught[0] < unsure < again < sure
    assert PERHAPS in script.texts
    assert expand(published=True).places(":set csiMapped") == []


def test_only_what_is_added_needs_room() -> None:
    assert f"$csiRoom < ({64 * MIB + 5} - $csiSize)" in expand().code
