"""A program of its own that reads a device: started as a child, so that it can be killed.

A read from a device whose target is gone waits for as long as the outage lasts, and no thread
that waits so can be ended. This file is therefore run by path, without the package and its
imports (``python -I -S probe.py``), and needs the standard library alone.

    probe.py inspect DEVICE MAJOR:MINOR
        prints what the samples show, as JSON: ``size`` in bytes, ``data`` (offset of the first
        byte found that is not zero, or null), ``unfinished`` (UUID of an xfs whose mkfs has not
        finished, or null) and ``digest`` of all samples.
    probe.py run DEVICE MAJOR:MINOR DIGEST PROGRAM ARGUMENT...
        inspects again, and becomes the program if the digest is still the same.
    probe.py claim DEVICE MAJOR:MINOR
        succeeds if nothing in the kernel (a mount in any mount namespace, device mapper, swap)
        holds the device.

Exit status: 0, or 1 for an error, 2 for another device or digest than expected, 3 for a device
that is held.
"""

import errno
import hashlib
import json
import mmap
import os
import struct
import sys
import uuid

KIB = 1024
MIB = 1024 * KIB

ERROR, CHANGED, HELD = 1, 2, 3

_START = 4 * MIB
_END = MIB
_SAMPLE = 64 * KIB
_SPREAD = 64
_BLOCK = 4096
# Where the copies of an ext superblock are: the groups 1, 3, 5, 7, 9, 25, 27 and 49, of 128 MiB
# each (8 MiB on small file systems); and those of btrfs.
_GROUPS = (1, 3, 5, 7, 9, 25, 27, 49)
_LANDMARKS = (
    *(group * 8 * MIB for group in _GROUPS),
    *(group * 128 * MIB for group in _GROUPS),
    64 * MIB,
    256 * KIB * MIB,
)

_XFS_MAGIC = b"XFSB"
_XFS_UUID = slice(32, 48)
_XFS_INPROGRESS = 126  # sb_inprogress, xfs_format.h: set by mkfs.xfs until its last write


class Changed(Exception):
    """The device is another one, or its content is not what it was."""


def sample_ranges(size: int) -> list[tuple[int, int]]:
    """The samples of a device of ``size`` bytes as sorted, separate ranges ``(start, end)``.

    The first 4 MiB, the last 1 MiB, 64 KiB at each 64th and at each place where a file system
    is known to leave a mark. A device of up to 8 MiB is read as a whole.
    """
    places = [size * step // _SPREAD for step in range(_SPREAD)] + list(_LANDMARKS)
    wanted = [(0, _START), (size - _END, size), *((place, place + _SAMPLE) for place in places)]
    ranges: list[tuple[int, int]] = []
    for first, last in sorted(wanted):
        # Direct reads begin and end at a block.
        start = max(0, first // _BLOCK * _BLOCK)
        end = min(-(-last // _BLOCK) * _BLOCK, size)
        if start >= end:
            continue
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def open_device(path: str, devno: str, flags: int = 0) -> int:
    """A descriptor of the device, proven to have the number ``devno``.

    As long as it is open, the kernel gives neither the device's name nor its number to another.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    found = os.fstat(descriptor).st_rdev
    if f"{os.major(found)}:{os.minor(found)}" != devno:
        os.close(descriptor)
        raise Changed(f"{path} is device {os.major(found)}:{os.minor(found)}, not {devno}")
    return descriptor


def open_direct(path: str, devno: str) -> int:
    """As :func:`open_device`, past the page cache where the device allows it."""
    try:
        return open_device(path, devno, os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return open_device(path, devno)


def inspect(descriptor: int) -> dict[str, object]:
    """What the samples show; see above."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    digest = hashlib.sha256(str(size).encode())
    data: int | None = None
    unfinished: str | None = None
    for start, end in sample_ranges(size):
        content = read(descriptor, start, end - start)
        digest.update(struct.pack("<QQ", start, end))
        digest.update(content)
        if data is None and content.count(0) != len(content):
            data = start + len(content) - len(content.lstrip(b"\0"))
        if start == 0 and content.startswith(_XFS_MAGIC) and content[_XFS_INPROGRESS]:
            unfinished = str(uuid.UUID(bytes=content[_XFS_UUID]))
    return {"size": size, "data": data, "unfinished": unfinished, "digest": digest.hexdigest()}


def read(descriptor: int, offset: int, length: int) -> bytes:
    """Exactly ``length`` bytes; raises OSError where the device gives fewer."""
    # Memory as direct reads want it: aligned to a page.
    with mmap.mmap(-1, length) as buffer:
        done = 0
        while done < length:
            with memoryview(buffer) as whole, whole[done:] as rest:
                count = os.preadv(descriptor, [rest], offset + done)
            if count <= 0:
                raise OSError(errno.EIO, f"nothing to read at byte {offset + done}")
            done += count
        return buffer[:]


def become(program: list[str], descriptor: int, *, digest: str) -> None:
    """Turn into ``program``, if the device's samples still have ``digest``."""
    if inspect(descriptor)["digest"] != digest:
        raise Changed("the content has changed since it was looked at")
    # The program inherits the descriptor: until it ends, the name stays this device's.
    os.set_inheritable(descriptor, True)
    os.execvp(program[0], program)  # noqa: S606 - that is the point


def claim(path: str, devno: str) -> None:
    """Hold the device alone for a moment; a device that is gone is held by nobody."""
    try:
        os.close(open_device(path, devno, os.O_EXCL))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise


def main(arguments: list[str]) -> int:
    """Do what the arguments say; returns the exit status."""
    command, device, devno, *rest = arguments
    try:
        if command == "inspect":
            print(json.dumps(inspect(open_direct(device, devno))))  # noqa: T201 - a program's output
        elif command == "run":
            become(rest[1:], open_direct(device, devno), digest=rest[0])
        elif command == "claim":
            claim(device, devno)
        else:
            raise ValueError(f"unknown command {command}")
    except Changed as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return CHANGED
    except OSError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return HELD if command == "claim" and error.errno == errno.EBUSY else ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
