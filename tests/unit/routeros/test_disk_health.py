"""What is wrong with a volume, as its entry on the RDS shows it."""

from dataclasses import replace

import pytest

from rds_csi.model.access import AccessMode
from rds_csi.model.health import Severity
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import export_nqn, volume_id
from rds_csi.routeros.disk import Disk
from rds_csi.routeros.disk_health import problems

PREFIX = "nqn.2000-02.com.mikrotik"
SLOT = volume_id("1")
FREE = Record(owner="d/c", name="v", created=1, access="ext4")
HELD = FREE.with_node(Publication("a", AccessMode.SINGLE_NODE_WRITER))
GOOD = Disk(
    slot=SLOT,
    size=1,
    file_path="raid10/csi/x.img",
    comment=HELD.encode(),
    record=HELD,
    nqn=export_nqn(PREFIX, SLOT, 0),
    port=4420,
    exported=True,
    allowed_host="",
)


def found(disk: Disk) -> list[str]:
    return [each.reason for each in problems(disk)]


@pytest.mark.parametrize(
    "disk",
    [
        GOOD,
        replace(GOOD, nqn=export_nqn(PREFIX, SLOT, HELD.generation)),
        replace(GOOD, record=replace(HELD, generation=5), nqn=export_nqn(PREFIX, SLOT, 3)),
        replace(GOOD, record=replace(HELD, generation=5)),
        replace(GOOD, record=FREE, exported=False),
        replace(GOOD, record=FREE, exported=False, nqn=export_nqn(PREFIX, SLOT, 1)),
        replace(GOOD, record=FREE, exported=True),
        replace(GOOD, record=None, comment="", exported=False),
    ],
)
def test_an_entry_as_we_left_it_is_healthy(disk: Disk) -> None:
    assert found(disk) == []


@pytest.mark.parametrize(
    ("disk", "reason", "says"),
    [
        (replace(GOOD, exported=False), "NotExported", f"/disk/set {SLOT} nvme-tcp-export=yes"),
        (replace(GOOD, size=0), "BackingFileUnavailable", "raid10/csi/x.img"),
        (replace(GOOD, nqn=""), "ExportRenamed", "''"),
        (replace(GOOD, nqn="nqn.2000-02.com.mikrotik:pvc-2"), "ExportRenamed", "pvc-2"),
        (replace(GOOD, nqn=f"{PREFIX}:x{SLOT}"), "ExportRenamed", f"x{SLOT}"),
        (replace(GOOD, nqn=export_nqn(PREFIX, SLOT, 2)), "ExportRenamed", f"{SLOT}.2"),
        (replace(GOOD, nqn=f"{PREFIX}:x{SLOT}", record=None), "ExportRenamed", f"x{SLOT}"),
        (replace(GOOD, nqn=f"{PREFIX}:x{SLOT}", record=FREE), "ExportRenamed", f"x{SLOT}"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_look_at(disk: Disk, reason: str, says: str) -> None:
    (ailment,) = problems(disk)
    assert ailment.severity is Severity.INACCESSIBLE
    assert ailment.reason == reason
    assert says in ailment.message


def test_all_that_is_wrong_is_told_at_once() -> None:
    broken = replace(GOOD, exported=False, size=0, nqn="")
    assert found(broken) == ["NotExported", "BackingFileUnavailable", "ExportRenamed"]
