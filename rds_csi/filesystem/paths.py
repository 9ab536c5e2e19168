"""Which paths of the node a caller may name: those under the kubelet's directory, and no others.

The node service runs as root on the host's file system. A path from a request is therefore
taken only if it lies under the kubelet's directory, as text and after every symbolic link.
"""

import os
import stat
from pathlib import Path

from rds_csi.errors import FailedPrecondition, InvalidRequest

_MAXIMUM_LENGTH = 4095
"""Bytes; Linux ``PATH_MAX`` without its NUL."""


class Paths:
    """The rule for paths, for one kubelet directory (which may itself be a symbolic link)."""

    def __init__(self, kubelet_dir: Path) -> None:
        self._base = kubelet_dir

    def check(self, path: str, field: str) -> str:
        """The path as the kernel's mount table spells it: with symbolic links resolved.

        Raises :class:`InvalidRequest`, naming ``field``, for a path that is empty, relative, not
        normalised, outside of the kubelet's directory, or that a link leads out of it.
        """
        if not path:
            raise InvalidRequest(f"{field} is missing")
        shown = repr(path[:256])
        if "\0" in path or len(os.fsencode(path)) > _MAXIMUM_LENGTH:
            raise InvalidRequest(f"{field} {shown} is no path")
        if not path.startswith("/") or os.path.normpath(path) != path.rstrip("/"):
            raise InvalidRequest(f"{field} {shown} is not an absolute path without . and ..")
        if Path(path) == self._base or not Path(path).is_relative_to(self._base):
            raise InvalidRequest(
                f"{field} {shown} is not under {self._base}",
                advice="--kubelet-dir must be the directory of this node's kubelet",
            )
        # The last part stays as it is: it may be a mount point of a device that does not answer.
        parent = Path(os.path.realpath(Path(path).parent))
        if not parent.is_relative_to(os.path.realpath(self._base)):
            raise InvalidRequest(f"{field} {shown} leads out of {self._base} by a symbolic link")
        return str(parent / Path(path).name)


def kind(path: str) -> str:
    """What is at ``path``: ``absent``, ``directory``, ``file``, ``block``, or ``other``."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return "absent"
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISREG(mode):
        return "file"
    return "block" if stat.S_ISBLK(mode) else "other"


def make_directory(path: str, *, volume: str) -> bool:
    """Make sure of a directory at ``path``; returns whether this call made it.

    The parent is the caller's duty (CSI spec, NodePublishVolume).
    """
    if kind(path) == "directory":
        return False
    try:
        Path(path).mkdir(mode=0o750)
    except OSError as error:
        raise FailedPrecondition(
            f"no directory can be made at {path}: {error.strerror}", volume=volume
        ) from error
    return True


def make_file(path: str, *, volume: str) -> bool:
    """Make sure of an empty regular file at ``path``; returns whether this call made it."""
    if kind(path) == "file":
        return False
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise FailedPrecondition(
            f"no file can be made at {path}: {error.strerror}", volume=volume
        ) from error
    return True


def remove(path: str, *, volume: str) -> None:
    """Remove what a publish left at ``path``, once nothing is mounted there.

    That is an empty directory, an empty file, or a device node of the Go driver. Anything else,
    a directory with content above all, is somebody's data: it stays, and
    :class:`FailedPrecondition` says so.
    """
    found = kind(path)
    try:
        if found == "directory":
            Path(path).rmdir()
        elif found == "block" or (found == "file" and os.lstat(path).st_size == 0):
            Path(path).unlink()
        elif found != "absent":
            raise FailedPrecondition(
                f"{path} holds something that no publish made; it was left as it is",
                volume=volume,
                advice="look what it is and move it away",
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise FailedPrecondition(
            f"{path} cannot be removed and was left as it is: {error.strerror}",
            volume=volume,
            advice="if files are in it, they were written while nothing was mounted there",
        ) from error
