"""The one judge of how a volume is on this node: its connection, and what is mounted of it.

Pure rules over what was read of sysfs and the mount table. Health answers and metrics have words
of their own for the verdicts; what a verdict is, stands here alone.
"""

from collections.abc import Collection, Sequence
from enum import Enum

from rds_csi.filesystem.mounts import Mount
from rds_csi.model.block_device import DeviceNumber
from rds_csi.nvme.sysfs import Controller


class Link(Enum):
    """The way from this node to the volume."""

    GONE = "no connection: the kernel gave it up, or nobody made one"
    WAITING = "no connection is live: the kernel tries, I/O waits"
    EMPTY = "live, and leads to no device: the target exports nothing under this name"
    LIVE = "live, with a device"


class Shown(Enum):
    """What is mounted at a path of the volume's."""

    NOTHING = "no mount"
    STALE = "a device that is not the volume's now"
    READ_ONLY = "the volume's, which the kernel made read-only after an error"
    WELL = "the volume's"


def judge_link(controllers: Sequence[Controller], *, device: bool) -> Link:
    """The verdict about a volume's connections; ``device``: one of them leads to a device."""
    if not controllers:
        return Link.GONE
    if not any(controller.live for controller in controllers):
        return Link.WAITING
    return Link.LIVE if device else Link.EMPTY


def paths_down(addresses: Sequence[str], controllers: Sequence[Controller]) -> list[str]:
    """The addresses over which nothing reaches a volume, while another one carries its I/O.

    Of a volume with one address none, and with no live connection none: its link says so.
    """
    live = {controller.address for controller in controllers if controller.live}
    if len(addresses) < 2 or not live:
        return []
    return [address for address in addresses if address not in live]


def judge_mount(
    mounted: Sequence[Mount], devices: Collection[DeviceNumber], *, writable: bool
) -> Shown:
    """The verdict about the uppermost mount at a path of a file system.

    ``devices`` are the volume's numbers now; ``writable``: the volume was mounted to be written.
    """
    if not mounted:
        return Shown.NOTHING
    if mounted[-1].devno not in devices:
        return Shown.STALE
    if writable and mounted[-1].file_system_read_only:
        return Shown.READ_ONLY
    return Shown.WELL
