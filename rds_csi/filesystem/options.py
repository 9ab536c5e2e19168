"""The mount options a volume may ask for.

A list of what is allowed, because an option can do harm: ``journal_path=`` or a second option
behind a comma would change what is mounted, and ``nobarrier`` loses data.

One option may hold commas: the SELinux label that the kubelet mounts with where the CSIDriver says
``seLinuxMount``, as ``context="system_u:object_r:container_file_t:s0:c1,c2"``. mount(8) wants the
quotes, and drops the option itself on a host without SELinux.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from rds_csi.errors import InvalidRequest


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMMON: Final = _words(
    "async atime defaults diratime dirsync discard exec lazytime noatime nodiratime "
    "nodiscard noexec nolazytime norelatime nosuid nodev nostrictatime relatime ro rw "
    "strictatime sync _netdev nofail"
)
_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "ext4": _words(
        "acl auto_da_alloc bsddf block_validity delalloc dioread_lock dioread_nolock grpid "
        "grpquota i_version init_itable journal_checksum minixdf noacl noauto_da_alloc "
        "noblock_validity nodelalloc nogrpid noinit_itable noquota prjquota quota sysvgroups "
        "user_xattr usrquota bsdgroups"
    ),
    "xfs": _words(
        "attr2 filestreams gqnoenforce gquota grpid grpquota ikeep inode32 inode64 largeio "
        "noalign noattr2 noikeep nolargeio noquota nouuid pqnoenforce pquota prjquota "
        "qnoenforce quota swalloc sysvgroups bsdgroups uqnoenforce uquota usrquota wsync"
    ),
}
_LABEL: Final = re.compile(
    r'context="[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+(:[A-Za-z0-9_.,:-]+)?"'
)
"""User, role, type and, where the policy has them, levels (``s0:c1,c2`` or ``s0-s0:c0.c1023``)."""
_LONGEST_LABEL: Final = 512
_NUMBER: Final = "[0-9]{1,10}"
_SIZE: Final = "[0-9]{1,10}[kKmMgG]?"
_VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "ext4": {
        "commit": _NUMBER,
        "data": "journal|ordered|writeback",
        "errors": "continue|remount-ro",
        "init_itable": _NUMBER,
        "inode_readahead_blks": _NUMBER,
        "max_batch_time": _NUMBER,
        "min_batch_time": _NUMBER,
        "stripe": _NUMBER,
    },
    "xfs": {
        "allocsize": _SIZE,
        "logbsize": _SIZE,
        "logbufs": _NUMBER,
        "sunit": _NUMBER,
        "swidth": _NUMBER,
    },
}


def mount_options(
    fs_type: str, flags: Sequence[str], *, read_only: bool, shared: bool
) -> tuple[str, ...]:
    """The options to mount with, from the flags of a volume's capability.

    xfs always gets ``nouuid``: a clone or a restored snapshot carries its origin's UUID, and
    the kernel refuses a second one. A file system that is ``shared`` by several reading nodes
    is mounted without replaying its journal, which would write.

    Raises :class:`InvalidRequest` for a flag that is not allowed.
    """
    for flag in flags:
        if not _allowed(fs_type, flag):
            raise InvalidRequest(
                f"mount option {flag[:64]!r} is not allowed for {fs_type}",
                advice="see the list of mount options in the user guide",
            )
    if len({flag for flag in flags if flag.startswith("context=")}) > 1:
        raise InvalidRequest("more than one SELinux context is asked for, and a mount has one")
    # Each once: with SELinux, the kernel refuses a label that is given twice.
    options = [flag for flag in dict.fromkeys(flags) if flag not in ("ro", "rw", "defaults")]
    if fs_type == "xfs" and "nouuid" not in options:
        options.append("nouuid")
    if read_only and shared:
        options.append("noload" if fs_type == "ext4" else "norecovery")
    return ("ro" if read_only or "ro" in flags else "rw", *options)


def _allowed(fs_type: str, flag: str) -> bool:
    name, equals, value = flag.partition("=")
    if name == "context":
        return len(flag) <= _LONGEST_LABEL and _LABEL.fullmatch(flag) is not None
    if not equals:
        return flag in _COMMON or flag in _WORDS[fs_type]
    pattern = _VALUES[fs_type].get(name)
    return pattern is not None and re.fullmatch(pattern, value) is not None
