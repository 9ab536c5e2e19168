"""Between the wire's messages and the driver's own types, for both services.

The generated messages hold whatever a client sent: numbers outside an enum, both arms of a
``oneof``, nothing at all. What leaves this module is checked.
"""

from collections.abc import Sequence

import betterproto2

from rds_csi.csi import v1 as csi
from rds_csi.errors import InvalidRequest
from rds_csi.model.access import AccessMode, Capability
from rds_csi.model.health import Problem, summary
from rds_csi.model.volume import CapacityRange


def capability(message: csi.VolumeCapability | None) -> Capability:
    """The capability a message describes, supported or not.

    Raises :class:`InvalidRequest` where it is missing or says nothing definite.
    """
    if message is None:
        raise InvalidRequest("volume_capability is missing")
    if (message.block is None) == (message.mount is None):
        raise InvalidRequest("volume_capability must have exactly one of block and mount")
    number = int(message.access_mode.mode) if message.access_mode is not None else 0
    try:
        mode = AccessMode(number)
    except ValueError:
        raise InvalidRequest(f"volume_capability has no known access mode: {number}") from None
    if message.mount is None:
        return Capability(access_type="block", mode=mode)
    if message.mount.volume_mount_group:
        raise InvalidRequest(
            "volume_mount_group is not offered", advice="use the pod's fsGroup instead"
        )
    return Capability(
        access_type="mount",
        mode=mode,
        fs_type=message.mount.fs_type,
        mount_flags=tuple(message.mount.mount_flags),
    )


def supported(message: csi.VolumeCapability | None) -> Capability:
    """The capability, if we can serve it; else :class:`InvalidRequest` says why not."""
    found = capability(message)
    why = found.unsupported()
    if why:
        raise InvalidRequest(why)
    return found


def capabilities(messages: Sequence[csi.VolumeCapability]) -> tuple[Capability, ...]:
    """All capabilities of a request that must name at least one."""
    if not messages:
        raise InvalidRequest("volume_capabilities is empty")
    return tuple(capability(message) for message in messages)


def capacity_range(message: csi.CapacityRange | None) -> CapacityRange:
    """The range, checked; without bounds where the message is missing."""
    if message is None:
        return CapacityRange()
    return CapacityRange(message.required_bytes, message.limit_bytes).check()


def volume_health(volume_id: str, problems: Sequence[Problem]) -> csi.VolumeHealth:
    """The health of one volume, as CSI 1.13 has it."""
    return csi.VolumeHealth(
        volume_id=volume_id,
        health_statuses=[
            csi.VolumeHealthVolumeHealthEntry(
                status=csi.VolumeHealthErrorType(each.severity),
                reason=each.reason,
                message=each.message,
            )
            for each in problems
        ],
    )


CONDITION_CAPABILITY_OF_NODE = 4
CONDITION_CAPABILITY_OF_CONTROLLER = 11
"""``VOLUME_CONDITION`` as CSI knew it until 1.12; both numbers are reserved since."""
_CONDITION_FIELD = b"\x12"
"""Field 2, length-delimited: where ``VolumeCondition`` stood, and where it is still looked for."""


def add_condition(message: betterproto2.Message, problems: Sequence[Problem]) -> None:
    """Add the ``VolumeCondition`` of CSI 1.12 to a message that had one.

    Kubelets and health monitors before Kubernetes 1.37 know no other word of a volume's health.
    The field is gone from the proto file, so it is written as an unknown one.
    """
    text = summary(list(problems)).encode()[:_LONGEST_CONDITION] or b"healthy"
    condition = (b"\x08\x01" if problems else b"") + b"\x12" + _length(text) + text
    message._unknown_fields += _CONDITION_FIELD + _length(condition) + condition  # noqa: SLF001


_LONGEST_CONDITION = 1024


def _length(data: bytes) -> bytes:
    """The length as a base-128 varint (protobuf encoding)."""
    length, encoded = len(data), bytearray()
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*encoded, length])
