"""Whether a volume that exists is the one that is asked for."""

from dataclasses import replace

import pytest

from rds_csi.controller.existing import require_same
from rds_csi.errors import NotOurs, VolumeMismatch
from rds_csi.model.parameters import VolumeParameters
from rds_csi.model.record import Record
from rds_csi.model.volume import MIB, CapacityRange, volume_id
from rds_csi.routeros import Disk

RECORD = Record(owner="d/c", name="one", created=1, access="ext4")
ASKED = VolumeParameters(volume_path="raid10/csi")
DISK = Disk(
    slot=volume_id("one"),
    size=64 * MIB,
    file_path="raid10/csi/x.img",
    comment=RECORD.encode(),
    record=RECORD,
    nqn="nqn.2000-02.com.mikrotik:x",
    port=4420,
    exported=False,
    allowed_host="",
)
RANGE = CapacityRange(required=64 * MIB)


def test_what_changes_later_makes_it_no_other_volume() -> None:
    """Its name, holders and generation are of today; the time is that of the first request."""
    later = replace(RECORD, created=2, generation=7, formatted="ext4")
    require_same(replace(DISK, record=later, nqn="nqn.y", exported=True), RECORD, ASKED, RANGE)


@pytest.mark.parametrize("record", [None, replace(RECORD, owner="d/other")])
def test_a_stranger_is_told_apart(record: Record | None) -> None:
    with pytest.raises(NotOurs, match="not ours"):
        require_same(replace(DISK, record=record), RECORD, ASKED, RANGE)


@pytest.mark.parametrize(
    ("disk", "says"),
    [
        (replace(DISK, record=replace(RECORD, name="two")), "name 'two' instead of 'one'"),
        (replace(DISK, record=replace(RECORD, access="xfs")), "access 'xfs' instead of 'ext4'"),
        (replace(DISK, record=replace(RECORD, fencing=True)), "fencing True instead of False"),
        (replace(DISK, file_path="other/x.img"), "volumePath 'other' instead of 'raid10/csi'"),
        (replace(DISK, port=4421), "nvmePort 4421 instead of 4420"),
        (replace(DISK, size=MIB), f"{MIB} bytes, outside of {64 * MIB} to any"),
    ],
)
def test_each_difference_is_told(disk: Disk, says: str) -> None:
    with pytest.raises(VolumeMismatch, match=says):
        require_same(disk, RECORD, ASKED, RANGE)
