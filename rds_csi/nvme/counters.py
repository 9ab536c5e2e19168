"""Whether a target kept what it acknowledged: its own counters, read and compared.

A target answers a write before the write is durable; durable it is after the next flush. When the
target loses power and comes back, the initiator goes on as if nothing had been lost, and the
``fsync`` that comes afterwards succeeds. Nothing in NVMe tells of it. But a target counts what it
was sent (log page 02h, SMART). Linux shows there the statistics of the block device behind the
namespace: they go on over a cut link and over an export that was made anew, and begin at 0 with a
device made anew, as each boot makes it.

What that cannot tell, and is answered with :attr:`Verdict.UNKNOWN`, never guessed:

* A namespace over a file, without a block device between, counts nothing: all is 0, always.
* A volume with so little traffic that what came since the loss explains all there is.
* A volume that several nodes write to: what the others sent since is not known here.

And one answer that is on the safe side: a block device that was detached from its file and attached
anew, without a boot, begins at 0 as well and counts as booted.
"""

import os
import re
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Self

from rds_csi.errors import CommandFailed, Unavailable
from rds_csi.nvme.sysfs import SECTOR, Controller, Sysfs
from rds_csi.runtime.process import Runner

UNIT: Final = 512_000
"""Bytes of a data unit (NVM Express, Get Log Page 02h). Linux's target rounds up to the next."""
_OWN_READS: Final = 64
"""Data units that a target may have read by itself, looking for what is on its disks as it booted.
It writes none."""
_LENGTH: Final = 512
"""Bytes of the log page."""
_FIELDS: Final = {"read_units": 32, "written_units": 48, "reads": 64, "writes": 80}
"""Where in it the counters stand (Figure "SMART / Health Information Log Page")."""
_FIELD: Final = 16
"""Bytes of each, the lowest first."""
_QUESTION: Final = (
    # Get Log Page of the whole controller; its length is in dwords, less one.
    *("--opcode=0x02", "--namespace-id=0xffffffff", f"--cdw10=0x{_LENGTH // 4 - 1:04x}0002"),
    *(f"--data-len={_LENGTH}", "--read"),
)
_LONGEST: Final = 60.0
"""Seconds that the kernel gives an admin command by itself (drivers/nvme/host/core.c)."""
_GRACE: Final = 10.0
"""Seconds for the program, beyond those that the command has."""
_DUMPED: Final = re.compile(r"([0-9a-f]{4,}):( (?:[0-9a-f]{2} ){16})?")
_ROW: Final = 16
"""Bytes of a line of nvme-cli's dump. nvme-cli 3 prints "*" for lines like the one before, and at
the end the place after the last one."""
_STATISTICS: Final = re.compile(r"nvme[0-9]+(c[0-9]+)?n[0-9]+")
_READ, _WRITTEN, _PENDING = 2, 6, 8
"""Which words of ``stat`` are the sectors, and what is under way (Documentation/block/stat.rst)."""


class Verdict(Enum):
    """What became of a target that was away."""

    KEPT = "kept"
    BOOTED = "booted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What a target says that it was sent: commands, and data units of :data:`UNIT` bytes."""

    reads: int
    writes: int
    read_units: int
    written_units: int

    @property
    def counts(self) -> bool:
        """Whether it counts at all: each connection was proven by a read, so 0 is no count."""
        return any((self.reads, self.writes, self.read_units, self.written_units))

    def below(self, other: "Counters") -> bool:
        """Whether one of them is smaller than the other's: what only grows began anew."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return any(mine < its for mine, its in pairs)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The counters in the log page as nvme-cli dumps it; ValueError where it is not whole."""
        page = _undumped(text)
        if len(page) != _LENGTH:
            raise ValueError(f"{len(page)} bytes instead of {_LENGTH}")
        return cls(
            **{
                name: int.from_bytes(page[place : place + _FIELD], "little")
                for name, place in _FIELDS.items()
            }
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that this host moved: read from a target, written to it."""

    read: int = 0
    written: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.read + other.read, self.written + other.written)

    def __sub__(self, other: "Traffic") -> "Traffic":
        """What came in between; a count that fell back (another device) is no traffic."""
        return Traffic(max(0, self.read - other.read), max(0, self.written - other.written))


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What one connection has carried: bytes of what has ended, and commands under way.

    ``exact``: what failed on its way is left out. Native multipath repeats it elsewhere; without
    that it is counted as moved.
    """

    traffic: Traffic = Traffic()
    pending: int = 0
    exact: bool = False


def judge(before: Counters, after: Counters, *, done: Traffic, possible: Traffic | None) -> Verdict:
    """Whether a target that showed ``before``, and shows ``after`` now, booted in between.

    ``done``: what this host moved, at least, from ``before`` until the target was last seen alive.
    ``possible``: what all hosts can have moved since then, at most; None where that is not known.
    """
    if not before.counts:
        return Verdict.UNKNOWN
    if after.below(before):
        return Verdict.BOOTED
    each = (
        (before.read_units, after.read_units, done.read),
        (before.written_units, after.written_units, done.written),
    )
    # A target that kept its memory counted all of ``done``. By half of it no accounting is wrong.
    if any(now * UNIT < (then - 1) * UNIT + moved / 2 for then, now, moved in each):
        return Verdict.BOOTED
    # One that booted has counted nothing but ``possible``.
    if possible is not None and (
        (after.read_units - _OWN_READS) * UNIT > possible.read
        or (after.written_units - 2) * UNIT > possible.written
    ):
        return Verdict.KEPT
    return Verdict.UNKNOWN


class CounterReader:
    """Reads the counters of this host's connections, and what went over them."""

    def __init__(self, runner: Runner, sysfs: Sysfs, host_nqn: str) -> None:
        self._runner = runner
        self._sysfs = sysfs
        self._host_nqn = host_nqn

    def instance(self, controller: Controller) -> int:
        """A number that no other controller has or gets until the node boots; 0 if it is gone.

        The kernel never gives the inode of an entry in sysfs to another, other than names.
        """
        try:
            return self._sysfs.path(controller.name).lstat().st_ino
        except OSError:
            return 0

    def moved(self, controller: Controller) -> "Moved":
        """What went over it so far, by the kernel's count."""
        try:
            names = os.listdir(self._sysfs.path(controller.name))  # noqa: PTH208 - names are all
        except OSError:
            return Moved()
        traffic, pending, exact = Traffic(), 0, False
        for name in names:
            if not (found := _STATISTICS.fullmatch(name)):
                continue
            words = self._sysfs.read(controller.name, f"{name}/stat").split()
            if len(words) > _PENDING:
                traffic += Traffic(int(words[_READ]) * SECTOR, int(words[_WRITTEN]) * SECTOR)
                pending += int(words[_PENDING])
                exact = exact or bool(found[1])
        return Moved(traffic=traffic, pending=pending, exact=exact)

    async def read(self, controller: Controller, *, volume: str) -> Counters:
        """The target's counters, by that very connection.

        Its character device is held open meanwhile: so long its name is not given to another.
        The kernel gives the question as long as the link takes to be found silent, twice. With
        its own minute, as other admin commands have it, a link that is cut while the question is
        under way would be noticed only then: Linux from 6.1.120 on waits for its keep-alive while
        it recovers, and the admin queue has one timer. (So ``nvme smart-log``, which takes no
        time limit before nvme-cli 2.11, is not what asks.)
        Raises :class:`Unavailable` where it is not that connection, or not live any more;
        :class:`CommandFailed` where the target or nvme-cli says nothing that can be read; and what
        the runner raises.
        """
        device = self._sysfs.places[1] / controller.name
        try:
            descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Unavailable(
                f"{device} cannot be opened: {error.strerror}", volume=volume
            ) from error
        try:
            self._prove(descriptor, device, controller, volume)
            patience = self._patience(controller)
            limit = f"--timeout={patience * 1000:.0f}"
            result = await self._runner.run(
                ["nvme", "admin-passthru", str(device), *_QUESTION, limit],
                timeout=patience + _GRACE,
                volume=volume,
            )
            self._prove(descriptor, device, controller, volume)
        finally:
            os.close(descriptor)
        try:
            return Counters.parse(result.stdout)
        except ValueError as error:
            raise CommandFailed(
                f"nvme admin-passthru printed no counters: {error}",
                returncode=result.returncode,
                stderr=result.stdout[:500],
                volume=volume,
            ) from error

    def _patience(self, controller: Controller) -> float:
        """Seconds after which a target that says nothing would be given up without the question."""
        shown = self._sysfs.read(controller.name, "kato")
        keep_alive = int(shown) if shown.isdecimal() else 0
        return min(2.0 * keep_alive, _LONGEST) if keep_alive else _LONGEST

    def _prove(self, descriptor: int, device: Path, controller: Controller, volume: str) -> None:
        number = os.fstat(descriptor).st_rdev
        shown = {name: self._sysfs.read(controller.name, name) for name in ("subsysnqn", "hostnqn")}
        same = self._sysfs.read(controller.name, "dev") == f"{os.major(number)}:{os.minor(number)}"
        if not same or shown != {"subsysnqn": controller.nqn, "hostnqn": self._host_nqn}:
            raise Unavailable(f"{device} is not its connection any more", volume=volume)


def _undumped(text: str) -> bytes:
    """The bytes of a dump; ValueError where a line is missing."""
    page, repeated = b"", False
    for line in text.splitlines():
        if found := _DUMPED.match(line):
            place = int(found[1], 16)
            if repeated:
                page += page[-_ROW:] * ((min(place, _LENGTH) - len(page)) // _ROW)
            if place != len(page):
                raise ValueError(f"the dump goes from {len(page)} to {place} bytes")
            page += bytes.fromhex(found[2] or "")
        repeated = line == "*"
    return page
