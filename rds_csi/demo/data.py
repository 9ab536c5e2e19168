"""The application in the demo: writes to a volume, and checks what it reads back."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = 1024**2


@dataclass(frozen=True, slots=True)
class Written:
    """What was written where: enough to recognise it later."""

    path: Path
    offset: int
    size: int
    digest: str


def write(path: Path, *, offset: int, size: int) -> Written:
    """Write ``size`` random bytes, not returning before the device has them.

    Blocks for as long as an outage lasts: call it in a thread.
    """
    digest = hashlib.sha256()
    flags = os.O_WRONLY | (0 if path.is_block_device() else os.O_CREAT)
    descriptor = os.open(path, flags, 0o600)
    try:
        for start in range(0, size, _BLOCK):
            block = os.urandom(min(_BLOCK, size - start))
            digest.update(block)
            _write_all(descriptor, block, offset + start)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Written(path, offset, size, digest.hexdigest())


def intact(written: Written) -> bool:
    """Whether the device, not the page cache, gives back what was written."""
    digest = hashlib.sha256()
    descriptor = os.open(written.path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, written.offset, written.size, os.POSIX_FADV_DONTNEED)
        for start in range(0, written.size, _BLOCK):
            length = min(_BLOCK, written.size - start)
            digest.update(os.pread(descriptor, length, written.offset + start))
    finally:
        os.close(descriptor)
    return digest.hexdigest() == written.digest


def _write_all(descriptor: int, block: bytes, offset: int) -> None:
    done = 0
    while done < len(block):
        done += os.pwrite(descriptor, block[done:], offset + done)
