"""What is known of a volume's target, by which its return is judged; and how it is kept.

Known are its counters as they were read last, and what went over this host's connections when it
was last seen alive. Both are kept in a file, because a driver that starts anew has to know them
too; the file is of one boot of this node, since no connection outlives one.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from rds_csi.nvme.counters import Counters, Traffic, Verdict, judge

_VERSION: Final = 1
_LARGEST_FILE: Final = 4 * 1024 * 1024
_LARGEST_COMMAND: Final = 4 * 1024 * 1024
"""Bytes that one command under way may carry, at most (kernel: BLK_DEF_MAX_SECTORS_CAP)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the kernel showed of this host's connections to one volume.

    ``at`` is in seconds since 1970. ``moved`` is by instance of the connection
    (:meth:`rds_csi.nvme.counters.CounterReader.instance`); ``pending``: commands under way;
    ``exact``: no traffic is counted that failed; ``size``: the volume's bytes, 0 where the kernel
    shows no device.
    """

    at: float
    moved: Mapping[int, Traffic] = field(default_factory=dict)
    pending: int = 0
    exact: bool = False
    size: int = 0

    def since(self, earlier: "Sight") -> Traffic:
        """What went over its connections after ``earlier``."""
        total = Traffic()
        for instance, moved in self.moved.items():
            total += moved - earlier.moved.get(instance, Traffic())
        return total

    def shares(self, other: "Sight") -> bool:
        """Whether a connection is in both."""
        return not self.moved.keys().isdisjoint(other.moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A target was away, and what it acknowledged before is perhaps not all there any more.

    ``since`` and ``until``, in seconds since 1970: when it was last seen alive, and when it was
    asked again.
    """

    verdict: Verdict
    since: float
    until: float

    def joined(self, later: "Doubt") -> "Doubt":
        """Both in one: from the first outage to the last, and what is certain of either."""
        certain = Verdict.BOOTED in (self.verdict, later.verdict)
        return Doubt(
            verdict=Verdict.BOOTED if certain else Verdict.UNKNOWN,
            since=min(self.since, later.since),
            until=max(self.until, later.until),
        )

    @property
    def when(self) -> str:
        """The two instants, for people."""
        return f"{instant(self.since)} and {instant(self.until)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is known of one volume's target.

    ``counters`` are those of ``sight``, which was taken after they were read; None where they
    could not be read. ``seen`` is the last sight with a live connection, ``earlier`` the one
    before. ``away``: it was away since, and has not been judged; ``failures``: so often in a row
    it could not be asked.
    """

    counters: Counters | None
    sight: Sight
    seen: Sight
    earlier: Sight
    away: bool = False
    failures: int = 0
    doubt: Doubt | None = None


def compare(known: Known, after: Counters, now: Sight, *, exclusive: bool) -> Verdict:
    """Whether a target that shows ``after`` now kept what it had acknowledged.

    ``now`` was taken after ``after``. ``exclusive``: no other host uses the volume.
    """
    if known.counters is None:
        return Verdict.UNKNOWN
    seen = known.seen
    done = Traffic()
    if seen.exact:
        # What was under way at the first sight may be in the counters already.
        done = seen.since(known.sight) - _most(known.sight.pending)
    possible = None
    if exclusive and seen.moved.keys() <= now.moved.keys():
        possible = now.since(seen) + _most(now.pending)
    verdict = judge(known.counters, after, done=done, possible=possible)
    if verdict is Verdict.BOOTED and now.size != seen.size:
        # A volume that grows gets a block device made anew, which begins at 0 without any boot.
        return Verdict.UNKNOWN
    return verdict


def _most(pending: int) -> Traffic:
    return Traffic(pending * _LARGEST_COMMAND, pending * _LARGEST_COMMAND)


def instant(seconds: float) -> str:
    """A moment as logs have it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


# The file


@dataclass(frozen=True, slots=True)
class BaselineFile:
    """A file of what is known, by NQN. It is a hint: what cannot be read is not known."""

    path: Path
    boot: str
    """Which boot of this node it is."""

    def read(self) -> dict[str, Known]:
        """What is in it; nothing where it is of another boot, or of somebody else.

        Raises OSError and ValueError where it is there and cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                found = json.loads(file.read(_LARGEST_FILE))
        except FileNotFoundError:
            return {}
        try:
            if (found["version"], found["boot"]) != (_VERSION, self.boot):
                return {}
            return {str(nqn): _known(values) for nqn, values in found["targets"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not what was written: {error!r}") from None

    def write(self, known: Mapping[str, Known]) -> None:
        """Replace it; with nothing known there is none. Raises OSError."""
        if not known:
            self.path.unlink(missing_ok=True)
            return
        targets = {nqn: _values(each) for nqn, each in known.items()}
        content = {"version": _VERSION, "boot": self.boot, "targets": targets}
        temporary = self.path.with_suffix(".tmp")
        # No fsync: after a loss of power of this node nothing in it is of use.
        try:
            temporary.write_text(json.dumps(content))
        except FileNotFoundError:
            self.path.parent.mkdir(mode=0o700, parents=True)
            temporary.write_text(json.dumps(content))
        os.replace(temporary, self.path)  # noqa: PTH105 - the call is the point

    @classmethod
    def of_this_boot(
        cls, path: Path, boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    ) -> Self:
        """The file at ``path``, for this boot."""
        return cls(path, boot_id.read_text().strip())


def _values(known: Known) -> dict[str, Any]:
    return {
        "counters": None if known.counters is None else asdict(known.counters),
        "sight": _sight_values(known.sight),
        "seen": _sight_values(known.seen),
        "away": known.away,
        "doubt": None
        if known.doubt is None
        else [known.doubt.verdict.value, known.doubt.since, known.doubt.until],
    }


def _sight_values(sight: Sight) -> dict[str, Any]:
    moved = [[number, each.read, each.written] for number, each in sight.moved.items()]
    return {
        "at": sight.at,
        "moved": moved,
        "pending": sight.pending,
        "exact": sight.exact,
        "size": sight.size,
    }


def _known(values: dict[str, Any]) -> Known:
    doubt = values["doubt"]
    seen = _sight(values["seen"])
    return Known(
        counters=None if values["counters"] is None else Counters(**values["counters"]),
        sight=_sight(values["sight"]),
        seen=seen,
        earlier=seen,
        away=bool(values["away"]),
        doubt=None
        if doubt is None
        else Doubt(verdict=Verdict(doubt[0]), since=float(doubt[1]), until=float(doubt[2])),
    )


def _sight(values: dict[str, Any]) -> Sight:
    return Sight(
        at=float(values["at"]),
        moved={int(each[0]): Traffic(int(each[1]), int(each[2])) for each in values["moved"]},
        pending=int(values["pending"]),
        exact=bool(values["exact"]),
        size=int(values["size"]),
    )
