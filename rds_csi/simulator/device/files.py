"""The files of the device: real, sparse files under the root folder, one folder per pool.

Names are RouterOS names: byte strings without a leading slash, the first component being the
mount point of a pool. Anything else lies on the small internal storage, where files also land
while their pool is not mounted.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from ctypes import CDLL, c_long, get_errno
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rds_csi.simulator.device.faults import Quirks
from rds_csi.simulator.device.store import Pool, Store
from rds_csi.simulator.device.texts import (
    BAD_FILE_NAME,
    FILE_EXISTS,
    NO_DIRECTORY,
    NO_SUCH_FILE,
    NOT_ENOUGH_SPACE,
)
from rds_csi.simulator.language.values import RuntimeFault, to_text

INTERNAL_SIZE: Final = 128 * 1024**2
"""Bytes of internal storage (an RDS2216 has 128 MB of NAND)."""
_SUPERBLOCKS: Final = 4096
"""Bytes at the start of a disk that hold the superblock of ext4 or xfs."""
_INTERNAL: Final = "internal"
_LIBC: Final = CDLL(None, use_errno=True)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or folder as ``/file`` shows it."""

    name: str
    type: str
    size: int | None
    modified: float
    number: int
    """What the item id is made of."""


def normalise(path: str) -> str:
    """A path as ``/file`` names it: no leading slash, nothing that leads out of the root."""
    name = path.lstrip("/")
    if not name or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise RuntimeFault(BAD_FILE_NAME)
    return name


def allocated(status: os.stat_result, quirks: Quirks, *, punched: int = 0) -> int:
    """The bytes a file takes from its pool.

    A preallocated file takes its size, except for what was ``punched`` and not written since. Here
    it is a sparse file, so what was written is known: more than the rest is never given back.
    """
    written = status.st_blocks * 512
    if quirks.allocate or not quirks.preallocate:
        return written
    return status.st_size - min(punched, max(0, status.st_size - written))


class Files:
    """Files, and the space they take."""

    def __init__(
        self,
        root: Path,
        store: Store,
        quirks: Quirks,
        *,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """``look`` is called before space is counted: it tells :meth:`punched` the newest."""
        self._root = root
        self._store = store
        self._quirks = quirks
        self._look = look
        self._used: dict[str, int] = {}

    def folder(self, pool: Pool | None) -> Path:
        """Where the files of a pool, or of the internal storage, are."""
        path = self._root / to_text(pool.slot) if pool else self._root / _INTERNAL
        path.mkdir(parents=True, exist_ok=True)
        return path

    def path(self, name: str) -> Path:
        """The real path of a RouterOS file name."""
        pool = self._mounted_pool(name)
        if pool is None:
            return self.folder(None) / to_text(name)
        below = name.partition("/")[2]
        return self.folder(pool) / to_text(below) if below else self.folder(pool)

    def _mounted_pool(self, name: str) -> Pool | None:
        pool = self._store.pool_of(name)
        return pool if pool and pool.mounted else None

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return self.path(name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None

    # Space

    def used(self, pool: Pool | None) -> int:
        """Bytes taken on a pool or on the internal storage."""
        key = pool.slot if pool else ""
        exact = self._quirks.allocate or not self._quirks.preallocate
        if key not in self._used or exact:
            self._used[key] = sum(
                allocated(entry.stat(), self._quirks)
                for entry in _walk(self.folder(pool))
                if entry.is_file()
            )
        holes = 0 if exact else self._holes(pool)
        return self._used[key] - holes + (pool.filled if pool else 0)

    def _holes(self, pool: Pool | None) -> int:
        """What hosts gave back of preallocated files."""
        self._look()
        found = 0
        for name, count in self._store.punched.items():
            status = self._status(name)
            if status is not None and self._mounted_pool(name) is pool:
                found += status.st_size - allocated(status, self._quirks, punched=count)
        return found

    def punched(self, name: str, count: int) -> None:
        """Note that ``count`` more bytes of a file were discarded."""
        if self._quirks.discards == "free":
            self._store.punched[name] = self._store.punched.get(name, 0) + count
            self._store.dirty = True

    def free(self, pool: Pool | None) -> int:
        """Bytes left on a pool or on the internal storage."""
        size = pool.size if pool else INTERNAL_SIZE
        return max(0, size - self.used(pool))

    def recount(self) -> None:
        """Count the space again: somebody else may have changed the files."""
        self._used.clear()

    def _grow(self, pool: Pool | None, change: int) -> None:
        """Check that ``change`` more bytes fit, and count them."""
        if change > 0 and self._quirks.preallocate and change > self.free(pool):
            raise RuntimeFault(NOT_ENOUGH_SPACE)
        key = pool.slot if pool else ""
        if key in self._used:
            self._used[key] += change

    def file_system(self, name: str) -> str:
        """The file system whose superblock is in a file: ext4 or xfs; empty for anything else."""
        try:
            with self.path(name).open("rb") as file:
                start = file.read(_SUPERBLOCKS)
        except OSError:
            return ""
        if start.startswith(b"XFSB"):
            return "xfs"
        return "ext4" if start[0x438:0x43A] == b"\x53\xef" else ""

    # Changes

    def create(self, name: str, size: int) -> None:
        """A file of ``size`` bytes. One that exists is taken over as it is, with its content."""
        status = self._status(name)
        path = self.path(name)
        if status is None and not path.parent.is_dir():
            if not self._quirks.create_directories:
                raise RuntimeFault(NO_DIRECTORY)
            path.parent.mkdir(parents=True)
        self.resize(name, size, old=status.st_size if status else 0)

    def resize(self, name: str, size: int, *, old: int | None = None) -> None:
        """Make the file ``size`` bytes long."""
        if old is None:
            old = self.size(name)
        self._grow(self._mounted_pool(name), size - old)
        with self.path(name).open("ab") as file:
            file.truncate(size)
            if self._quirks.allocate and size > old:
                os.posix_fallocate(file.fileno(), old, size - old)

    def size(self, name: str) -> int:
        """The size of an existing file in bytes."""
        status = self._status(name)
        if status is None:
            raise RuntimeFault(NO_SUCH_FILE)
        return status.st_size

    def exists(self, name: str) -> bool:
        """Whether a file or folder of that name exists."""
        return self._status(name) is not None

    def add_directory(self, name: str) -> None:
        """A new folder; the one above must exist."""
        try:
            self.path(name).mkdir()
        except FileExistsError as error:
            raise RuntimeFault(FILE_EXISTS) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RuntimeFault(NO_DIRECTORY) from error

    def write(self, name: str, contents: bytes, *, new: bool) -> None:
        """Replace the content of a small file, or make one."""
        if new and self.exists(name):
            raise RuntimeFault(FILE_EXISTS)
        self.create(name, len(contents))
        self.resize(name, len(contents))
        self.path(name).write_bytes(contents)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        path, pool = self.path(name), self._mounted_pool(name)
        status = self._status(name)
        if status is None:
            return
        if path.is_dir():
            shutil.rmtree(path)
            self.recount()
        else:
            path.unlink()
            self._grow(pool, -allocated(status, self._quirks))
        self._store.forget_holes(name)

    def rename(self, old: str, new: str) -> None:
        """Move a file within the device."""
        if self.exists(new):
            raise RuntimeFault(FILE_EXISTS)
        try:
            self.path(old).rename(self.path(new))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RuntimeFault(NO_DIRECTORY) from error
        self._store.move_holes(old, new)
        self.recount()

    def copy(self, source: str, target: str) -> None:
        """Copy a file's bytes; holes stay holes."""
        if self.exists(target):
            raise RuntimeFault(FILE_EXISTS)
        size = self.size(source)
        self.create(target, size)
        with self.path(source).open("rb") as reader, self.path(target).open("r+b") as writer:
            _copy_data(reader.fileno(), writer.fileno(), size)

    def punch(self, name: str, offset: int, length: int) -> None:
        """Make a hole in a file, as a loop device does with what is discarded. Raises OSError."""
        with self.path(name).open("r+b") as file:
            mode = _KEEP_SIZE | _PUNCH_HOLE
            if _LIBC.fallocate64(file.fileno(), mode, c_long(offset), c_long(length)):
                number = get_errno()
                raise OSError(number, os.strerror(number))
        self.punched(name, length)

    # Listing

    def entry(self, name: str) -> FileEntry | None:
        """The entry of one name, if it exists."""
        status = self._status(name)
        return self._entry(name, status) if status else None

    def entries(self) -> Iterator[FileEntry]:
        """All files and folders, folders before what they hold."""
        for pool in sorted(self._store.pools.values(), key=lambda pool: pool.mount_point):
            if not pool.mounted:
                continue
            folder = self.folder(pool)
            yield self._entry(pool.mount_point, folder.stat())
            for found in _walk(folder):
                below = os.path.relpath(found.path, folder)
                yield self._entry(f"{pool.mount_point}/{_from_os(below)}", found.stat())
        folder = self.folder(None)
        for found in _walk(folder):
            yield self._entry(_from_os(os.path.relpath(found.path, folder)), found.stat())

    def _entry(self, name: str, status: os.stat_result) -> FileEntry:
        if stat.S_ISDIR(status.st_mode):
            kind = "directory" if "/" in name or not self._mounted_pool(name) else "disk"
            return FileEntry(name, kind, None, status.st_mtime, status.st_ino)
        stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
        kind = f".{suffix} file" if dot and stem else "file"
        return FileEntry(name, kind, status.st_size, status.st_mtime, status.st_ino)


def _from_os(text: str) -> str:
    return os.fsencode(text).decode("latin-1")


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_symlink():
            continue
        yield entry
        if entry.is_dir():
            yield from _walk(Path(entry.path))


def _copy_data(source: int, target: int, size: int) -> None:
    """Copy the parts of a file that are no holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(target, start, os.SEEK_SET)
        while start < end and (sent := os.sendfile(target, source, None, min(end - start, 2**20))):
            start += sent
        position = end
