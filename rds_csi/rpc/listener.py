"""The unix socket the driver listens on: never another's, never half made.

The socket is made under a temporary name and renamed, so its final name only ever leads to a
socket that answers and that nobody but its owner may use. A lock on the directory, held for that
moment, settles two drivers starting at once; no lock file, for the CSI spec wants the directory
free of other files.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from rds_csi.errors import SocketUnusable

LONGEST_PATH: Final = 107
"""Bytes; Linux sockaddr_un.sun_path without the final NUL."""
_TEMPORARY: Final = ".new"
_BACKLOG: Final = 100
_PROBE_TIMEOUT: Final = 2.0


class Listener:
    """A listening socket and the name it is found under."""

    def __init__(self, path: Path, sock: socket.socket, identity: tuple[int, int]) -> None:
        self.path = path
        self.socket = sock
        self._identity = identity

    @classmethod
    def open(cls, path: Path) -> Self:
        """Listen at ``path``, for this process's user alone.

        A socket that nobody answers on is replaced. Raises :class:`SocketUnusable` where
        somebody does, where the path is no socket, or where the directory does not allow it.
        """
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise SocketUnusable(f"{path} is longer than the {LONGEST_PATH} bytes of a socket path")
        try:
            with _directory_lock(path.parent):
                _check_free(path)
                return cls._bind(path)
        except OSError as error:
            raise SocketUnusable(
                f"cannot listen at {path}: {error.strerror}",
                advice="its directory must exist and be writable",
            ) from error

    @classmethod
    def _bind(cls, path: Path) -> Self:
        temporary = path.parent / _TEMPORARY
        if _is_socket(temporary):
            temporary.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(os.fspath(temporary))
            temporary.chmod(0o600)
            sock.listen(_BACKLOG)
            temporary.rename(path)
        except OSError:
            sock.close()
            raise
        return cls(path, sock, _identity(path))

    def remove(self) -> None:
        """Remove the name, if it still leads to this socket and not to a successor's."""
        try:
            if _identity(self.path) == self._identity:
                self.path.unlink()
        except FileNotFoundError:
            pass


@contextmanager
def _directory_lock(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SocketUnusable(
                f"another process is claiming a socket in {directory} at this moment",
                advice="two drivers must not share a socket",
            ) from None
        yield
    finally:
        os.close(descriptor)


def _check_free(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not _is_socket(path):
        raise SocketUnusable(f"{path} exists and is not a socket", advice="remove it if it may go")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
            raise
    raise SocketUnusable(
        f"another process answers at {path}", advice="stop it, or choose another socket"
    )


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
