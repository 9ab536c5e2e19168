"""From the wire's messages to the driver's own types, for both services.

The generated messages hold whatever a client sent: numbers outside an enum, both arms of a
``oneof``, nothing at all. What leaves this module is checked.
"""

from collections.abc import Sequence

from rds_csi.csi import v1 as csi
from rds_csi.errors import InvalidRequest
from rds_csi.volume import AccessMode, Capability, CapacityRange


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
