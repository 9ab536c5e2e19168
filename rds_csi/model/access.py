"""How a volume may be used: CSI's access modes and capabilities, made plain."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from rds_csi.model.volume import MINIMUM_SIZE, MINIMUM_XFS


class AccessMode(IntEnum):
    """CSI ``VolumeCapability.AccessMode.Mode``, same numbers."""

    SINGLE_NODE_WRITER = 1
    SINGLE_NODE_READER_ONLY = 2
    MULTI_NODE_READER_ONLY = 3
    MULTI_NODE_SINGLE_WRITER = 4
    MULTI_NODE_MULTI_WRITER = 5
    SINGLE_NODE_SINGLE_WRITER = 6
    SINGLE_NODE_MULTI_WRITER = 7

    @property
    def multi_node(self) -> bool:
        """Whether more than one node may have the volume at once."""
        return self in _MULTI_NODE

    @property
    def read_only(self) -> bool:
        """Whether nobody may write."""
        return self in (AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY)


_MULTI_NODE: Final = frozenset(
    {
        AccessMode.MULTI_NODE_READER_ONLY,
        AccessMode.MULTI_NODE_SINGLE_WRITER,
        AccessMode.MULTI_NODE_MULTI_WRITER,
    }
)

AccessType = Literal["mount", "block"]

FILE_SYSTEMS: Final = ("ext4", "xfs")

DEFAULT_FILE_SYSTEM: Final = "ext4"

BLOCK: Final = "block"
"""What a record says of a volume without a file system of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """How a volume is used: CSI ``VolumeCapability``, made plain."""

    access_type: AccessType
    mode: AccessMode
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()

    @property
    def file_system(self) -> str:
        """The file system to make or expect; empty for block."""
        return (self.fs_type or DEFAULT_FILE_SYSTEM) if self.access_type == "mount" else ""

    @property
    def use(self) -> str:
        """What a record says of a volume used like this: the file system, or ``block``."""
        return self.file_system or BLOCK

    def unsupported(self) -> str:
        """Why we cannot serve it, or an empty string.

        Several writers on several nodes would destroy ext4 and xfs, so those modes are for raw
        block, where the application coordinates (KubeVirt live migration).
        """
        if self.access_type == "mount":
            if self.file_system not in FILE_SYSTEMS:
                return f"file system {self.fs_type!r} is none of {', '.join(FILE_SYSTEMS)}"
            if self.mode in (
                AccessMode.MULTI_NODE_MULTI_WRITER,
                AccessMode.MULTI_NODE_SINGLE_WRITER,
            ):
                return (
                    f"access mode {self.mode.name} with a file system would corrupt it; "
                    "use volumeMode: Block for ReadWriteMany"
                )
        return ""


def minimum_size(wanted: Iterable[Capability]) -> int:
    """The bytes of the smallest volume that can be used in all these ways."""
    return MINIMUM_XFS if any(each.file_system == "xfs" for each in wanted) else MINIMUM_SIZE
