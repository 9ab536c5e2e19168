"""The properties of a file disk, in the order ``/disk print detail`` shows them (7.24)."""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from rds_csi.simulator.device.texts import bad_enum, out_of_range, trailing_characters
from rds_csi.simulator.language.grammar import FIRST, LAST, Version
from rds_csi.simulator.language.values import RuntimeFault, Value, text_of

TYPES: Final = (
    *("raid", "nvme-tcp", "iscsi", "nfs", "smb", "partition", "tmpfs", "ramdisk"),
    *("crypted", "sshfs", "file", "hardware"),
)
_SIZE: Final = re.compile(r"(\d+)([KMGT]?)(i?B)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class Form(Enum):
    """How a property is read and shown."""

    TEXT = auto()
    """Shown in quotes."""
    PATH = auto()
    """Text shown without quotes."""
    SIZE = auto()
    NUMBER = auto()
    YES_NO = auto()
    ENUM = auto()


@dataclass(frozen=True, slots=True)
class Property:
    """One property: whether it can be set, its default, and the versions that have it."""

    name: str
    form: Form = Form.TEXT
    default: Value = ""
    writable: bool = True
    since: Version = FIRST
    until: Version = LAST
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 2**63 - 1

    def parse(self, value: Value) -> Value:
        """The value given for it, checked. Raises RuntimeFault with the text of RouterOS."""
        text = text_of(value)
        match self.form:
            case Form.YES_NO:
                if text not in ("yes", "no", "true", "false"):
                    raise RuntimeFault(bad_enum(self.name), argument=self.name)
                return text in ("yes", "true")
            case Form.SIZE:
                return _size(self.name, text)
            case Form.NUMBER:
                return self._number(text)
            case Form.ENUM if text not in self.choices:
                raise RuntimeFault(bad_enum(self.name), argument=self.name)
        return text

    def _number(self, text: str) -> int:
        if not text.isascii() or not text.isdigit():
            raise RuntimeFault(trailing_characters(self.name), argument=self.name)
        number = int(text)
        if not self.low <= number <= self.high:
            text = out_of_range(self.name, self.low, self.high)
            raise RuntimeFault(text, argument=self.name)
        return number


def _size(name: str, text: str) -> int:
    """Bytes; the suffixes K, M, G and T are binary here."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise RuntimeFault(trailing_characters(name), argument=name)
    return int(match.group(1)) * _UNITS[match.group(2).lower()]


def _fixed(name: str, form: Form = Form.TEXT, default: Value = "") -> Property:
    return Property(name, form, default, writable=False)


def _yes_no(name: str, *, default: bool = False, since: Version = FIRST) -> Property:
    return Property(name, Form.YES_NO, default, since=since)


_FILE: Final[Version] = (7, 17)
_NQN: Final[Version] = (7, 21)

DISK_PROPERTIES: Final = (
    Property("type", Form.ENUM, "hardware", choices=TYPES),
    Property("slot"),
    _fixed("slot-default"),
    Property("parent"),
    _fixed("fs-label"),
    _fixed("fs-uuid"),
    _fixed("fs", Form.ENUM),
    _fixed("model"),
    _fixed("size", Form.NUMBER),
    _fixed("free", Form.NUMBER),
    _fixed("use", Form.NUMBER),
    _fixed("mount-point"),
    _yes_no("mount-filesystem", default=True, since=_FILE),
    _yes_no("mount-read-only", since=_FILE),
    Property("mount-point-template", default="[slot]", since=_FILE),
    _yes_no("compress", since=(7, 18)),
    _fixed("sector-size", Form.NUMBER),
    Property("raid-master", Form.ENUM, "none", choices=("none",)),
    _fixed("raid-type", Form.ENUM),
    _fixed("state"),
    _yes_no("nvme-tcp-export"),
    Property("nvme-tcp-server-port", Form.NUMBER, 4420, low=1, high=65535),
    Property("nvme-tcp-server-nqn", since=_NQN),
    Property("nvme-tcp-server-allow-host-name"),
    Property("nvme-tcp-server-password"),
    _yes_no("iscsi-export"),
    _yes_no("nfs-sharing", since=(7, 14)),
    _yes_no("smb-sharing", since=(7, 14)),
    _yes_no("media-sharing"),
    Property("media-interface", Form.ENUM, "none", choices=("none",)),
    _yes_no("swap", since=_FILE),
    Property("file-path", Form.PATH, since=_FILE),
    Property("file-size", Form.SIZE, 0, since=_FILE),
    Property("file-offset", Form.SIZE, 0, since=_FILE),
    Property("comment"),
    _yes_no("disabled"),
)
BY_NAME: Final = {entry.name: entry for entry in DISK_PROPERTIES}
SECRETS: Final = frozenset({"nvme-tcp-server-password"})
"""Not shown since 7.21 unless asked for."""


def in_version(version: Version) -> list[Property]:
    """The properties that version has."""
    return [entry for entry in DISK_PROPERTIES if entry.since <= version < entry.until]
