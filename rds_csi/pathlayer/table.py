"""Tables and status lines of dm-multipath maps: text to values and back, nothing else.

A map stands between a volume's NVMe device and whoever uses it. Its one line says how large it
is, that I/O waits while no path works (``queue_if_no_path``), and which devices are its paths.
Sources: the kernel's ``drivers/md/dm-mpath.c`` (``multipath_ctr``, ``multipath_status``) and
``dm-ps-round-robin.c``; the lines of the tests were seen on Linux 6.1.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Self

from rds_csi.model.block_device import DeviceNumber

SECTOR: Final = 512
"""Bytes; device mapper counts in these whatever the device's own block is."""
_WAITS: Final = "queue_if_no_path"
_BIO: Final = ("queue_mode", "bio")
"""No request queue of the map's own, so that nothing of a lost device lives on in it."""
_ADDED: Final = "retain_attached_hw_handler"
"""A feature that the kernel adds when it shows the table."""
_SELECTOR: Final = "round-robin"
_REPEAT: Final = "1"
_DEVICE: Final = re.compile(r"([0-9]{1,7}):([0-9]{1,7})")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


class UnknownMap(ValueError):
    """The text is no table, or no status, of a map as this driver makes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a map is made of: ``sectors`` of 512 bytes, and its paths by device number.

    Without a path all I/O waits, if the map ``waits`` when no path works; else it fails at once.
    """

    sectors: int
    paths: tuple[DeviceNumber, ...] = ()
    waits: bool = True

    def __post_init__(self) -> None:
        """Refuse what the kernel would refuse or take for something else."""
        if self.sectors <= 0:
            raise ValueError(f"a map of {self.sectors} sectors")
        if len(set(self.paths)) != len(self.paths):
            raise ValueError(f"a path stands twice in {self.paths}")

    @property
    def size(self) -> int:
        """Bytes."""
        return self.sectors * SECTOR

    def encode(self) -> str:
        """The line that ``dmsetup create --table`` and ``dmsetup load --table`` take."""
        features = (*([_WAITS] if self.waits else []), *_BIO)
        head = ("0", str(self.sectors), "multipath", str(len(features)), *features, "0")
        if not self.paths:
            return " ".join((*head, "0", "0"))
        group = [_SELECTOR, "0", str(len(self.paths)), "1"]
        for major, minor in self.paths:
            group += [f"{major}:{minor}", _REPEAT]
        return " ".join((*head, "1", "1", *group))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The table in a line of ``dmsetup table``.

        Raises :class:`UnknownMap` for any other form: a map that somebody else made or changed
        is not ours to judge.
        """
        words = _Words(text)
        sectors = words.target()
        features = [word for word in words.counted() if word != _ADDED]
        waits = _WAITS in features
        if features != [*([_WAITS] if waits else []), *_BIO]:
            raise words.unknown("its features")
        words.expect("0")
        paths: list[DeviceNumber] = []
        if (groups := (words.number(), words.number())) != (0, 0):
            if groups != (1, 1):
                raise words.unknown("its groups of paths")
            words.expect(_SELECTOR, "0")
            count = words.number()
            words.expect("1")
            for _ in range(count):
                paths.append(words.device())
                words.expect(_REPEAT)
        words.end()
        try:
            return cls(sectors=sectors, paths=tuple(paths), waits=waits)
        except ValueError as error:
            raise UnknownMap(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStatus:
    """One path of a map: its device, whether I/O goes to it, and how often it failed."""

    device: DeviceNumber
    active: bool
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the kernel says of a map's paths at this moment."""

    sectors: int
    paths: tuple[PathStatus, ...]

    def works(self, devices: Collection[DeviceNumber]) -> bool:
        """Whether I/O goes to one of these devices.

        Ask for those that are known to be there: a path to one that the kernel gave up is called
        active until I/O meets it.
        """
        return any(path.active and path.device in devices for path in self.paths)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The status in a line of ``dmsetup status``; :class:`UnknownMap` for any other text."""
        words = _Words(text)
        sectors = words.target()
        words.counted()  # I/Os that wait, path groups being initialised
        words.counted()  # of a hardware handler, which NVMe has none of
        groups = words.number()
        words.number()
        paths: list[PathStatus] = []
        for _ in range(groups):
            words.one_of("A", "E", "D")
            words.counted()
            count, more = words.number(), words.number()
            for _ in range(count):
                device, active = words.device(), words.one_of("A", "F") == "A"
                paths.append(PathStatus(device=device, active=active, failures=words.number()))
                for _ in range(more):
                    words.next()
        words.end()
        return cls(sectors=sectors, paths=tuple(paths))


class _Words:
    """The words of a line, taken one by one; what is not as expected is :class:`UnknownMap`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._left = text.split()[::-1]

    def unknown(self, what: str) -> UnknownMap:
        return UnknownMap(f"{what} is not as this driver makes it: {self._text[:300]!r}")

    def next(self) -> str:
        if not self._left:
            raise self.unknown("its end")
        return self._left.pop()

    def expect(self, *words: str) -> None:
        for word in words:
            self.one_of(word)

    def one_of(self, *words: str) -> str:
        found = self.next()
        if found not in words:
            raise self.unknown(f"{found[:40]!r}")
        return found

    def number(self) -> int:
        found = self.next()
        if not _NUMBER.fullmatch(found):
            raise self.unknown(f"{found[:40]!r}")
        return int(found)

    def counted(self) -> list[str]:
        """A number and so many words."""
        return [self.next() for _ in range(self.number())]

    def device(self) -> DeviceNumber:
        found = self.next()
        match = _DEVICE.fullmatch(found)
        if match is None:
            raise self.unknown(f"{found[:40]!r}")
        return int(match[1]), int(match[2])

    def target(self) -> int:
        """The head of the line of a map that is one multipath target: its sectors."""
        self.expect("0")
        sectors = self.number()
        self.expect("multipath")
        return sectors

    def end(self) -> None:
        if self._left:
            raise self.unknown("its end")
