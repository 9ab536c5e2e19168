"""Loop devices over the files of disks: what an RDS puts between a file and its NVMe target.

"A file mounted as a block device (loop)", says the manual. It decides what hosts see: blocks of
512 bytes, a size that stays what it was when the device was attached, and discards that punch
holes into the file.
"""

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BLOCK: Final = 512
CONTROL: Final = Path("/dev/loop-control")
_GET_FREE, _CONFIGURE, _SET_CAPACITY = 0x4C82, 0x4C0A, 0x4C07
_AUTOCLEAR, _DIRECT_IO = 4, 16
_CONFIG: Final = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")
"""``struct loop_config`` of ``linux/loop.h``, with ``loop_info64`` in it."""
_ATTEMPTS: Final = 10
_DISCARD_SECTORS: Final = 13
"""Which word of ``stat`` in sysfs."""


def make_node(path: Path, numbers: str, kind: int) -> None:
    """A device node of these numbers (``7:3``); fine if it is there by now. Raises OSError."""
    major, _, minor = numbers.strip().partition(":")
    with contextlib.suppress(FileExistsError):
        os.mknod(path, kind | 0o600, os.makedev(int(major), int(minor)))


class Loops:
    """Attaches files. Nothing is ever detached: the kernel does that with the last user."""

    def __init__(self, sysfs: Path = Path("/sys/block")) -> None:
        self._sysfs = sysfs

    @contextlib.contextmanager
    def attached(self, path: Path, *, direct: bool) -> Iterator[Path]:
        """A loop device over a file, by its path; there while the context or a user has it open.

        ``direct``: past the page cache, where the file system can. Raises OSError.
        """
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            device, descriptor = self._attach(file, _AUTOCLEAR | (_DIRECT_IO if direct else 0))
        finally:
            os.close(file)
        try:
            yield device
        finally:
            os.close(descriptor)

    def _attach(self, file: int, flags: int) -> tuple[Path, int]:
        config = _CONFIG.pack(file, BLOCK, *[0] * 8, flags, b"", b"", b"", *[0] * 10)
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            for attempt in range(_ATTEMPTS):
                device = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
                self.make_node(device)
                descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(descriptor, _CONFIGURE, config)
                except OSError:
                    # Somebody else was quicker; there are more.
                    os.close(descriptor)
                    if attempt == _ATTEMPTS - 1:
                        raise
                else:
                    return device, descriptor
        finally:
            os.close(control)
        raise AssertionError

    def make_node(self, device: Path) -> None:
        """Make the device's node where nobody does, as in a container: its ``/dev`` is its own."""
        if device.exists():
            return
        numbers = (self._sysfs / device.name / "dev").read_text()
        make_node(device, numbers, stat.S_IFBLK)

    def look_again(self, device: Path) -> None:
        """Let a loop device take the size that its file has now. Raises OSError."""
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _SET_CAPACITY)
        finally:
            os.close(descriptor)

    def discarded(self, device: Path) -> int:
        """Bytes that were ever discarded on a device of this name, its former files' too."""
        try:
            words = (self._sysfs / device.name / "stat").read_text().split()
        except OSError:
            return 0
        return int(words[_DISCARD_SECTORS]) * BLOCK
