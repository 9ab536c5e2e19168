"""What a volume is: its id, its size, how it may be accessed, and the record of who owns it.

The RDS is the database: everything that must be remembered about a volume stands in the
``comment`` of its ``/disk`` entry, as one line of text written by :meth:`Record.encode`.
Pure rules only; nothing here talks to anything.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Literal, Self
from urllib.parse import quote, unquote

from rds_csi.errors import InvalidRequest, SizeOutOfRange

MIB: Final = 1024**2
GIB: Final = 1024**3
TIB: Final = 1024**4
MINIMUM_SIZE: Final = 16 * MIB
"""Smaller file systems cannot hold the journal of ext4 or the log of xfs."""
MINIMUM_XFS: Final = 300 * MIB
"""mkfs.xfs refuses less (xfsprogs 5.19 and later)."""
DEFAULT_SIZE: Final = GIB
MAXIMUM_SIZE: Final = 16 * TIB
MAXIMUM_NAME: Final = 128
"""Bytes; CSI spec, size limits of string fields."""
MAXIMUM_NODE_ID: Final = 256

_OUR_ID: Final = re.compile(r"pvc-[0-9a-f]{28}")
_LEGACY_ID: Final = re.compile(r"pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NQN: Final = re.compile(r"nqn\.\d{4}-\d{2}\.[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*:[A-Za-z0-9.:_-]+")
_MAXIMUM_NQN: Final = 223


def volume_id(name: str) -> str:
    """The id, and slot, of the volume called ``name``: 32 characters, the slot limit of RouterOS.

    The same name always gives the same id, which is what makes CreateVolume idempotent.
    """
    return "pvc-" + hashlib.sha256(name.encode()).hexdigest()[:28]


def is_volume_id(text: str) -> bool:
    """Whether we make such ids, or the Go driver did (``pvc-<uuid>``): nothing else is a volume."""
    return bool(_OUR_ID.fullmatch(text)) or is_legacy_id(text)


def is_legacy_id(text: str) -> bool:
    """Whether the Go driver made the id: such volumes carry no record and are adopted."""
    return bool(_LEGACY_ID.fullmatch(text))


def check_name(name: str) -> str:
    """The CSI name, checked as the spec asks (section "Size Limits" and volume names)."""
    if not name:
        raise InvalidRequest("the name is empty")
    if len(name.encode()) > MAXIMUM_NAME:
        raise InvalidRequest(f"the name is longer than {MAXIMUM_NAME} bytes")
    if any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F for char in name):
        raise InvalidRequest("the name contains control characters")
    return name


def check_node_id(node_id: str) -> str:
    """The node id, checked for emptiness, length and control characters."""
    if not node_id:
        raise InvalidRequest("the node id is empty")
    if len(node_id.encode()) > MAXIMUM_NODE_ID:
        raise InvalidRequest(f"the node id is longer than {MAXIMUM_NODE_ID} bytes")
    if not node_id.isprintable():
        raise InvalidRequest("the node id contains control characters")
    return node_id


def check_nqn(nqn: str) -> str:
    """The NQN, checked against the form of the NVMe base specification (section 4.5)."""
    if len(nqn) > _MAXIMUM_NQN or not _NQN.fullmatch(nqn):
        raise InvalidRequest(
            f"{nqn[:256]!r} is not an NQN", advice="expected nqn.yyyy-mm.domain:name"
        )
    return nqn


def round_up(size: int, unit: int = MIB) -> int:
    """``size`` bytes rounded up to a multiple of ``unit``."""
    return -(-size // unit) * unit


def largest_size(room: int, minimum: int) -> int:
    """The largest volume that can be made in ``room`` bytes; 0 if none of ``minimum`` bytes can."""
    size = min(room, MAXIMUM_SIZE) // MIB * MIB
    return size if size >= minimum else 0


@dataclass(frozen=True, slots=True)
class CapacityRange:
    """How large a volume may be, in bytes; 0 means "no such bound" (CSI ``CapacityRange``)."""

    required: int = 0
    limit: int = 0

    def check(self) -> Self:
        """Itself, if its numbers make sense."""
        if self.required < 0 or self.limit < 0:
            raise InvalidRequest("the capacity range has a negative bound")
        if self.limit and self.required > self.limit:
            raise SizeOutOfRange(
                f"required_bytes {self.required} is above limit_bytes {self.limit}"
            )
        return self

    def size(self, minimum: int = MINIMUM_SIZE) -> int:
        """The bytes to create: the smallest multiple of 1 MiB that range and minimum allow."""
        self.check()
        wanted = self.required or min(DEFAULT_SIZE, self.limit or DEFAULT_SIZE)
        size = round_up(max(wanted, minimum))
        if self.limit and size > self.limit:
            # Without a lower bound, rounding down is as good an answer.
            size = self.limit // MIB * MIB if not self.required else size
        if size < minimum or (self.limit and size > self.limit):
            raise SizeOutOfRange(
                f"no multiple of 1 MiB from {minimum} bytes upwards lies between "
                f"required_bytes {self.required} and limit_bytes {self.limit}"
            )
        if size > MAXIMUM_SIZE:
            raise SizeOutOfRange(f"{size} bytes is above the maximum of {MAXIMUM_SIZE} bytes")
        return size

    def allows(self, size: int) -> bool:
        """Whether an existing volume of ``size`` bytes satisfies the range."""
        return size >= self.required and (not self.limit or size <= self.limit)


class AccessMode(IntEnum):
    """CSI ``VolumeCapability.AccessMode.Mode``, same numbers."""

    SINGLE_NODE_WRITER = 1
    SINGLE_NODE_READER_ONLY = 2
    MULTI_NODE_READER_ONLY = 3
    MULTI_NODE_SINGLE_WRITER = 4
    MULTI_NODE_MULTI_WRITER = 5
    SINGLE_NODE_SINGLE_WRITER = 6
    SINGLE_NODE_MULTI_WRITER = 7

    @property
    def multi_node(self) -> bool:
        """Whether more than one node may have the volume at once."""
        return self in _MULTI_NODE

    @property
    def read_only(self) -> bool:
        """Whether nobody may write."""
        return self in (AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY)


_MULTI_NODE: Final = frozenset(
    {
        AccessMode.MULTI_NODE_READER_ONLY,
        AccessMode.MULTI_NODE_SINGLE_WRITER,
        AccessMode.MULTI_NODE_MULTI_WRITER,
    }
)

AccessType = Literal["mount", "block"]
FILE_SYSTEMS: Final = ("ext4", "xfs")
DEFAULT_FILE_SYSTEM: Final = "ext4"
BLOCK: Final = "block"
"""What a record says of a volume without a file system of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """How a volume is used: CSI ``VolumeCapability``, made plain."""

    access_type: AccessType
    mode: AccessMode
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()

    @property
    def file_system(self) -> str:
        """The file system to make or expect; empty for block."""
        return (self.fs_type or DEFAULT_FILE_SYSTEM) if self.access_type == "mount" else ""

    @property
    def use(self) -> str:
        """What a record says of a volume used like this: the file system, or ``block``."""
        return self.file_system or BLOCK

    def unsupported(self) -> str:
        """Why we cannot serve it, or an empty string.

        Several writers on several nodes would destroy ext4 and xfs, so those modes are for raw
        block, where the application coordinates (KubeVirt live migration).
        """
        if self.access_type == "mount":
            if self.file_system not in FILE_SYSTEMS:
                return f"file system {self.fs_type!r} is none of {', '.join(FILE_SYSTEMS)}"
            if self.mode in (
                AccessMode.MULTI_NODE_MULTI_WRITER,
                AccessMode.MULTI_NODE_SINGLE_WRITER,
            ):
                return (
                    f"access mode {self.mode.name} with a file system would corrupt it; "
                    "use volumeMode: Block for ReadWriteMany"
                )
        return ""


def minimum_size(wanted: Iterable[Capability]) -> int:
    """The bytes of the smallest volume that can be used in all these ways."""
    return MINIMUM_XFS if any(each.file_system == "xfs" for each in wanted) else MINIMUM_SIZE


@dataclass(frozen=True, slots=True, order=True)
class Publication:
    """One node that has the volume: its id, the mode of its publish, and read-only or not."""

    node: str
    mode: AccessMode
    readonly: bool = False

    @property
    def reads_only(self) -> bool:
        """Whether this node cannot write."""
        return self.readonly or self.mode.read_only


VERSION: Final = "rds-csi/2"
_WORDS: Final = {
    "rds-csi/1": ("owner", "name", "created", "access", "fencing", "source", "nodes"),
    VERSION: (
        *("owner", "name", "created", "access", "fencing", "source"),
        *("generation", "formatted", "nodes"),
    ),
}
"""The words of a record in each version, in their order. A newer version is not ours to touch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    r"""What stands in the ``comment`` of a volume's ``/disk`` entry.

    ``owner`` is ``<driver name>/<cluster id>``: an entry with another owner is never touched.
    ``created`` is in seconds since 1970. ``access`` is ``block``, ``ext4`` or ``xfs``: what the
    volume was created for, empty where nobody has said so yet. ``fencing`` restricts the export
    to the publishing node's host NQN.

    ``generation`` counts the hand-overs: it is raised with the first holder after there was
    none, and with nothing else. Holders that have the volume at the same time share it, and
    whatever a node kept from an older one is outdated. ``formatted`` is the file system that the
    RDS was seen to show on the volume, empty where it never showed one: a device of such a
    volume that reads as blank has lost data.

    The text is one line of ``key=value`` words behind a version word. Everything outside
    ``[A-Za-z0-9._~-]`` is percent-encoded, so the text is plain ASCII without quotes, spaces
    inside values, ``$`` or ``\``. The owner comes first, so that a script on the RDS proves
    ownership by comparing a prefix, and the nodes last, so that it proves "published nowhere"
    by the end.
    """

    owner: str
    name: str
    created: int
    access: str
    fencing: bool = False
    source: str = ""
    generation: int = 0
    formatted: str = ""
    nodes: tuple[Publication, ...] = ()

    def encode(self, version: str = VERSION) -> str:
        """The comment's text. An older version leaves out what it has no words for."""
        nodes = ",".join(
            f"{_quote(entry.node)}:{entry.mode.value}{'r' if entry.readonly else 'w'}"
            for entry in sorted(self.nodes)
        )
        values = {
            "owner": _quote(self.owner),
            "name": _quote(self.name),
            "created": str(self.created),
            "access": _quote(self.access),
            "fencing": str(int(self.fencing)),
            "source": _quote(self.source),
            "generation": str(self.generation),
            "formatted": _quote(self.formatted),
            "nodes": nodes,
        }
        return " ".join([version, *(f"{key}={values[key]}" for key in _WORDS[version])])

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The record in a comment, or None where there is none that we could have written.

        Older versions are read as well; what is written next is the newest.
        """
        version, *words = text.split(" ")
        keys = _WORDS.get(version, ())
        if not keys or len(words) != len(keys):
            return None
        values: dict[str, str] = {}
        for key, word in zip(keys, words, strict=True):
            found, equals, value = word.partition("=")
            if found != key or not equals:
                return None
            values[key] = value
        try:
            record = cls(
                owner=unquote(values["owner"], errors="strict"),
                name=unquote(values["name"], errors="strict"),
                created=int(values["created"]),
                access=unquote(values["access"], errors="strict"),
                fencing=bool(int(values["fencing"])),
                source=unquote(values["source"], errors="strict"),
                generation=int(values.get("generation", "0")),
                formatted=unquote(values.get("formatted", ""), errors="strict"),
                nodes=tuple(_publication(word) for word in values["nodes"].split(",") if word),
            )
        except ValueError:
            return None
        # Only what we would write ourselves counts: no second spelling of the same record.
        return record if record.encode(version) == text else None

    def seen(self, file_system: str) -> Self:
        """The record with what the RDS shows in the volume; nothing shown changes nothing.

        What a raw block volume holds is its user's affair.
        """
        if not file_system or self.access == BLOCK:
            return self
        return replace(self, formatted=file_system)

    def publication(self, node: str) -> Publication | None:
        """This node's entry, if it has the volume."""
        return next((entry for entry in self.nodes if entry.node == node), None)

    def with_node(self, entry: Publication) -> Self:
        """The record with the node added; others stay. The first holder begins a generation."""
        kept = tuple(other for other in self.nodes if other.node != entry.node)
        return replace(
            self,
            generation=self.generation + (not self.nodes),
            nodes=tuple(sorted((*kept, entry))),
        )

    def without_node(self, node: str) -> Self:
        """The record with the node removed; an empty ``node`` removes all (CSI Unpublish)."""
        kept = tuple(other for other in self.nodes if node and other.node != node)
        return replace(self, nodes=kept)


def owner_prefixes(owner: str) -> tuple[str, ...]:
    """How the comment of everything we own begins, one per version and all of one length."""
    return tuple(f"{version} owner={_quote(owner)} " for version in _WORDS)


def owner_tag(owner: str) -> str:
    """Eight characters that mark a backing file as the owner's: part of its name.

    A file has no comment, so after a crash between removing the disk and removing the file the
    name is the only proof that the file is ours.
    """
    return hashlib.sha256(owner.encode()).hexdigest()[:8]


def _publication(word: str) -> Publication:
    node, colon, flags = word.rpartition(":")
    if not colon or len(flags) != 2 or flags[1] not in "rw":
        raise ValueError(word)
    return Publication(unquote(node, errors="strict"), AccessMode(int(flags[0])), flags[1] == "r")


def _quote(text: str) -> str:
    return quote(text, safe="")
