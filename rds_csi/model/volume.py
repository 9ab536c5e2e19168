"""What a volume is called and how large it is: the one check of an id, names of exports, sizes.

Who owns it and who has it is in :mod:`.record`, how it may be used in :mod:`.access`.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from rds_csi.errors import InvalidRequest, SizeOutOfRange, VolumeNotFound

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

_OUR_ID: Final = re.compile(r"pvc-[0-9a-f]{28}")

_LEGACY_ID: Final = re.compile(r"pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_NQN: Final = re.compile(r"nqn\.\d{4}-\d{2}\.[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*:[A-Za-z0-9.:_-]+")

_MAXIMUM_NQN: Final = 223

LARGEST_GENERATION: Final = 10**18 - 1
"""More hand-overs than any volume sees; an NQN has room for so many."""

_GENERATION: Final = re.compile(r"[1-9][0-9]{0,17}")


def volume_id(name: str) -> str:
    """The id, and slot, of the volume called ``name``: 32 characters, the slot limit of RouterOS.

    The same name always gives the same id, which is what makes CreateVolume idempotent.
    """
    return "pvc-" + hashlib.sha256(name.encode()).hexdigest()[:28]


def is_volume_id(text: str) -> bool:
    """Whether we make such ids, or the Go driver did (``pvc-<uuid>``): nothing else is a volume."""
    return bool(_OUR_ID.fullmatch(text)) or is_legacy_id(text)


def check_volume_id(volume: str) -> str:
    """The id of a request, if a volume could have it: it names files, NQNs and slots.

    Raises :class:`InvalidRequest` where it is missing, :class:`VolumeNotFound` where no volume has
    such an id: it is never sent to the RDS, nor looked for on the node.
    """
    if not volume:
        raise InvalidRequest("volume_id is missing")
    if not is_volume_id(volume):
        raise VolumeNotFound("no volume has such an id", volume=volume[:128])
    return volume


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


def check_nqn(nqn: str) -> str:
    """The NQN, checked against the form of the NVMe base specification (section 4.5)."""
    if len(nqn) > _MAXIMUM_NQN or not _NQN.fullmatch(nqn):
        raise InvalidRequest(
            f"{nqn[:256]!r} is not an NQN", advice="expected nqn.yyyy-mm.domain:name"
        )
    return nqn


@dataclass(frozen=True, slots=True)
class ExportName:
    """What the NQN of an export says: which volume it is, and under which of its hand-overs.

    ``generation`` 0 is the plain name: of an export that no node has had yet, and of one whose
    holders have it since before exports were named by generations.
    """

    prefix: str
    volume: str
    generation: int = 0


def export_nqn(prefix: str, volume: str, generation: int) -> str:
    """The NQN of a volume's export: ``<prefix>:<volume>``, from generation 1 on ``.<generation>``.

    A former holder that comes back asks for a name that is not there any more.
    """
    return f"{prefix}:{volume}.{generation}" if generation else f"{prefix}:{volume}"


def read_nqn(nqn: str, prefix: str | None = None) -> ExportName | None:
    """What :func:`export_nqn` was given; None for a name that it does not give to a volume.

    ``prefix`` is the configured one; None takes any, where something else proves whose it is. A
    volume's id has neither ``:`` nor ``.``, so there is one reading at most.
    """
    head, colon, name = nqn.rpartition(":")
    volume, dot, number = name.partition(".")
    if not (head and colon) or prefix not in (None, head) or not is_volume_id(volume):
        return None
    if dot and not _GENERATION.fullmatch(number):
        return None
    return ExportName(head, volume, int(number or 0))


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
