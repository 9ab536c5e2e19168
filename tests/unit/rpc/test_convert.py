"""Between the wire's messages and the driver's own types: what leaves is checked."""

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.errors import InvalidRequest, SizeOutOfRange
from rds_csi.model.access import AccessMode, Capability
from rds_csi.model.health import Problem, Severity
from rds_csi.model.volume import CapacityRange
from rds_csi.rpc import convert

Mode = csi.VolumeCapabilityAccessModeMode
BLOCK = csi.VolumeCapabilityBlockVolume()
SICK = [
    Problem(Severity.DEGRADED, "Slow", "a path is gone"),
    Problem(Severity.DATA_LOSS, "Lost", "blocks read as zeros"),
]


Mount = csi.VolumeCapabilityMountVolume


def wire(
    mode: int | None = 1,
    *,
    block: csi.VolumeCapabilityBlockVolume | None = None,
    mount: Mount | None = None,
) -> csi.VolumeCapability:
    """A capability as it comes in; without a mode where that is None."""
    access = None if mode is None else csi.VolumeCapabilityAccessMode(mode=Mode(mode))
    return csi.VolumeCapability(access_mode=access, block=block, mount=mount)


def test_a_mount_keeps_its_file_system_and_its_flags_in_their_order() -> None:
    found = convert.capability(wire(2, mount=Mount(fs_type="xfs", mount_flags=["ro", "noatime"])))
    assert found == Capability(
        access_type="mount",
        mode=AccessMode.SINGLE_NODE_READER_ONLY,
        fs_type="xfs",
        mount_flags=("ro", "noatime"),
    )


@pytest.mark.parametrize("mode", list(AccessMode))
def test_every_mode_of_csi_is_one_of_ours(mode: AccessMode) -> None:
    found = convert.capability(wire(mode.value, block=BLOCK))
    assert found == Capability(access_type="block", mode=mode)


def test_the_modes_are_all_that_csi_has() -> None:
    assert {mode.value for mode in AccessMode} == {mode.value for mode in Mode} - {0}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (None, "volume_capability is missing"),
        (wire(), "exactly one of block and mount"),
        (wire(block=BLOCK, mount=Mount()), "exactly one of block and mount"),
        (wire(0, block=BLOCK), "no known access mode: 0"),
        (wire(None, block=BLOCK), "no known access mode: 0"),
        (wire(8, block=BLOCK), "no known access mode: 8"),
        (wire(mount=Mount(volume_mount_group="1000")), "volume_mount_group is not offered"),
    ],
)
def test_what_says_nothing_definite_is_refused(
    message: csi.VolumeCapability | None, text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        convert.capability(message)
    with pytest.raises(InvalidRequest, match=text):
        convert.supported(message)
    if message is not None:
        with pytest.raises(InvalidRequest, match=text):
            convert.capabilities([wire(block=BLOCK), message])


def test_only_supported_means_that_we_can_serve_it() -> None:
    """To be asked whether it is supported, it has to be a capability first."""
    many = wire(5, mount=Mount(fs_type="ext4"))
    assert convert.capability(many).mode == AccessMode.MULTI_NODE_MULTI_WRITER
    with pytest.raises(InvalidRequest, match="would corrupt it"):
        convert.supported(many)
    with pytest.raises(InvalidRequest, match="file system 'btrfs' is none of ext4, xfs"):
        convert.supported(wire(mount=Mount(fs_type="btrfs")))
    assert convert.supported(wire(5, block=BLOCK)).access_type == "block"


def test_a_request_without_capabilities_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="volume_capabilities is empty"):
        convert.capabilities([])
    both = convert.capabilities([wire(block=BLOCK), wire(2, block=BLOCK)])
    assert [each.mode.value for each in both] == [1, 2]


def test_a_range_is_checked_and_may_be_missing() -> None:
    assert convert.capacity_range(None) == CapacityRange()
    assert convert.capacity_range(csi.CapacityRange(required_bytes=1, limit_bytes=2)) == (
        CapacityRange(required=1, limit=2)
    )
    with pytest.raises(SizeOutOfRange):
        convert.capacity_range(csi.CapacityRange(required_bytes=2, limit_bytes=1))
    with pytest.raises(InvalidRequest, match="negative"):
        convert.capacity_range(csi.CapacityRange(limit_bytes=-1))


def test_health_names_the_volume_and_everything_that_is_wrong() -> None:
    found = convert.volume_health("pvc-1", SICK)
    assert found.volume_id == "pvc-1"
    assert [(int(each.status), each.reason, each.message) for each in found.health_statuses] == [
        (1, "Slow", "a path is gone"),
        (3, "Lost", "blocks read as zeros"),
    ]
    assert convert.volume_health("pvc-1", []).health_statuses == []


def test_the_severities_are_those_of_csi() -> None:
    theirs = {each.value: each.name for each in csi.VolumeHealthErrorType}
    assert {severity.value for severity in Severity} <= set(theirs)
    for severity in Severity:
        assert severity.name in theirs[severity.value]


def condition(problems: list[Problem]) -> tuple[bool, bytes]:
    """``abnormal`` and ``message`` of the VolumeCondition that an old client finds."""
    response = csi.NodeGetVolumeStatsResponse()
    convert.add_condition(response, problems)
    raw = bytes(response)
    assert raw[0] == 2 << 3 | 2  # field 2, length-delimited
    length, body = varint(raw[1:])
    assert len(body) == length
    abnormal = body.startswith(b"\x08\x01")
    body = body[2:] if abnormal else body
    assert body[0] == 2 << 3 | 2
    length, text = varint(body[1:])
    assert len(text) == length
    return abnormal, text


def varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, data[index + 1 :]
    raise AssertionError("no end")


def test_an_older_client_finds_the_condition_where_it_stood() -> None:
    assert condition([]) == (False, b"healthy")
    # The worst comes first.
    assert condition(SICK) == (True, b"Lost: blocks read as zeros; Slow: a path is gone")


@pytest.mark.parametrize("length", [100, 110, 118, 119, 120, 121, 122, 127, 128, 1000, 5000])
def test_a_condition_of_any_length_is_well_formed_and_bounded(length: int) -> None:
    """Lengths from 128 on take two bytes; beyond 1024 the text is cut."""
    abnormal, text = condition([Problem(Severity.DEGRADED, "R", "x" * length)])
    assert abnormal
    assert text == (b"R: " + b"x" * length)[:1024]
