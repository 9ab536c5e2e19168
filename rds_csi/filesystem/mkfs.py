"""The ``mkfs`` commands: a file system that every kernel of the cluster mounts, whoever made it.

What ``mkfs`` does by itself grows from release to release, and a volume made on the newest node has
to be mounted on the oldest, perhaps years later. So the features are pinned to those that Linux
5.10 mounts (its ``fs/ext4/ext4.h`` and ``fs/xfs/libxfs/xfs_format.h``), unless the StorageClass
asks for the newest.

ext4: all features are named, and nothing else is made, whatever ``mke2fs.conf`` says. Left out are
``orphan_file`` (Linux 5.15) and ``metadata_csum_seed`` (which e2fsprogs before 1.43 and many boot
loaders refuse). Every e2fsprogs since 1.43 knows what is named.

xfs: those are turned off that Linux 5.10 does not mount: ``nrext64`` (5.19), ``exchange`` and
``parent`` (6.10), ``metadir`` (6.13). An older ``mkfs.xfs`` refuses an option that it does not know
as it would refuse a mistake, so it is asked first: without a device it prints them all.
"""

import re
from collections.abc import Mapping
from typing import Final

EXT4_FEATURES: Final = (
    *("has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "extent", "64bit"),
    *("flex_bg", "sparse_super", "large_file", "huge_file", "dir_nlink", "extra_isize"),
    "metadata_csum",
)
"""What e2fsprogs 1.46 makes by itself, and all that is made."""

_TOO_NEW: Final[Mapping[str, str]] = {
    "nrext64": "-i",
    "exchange": "-i",
    "parent": "-n",
    "metadir": "-m",
}
"""Features of xfs that Linux 5.10 does not mount, and the option that each belongs to."""


def mkfs_arguments(
    fs_type: str, device: str, *, uuid: str, again: bool, usage: str = "", newest: bool = False
) -> list[str]:
    """The ``mkfs`` command for a device that may be formatted.

    ``usage`` is what ``mkfs.xfs`` prints without a device; ``newest`` leaves the features to the
    program.

    No force: both programs refuse a device that is in use, and ``mkfs.xfs`` one that holds
    something, unless it is its own unfinished work (``again``). Nothing is discarded first: the
    device is blank, and a discard of terabytes over the network would only take time. ext4:
    no blocks are reserved for root, for a volume is no system disk, and inode tables are zeroed
    by the kernel later.
    """
    if fs_type == "xfs":
        force = ["-f"] if again else []
        features = [] if newest else _without_too_new(usage)
        return ["mkfs.xfs", "-q", "-K", *force, *features, "-m", f"uuid={uuid}", device]
    pinned = [] if newest else ["-O", ",".join(("none", *EXT4_FEATURES))]
    extended = "nodiscard,lazy_itable_init=1"
    return ["mkfs.ext4", "-q", "-m", "0", "-E", extended, *pinned, "-U", uuid, device]


def _without_too_new(usage: str) -> list[str]:
    """Options that turn off what the program knows of :data:`_TOO_NEW`."""
    return [
        word
        for feature, option in _TOO_NEW.items()
        if re.search(rf"\b{feature}=0\|1", usage)
        for word in (option, f"{feature}=0")
    ]
