"""A program of its own that acts on a device: started as a child, so that it can be killed.

A read from a device whose target is gone waits for as long as the outage lasts, and no thread
that waits so can be ended. This file is therefore run by path, without the package and its
imports (``python -I -S probe.py``), and needs the standard library alone.

    probe.py SYS DEVICE MAJOR:MINOR NQN HOSTNQN MAP COMMAND [ARGUMENT...]

opens the device and proves, before anything else, that what it holds open has that number and is
the namespace of that subsystem, connected with that host NQN, as SYS (``/sys``) shows it; or, with
a MAP other than ``-``, the map of that dm UUID, over such namespaces alone. Names and numbers are
given anew to other volumes; none of what is held open is. The commands:

    inspect [log]
        prints what direct reads of the samples show, as JSON (see :class:`Samples`), with
        ``blkid`` asked about these very bytes, never about the device: a signature that it
        cannot read is one that it does not see. With ``log``, also whether an xfs has a log
        that has to be replayed (``xfs_logprint``).
    superblock
        prints the first superblock of an ext or xfs, read past the cache, as JSON, or ``null``.
    run DIGEST PROGRAM ARGUMENT...
        becomes the program, with the device still held open. With a DIGEST other than ``-``
        only if the samples still have it.
    claim
        succeeds if no mount in any namespace, device mapper or swap holds it, or if it is gone.

Exit status: 0, that of the program, or one of those below.
"""

import errno
import hashlib
import json
import mmap
import os
import signal
import struct
import sys

# ruff: noqa: PTH110, PTH118, PTH120, PTH123, PTH208
# Importing pathlib takes longer than all that is done here.

KIB = 1024
MIB = 1024 * KIB

ERROR, OTHER, CHANGED, HELD, MISSING = 111, 112, 113, 114, 115
"""A failure; another device, or none any more; other content; in use; no such program. None of
the programs that are run here ends with one of these."""

NO_MAP = "-"
_START, _END, _SAMPLE, _SPREAD = 4 * MIB, MIB, 64 * KIB, 64
_BLOCK, _SECTOR = 4096, 512
# Where the copies of an ext superblock are: the groups 1, 3, 5, 7, 9, 25, 27 and 49, of 128 MiB
# each (8 MiB on small file systems); and those of btrfs.
_GROUPS = (1, 3, 5, 7, 9, 25, 27, 49)
_LANDMARKS = (
    *(group * 8 * MIB for group in _GROUPS),
    *(group * 128 * MIB for group in _GROUPS),
    64 * MIB,
    256 * KIB * MIB,
)
_GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)

# Of the superblock of ext4 (kernel: Documentation/filesystems/ext4/super.rst), 1024 bytes at 1024.
_EXT = 1024
_EXT_MAGIC, _EXT_GROUP, _EXT_INCOMPAT, _EXT_UUID = 56, 90, 96, 104
_EXT_RECOVER = 0x4
# Of that of xfs (kernel: fs/xfs/libxfs/xfs_format.h). sb_inprogress is set by mkfs.xfs until its
# last write.
_XFS_MAGIC = b"XFSB"
_XFS_UUID, _XFS_INPROGRESS = 32, 126
# What neither mkfs leaves, beyond the first 2 KiB: offset, bytes, name.
_FOREIGN = (
    (64 * KIB + 64, b"_BHRfS_M", "btrfs"),
    (_BLOCK - 10, b"SWAPSPACE2", "swap"),
    (_BLOCK, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
)


class Refused(Exception):
    """Not to be done; ``status`` says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def prove(sys_root: str, devno: str, nqn: str, host_nqn: str, dm_uuid: str = NO_MAP) -> None:
    """Raise :class:`Refused` unless device ``devno`` is of that subsystem, for that host.

    Or it is the map of that dm UUID, over such devices alone.
    """
    entry = os.path.join(sys_root, "dev", "block", devno)
    if dm_uuid == NO_MAP:
        return prove_namespace(entry, devno, nqn, host_nqn)
    if (found := _attribute(os.path.join(entry, "dm"), "uuid")) != dm_uuid:
        raise Refused(OTHER, f"device {devno} is now {found or 'no map'}")
    slaves = os.path.join(entry, "slaves")
    if not (names := _names(slaves, "")):
        raise Refused(OTHER, f"map {devno} leads to no device")
    for slave in (os.path.join(slaves, name) for name in names):
        prove_namespace(slave, _attribute(slave, "dev") or slave, nqn, host_nqn)
    return None


def prove_namespace(entry: str, devno: str, nqn: str, host_nqn: str) -> None:
    """:func:`prove`, of an NVMe device.

    ``nvmeXnY`` is below its subsystem (native multipath; ``nvmeM`` in there are the controllers)
    or below its one controller: kernel, drivers/nvme/host/multipath.c.
    """
    parent = os.path.dirname(os.path.realpath(entry))
    found = _attribute(parent, "subsysnqn")
    hosts = {_attribute(os.path.join(parent, name), "hostnqn") for name in _names(parent)}
    hosts.add(_attribute(parent, "hostnqn"))
    if not os.path.exists(entry):
        raise Refused(OTHER, f"the kernel has no device {devno} any more")
    if found != nqn:
        raise Refused(OTHER, f"device {devno} is now that of {found or 'no NVMe subsystem'}")
    if host_nqn not in hosts:
        raise Refused(OTHER, f"device {devno} is connected by another host NQN")


def _attribute(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""  # no such attribute, or the device goes away


def _names(directory: str, start: str = "nvme") -> list[str]:
    try:
        return [name for name in os.listdir(directory) if name.startswith(start)]
    except OSError:
        return []


def open_device(path: str, devno: str, flags: int = 0) -> int:
    """A descriptor of the device, proven to have the number ``devno``.

    As long as it is open, the kernel gives neither the device's name nor its number to another.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    found = os.fstat(descriptor).st_rdev
    if f"{os.major(found)}:{os.minor(found)}" != devno:
        os.close(descriptor)
        raise Refused(OTHER, f"{path} is device {os.major(found)}:{os.minor(found)}, not {devno}")
    return descriptor


def open_direct(path: str, devno: str) -> int:
    """As :func:`open_device`, past the page cache where the device allows it."""
    try:
        return open_device(path, devno, os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return open_device(path, devno)


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


class Samples:
    """What direct reads show of a device.

    ``size`` in bytes. ``data``: the offset of the first byte found that is not zero, or None.
    ``superblock``: the first one of an ext or xfs (``family``, ``uuid``, ``finished``,
    ``replay``: its journal has to be replayed), or None. ``copies``: the UUIDs of all others.
    ``foreign``: names of what neither mkfs leaves. ``digest``: of all samples.

    Of a finished file system only start and end are read: it is not to be formatted.
    """

    def __init__(self, descriptor: int) -> None:
        self.size = os.lseek(descriptor, 0, os.SEEK_END)
        self.data: int | None = None
        self.superblock: dict[str, object] | None = None
        self.copies: set[str] = set()
        self.foreign: list[str] = []
        self.image = os.memfd_create("samples")
        """All samples at their places, the rest zeros."""
        os.ftruncate(self.image, self.size)
        digest = hashlib.sha256(str(self.size).encode())
        for start, end in sample_ranges(self.size):
            if self.finished and end != self.size:
                continue
            content = read(descriptor, start, end - start)
            digest.update(struct.pack("<QQ", start, end))
            digest.update(content)
            self._take(start, content)
        self.digest = digest.hexdigest()

    @property
    def finished(self) -> bool:
        """Whether a file system was made here: whatever else is said, mkfs is not for it."""
        return self.superblock is not None and bool(self.superblock["finished"])

    def _take(self, start: int, content: bytes) -> None:
        if start == 0:
            self.superblock = superblock(content)
            self.foreign = [
                name for place, mark, name in _FOREIGN if content.startswith(mark, place)
            ]
        if content.count(0) == len(content):
            return
        if self.data is None:
            self.data = start + len(content) - len(content.lstrip(b"\0"))
        os.pwrite(self.image, content, start)
        self.copies |= copies(start, content)

    def report(self) -> dict[str, object]:
        """For whoever asked."""
        status, output, errors = run_blkid(self.image)
        return {
            "size": self.size,
            "data": self.data,
            "superblock": self.superblock,
            "copies": sorted(self.copies),
            "foreign": self.foreign,
            "digest": self.digest,
            "blkid": {"status": status, "output": output, "errors": errors},
        }


def superblock(start: bytes) -> dict[str, object] | None:
    """The first superblock of ext or xfs in a device's first bytes."""
    if start.startswith(_XFS_MAGIC):
        finished = start[_XFS_INPROGRESS] == 0
        identity = _uuid(start, _XFS_UUID)
        return {"family": "xfs", "uuid": identity, "finished": finished, "replay": None}
    if _is_ext(start, _EXT):
        # mke2fs writes this one last, after an fsync: it is never half of a file system.
        (incompatible,) = struct.unpack_from("<I", start, _EXT + _EXT_INCOMPAT)
        replay = bool(incompatible & _EXT_RECOVER)
        identity = _uuid(start, _EXT + _EXT_UUID)
        return {"family": "ext", "uuid": identity, "finished": True, "replay": replay}
    return None


def copies(start: int, content: bytes) -> set[str]:
    """The UUIDs of superblocks in a sample, but for the first of the device."""
    found = set()
    for place in _LANDMARKS:
        for offset in (place - start, place - start + KIB):
            if 0 <= offset < len(content) and _is_ext(content, offset):
                (group,) = struct.unpack_from("<H", content, offset + _EXT_GROUP)
                if group:
                    found.add(_uuid(content, offset + _EXT_UUID))
    offset = content.find(_XFS_MAGIC)
    while offset >= 0:
        if (start + offset) % _SECTOR == 0 and start + offset > 0:
            found.add(_uuid(content, offset + _XFS_UUID))
        offset = content.find(_XFS_MAGIC, offset + 1)
    return found


def _is_ext(content: bytes, offset: int) -> bool:
    return content.startswith(b"\x53\xef", offset + _EXT_MAGIC)


def _uuid(content: bytes, offset: int) -> str:
    text = content[offset : offset + 16].hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def run_blkid(image: int) -> tuple[int, str, str]:
    """Status, output and errors of ``blkid``, asked about a copy of what was read."""
    os.set_inheritable(image, True)
    outputs = [os.memfd_create(name) for name in ("output", "errors")]
    actions = [(os.POSIX_SPAWN_DUP2, outputs[0], 1), (os.POSIX_SPAWN_DUP2, outputs[1], 2)]
    child = _spawn(["blkid", "-p", "-o", "export", f"/proc/self/fd/{image}"], actions)
    _, status = os.waitpid(child, 0)
    output, errors = (os.pread(each, 64 * KIB, 0).decode(errors="replace") for each in outputs)
    return os.waitstatus_to_exitcode(status), output, errors


def log_is_dirty(device: str) -> bool:
    """Whether the log of an xfs has to be replayed: its head and tail are not the same."""
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_DUP2, writing, 2)]
    child = _spawn(["xfs_logprint", "-t", device], actions)
    os.close(writing)
    said = b""
    # It goes on to print the whole log, which is not waited for.
    while b">" not in said and (more := os.read(reading, _BLOCK)):
        said += more
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for state, dirty in ((b"<CLEAN>", False), (b"<DIRTY>", True)):
        if b"state: " + state in said:
            return dirty
    text = " ".join(said.decode(errors="replace").split())[-300:]
    raise Refused(ERROR, f"xfs_logprint does not say whether the log is clean: {text}")


def _spawn(command: list[str], actions: list[tuple[int, int, int]]) -> int:
    try:
        return os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    except FileNotFoundError:
        raise Refused(MISSING, command[0]) from None


def become(program: list[str], descriptor: int) -> None:
    """Turn into ``program``, which inherits the descriptor: until it ends, the name stays."""
    os.set_inheritable(descriptor, True)
    try:
        os.execvp(program[0], program)  # noqa: S606 - that is the point
    except FileNotFoundError:
        raise Refused(MISSING, program[0]) from None


def main(arguments: list[str]) -> int:
    """Do what the arguments say; returns the exit status."""
    device, devno, command = arguments[1], arguments[2], arguments[6]
    whose = (arguments[0], *arguments[2:6])
    try:
        if command == "claim":
            claim(device, devno, whose)
        else:
            act(open_direct(device, devno), device, whose, arguments[6:])
    except Refused as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program's output
        return error.status
    except OSError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        if error.errno == errno.EBUSY and command == "claim":
            return HELD
        return OTHER if error.errno in _GONE else ERROR
    return 0


def act(descriptor: int, device: str, whose: tuple[str, ...], command: list[str]) -> None:
    """Run a command on the device held open, between two proofs."""
    prove(*whose)
    match command:
        case ["inspect", *words]:
            report = Samples(descriptor).report()
            found = report["superblock"]
            if words == ["log"] and isinstance(found, dict) and found["replay"] is None:
                found["replay"] = bool(found["finished"]) and log_is_dirty(device)
            print(json.dumps(report))  # noqa: T201 - as above
        case ["superblock"]:
            print(json.dumps(superblock(read(descriptor, 0, _BLOCK))))  # noqa: T201 - as above
        case ["run", digest, *program]:
            if digest not in ("-", Samples(descriptor).digest):
                raise Refused(CHANGED, "the content has changed since it was looked at")
            become(program, descriptor)
        case _:
            raise Refused(ERROR, f"unknown command {command}")
    prove(*whose)


def claim(device: str, devno: str, whose: tuple[str, ...]) -> None:
    """Hold the device, proven first, alone for a moment; one that is gone is held by nobody."""
    try:
        descriptor = open_device(device, devno)
        prove(*whose)
        os.close(open_device(device, devno, os.O_EXCL))
        os.close(descriptor)
    except OSError as error:
        if error.errno not in _GONE:
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
