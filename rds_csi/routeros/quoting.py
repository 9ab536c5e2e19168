"""The one place where text becomes RouterOS code.

Every value that reaches the RDS passes :func:`quote`, after the check of its kind. A value that
cannot be carried is refused; none is ever repaired. The rules of quoting are those of the
RouterOS manual ("Scripting", constant escape sequences): inside double quotes a backslash, a
double quote and a dollar sign are escaped, and ``$`` without a backslash would run code.
"""

import re
from typing import Final

from rds_csi.errors import InvalidRequest
from rds_csi.model.volume import check_nqn, is_legacy_id

MAXIMUM_LINE: Final = 4600
"""Characters of a whole line. RouterOS publishes no limit; what is known to work is longer.

With ordinary names no line has more than 4,200; the rest is for the longest that there can be.
"""

_SLOT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PATH: Final = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+")
_MAXIMUM_PATH: Final = 250
_HOST_NQN: Final = re.compile(r"nqn\.[A-Za-z0-9.:_-]{1,219}")
_NONCE: Final = re.compile(r"[0-9a-f]{16}")
_MAXIMUM_NUMBER: Final = 2**63 - 1


def quote(text: str) -> str:
    """``text`` as a RouterOS string constant, which means that text and nothing else.

    Raises :class:`InvalidRequest` for anything but printable ASCII: RouterOS keeps such text
    in no defined encoding, so it would not come back as it went.
    """
    if not text.isascii() or not text.isprintable():
        raise InvalidRequest(f"{text[:64]!r} cannot be sent to RouterOS: not printable ASCII")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def quote_pattern(text: str) -> str:
    """``text`` as the literal part of a POSIX regular expression, still to be quoted."""
    return re.sub(r"([^A-Za-z0-9/%=_ -])", r"\\\1", text)


def number(value: int) -> str:
    """A byte count or port as RouterOS reads it: plain digits, never a rounded unit."""
    if not 0 <= value <= _MAXIMUM_NUMBER:
        raise InvalidRequest(f"{value} is outside of what RouterOS can count")
    return str(value)


def check_slot(slot: str) -> str:
    """The slot, if it is one we make or the Go driver made; else :class:`InvalidRequest`."""
    if not _SLOT.fullmatch(slot) and not is_legacy_id(slot):
        raise InvalidRequest(
            f"{slot[:64]!r} is not a slot", advice="lower-case letters, digits, '-'; 32 at most"
        )
    return slot


def check_file_path(path: str) -> str:
    """A file below a pool as ``/file`` spells it: no leading slash, no way out.

    Raises :class:`InvalidRequest`.
    """
    parts = path.split("/")
    if len(path) > _MAXIMUM_PATH or not _PATH.fullmatch(path) or {".", ".."} & set(parts):
        raise InvalidRequest(
            f"{path[:256]!r} is not a file below a pool",
            advice="expected like raid10/csi/name.img, of letters, digits, '.', '_' and '-'",
        )
    return path


def check_host_nqn(nqn: str) -> str:
    """A host NQN, or "" for any host; else :class:`InvalidRequest`."""
    if nqn and not _HOST_NQN.fullmatch(nqn):
        raise InvalidRequest(f"{nqn[:256]!r} is not a host NQN")
    return nqn


def check_subsystem_nqn(nqn: str) -> str:
    """A subsystem NQN; else :class:`InvalidRequest`."""
    return check_nqn(nqn)


def wrap(command: str, nonce: str) -> str:
    """The line to send: ``command``, and a last word that proves how it ended.

    ``CSI-OK-<nonce>`` is printed last when everything ran, ``CSI-ERR-<nonce> <text>`` when
    something failed at run time. A line that RouterOS cannot parse runs nothing and prints
    neither. Exit status and stderr prove nothing: RouterOS reports 0 for failed commands.

    Raises :class:`InvalidRequest` when the line is too long or not one line of plain text.
    """
    if not _NONCE.fullmatch(nonce):
        raise ValueError(f"{nonce!r} is not a nonce")
    line = (
        f':onerror e in={{ {command}; :put "CSI-OK-{nonce}" }} '
        f'do={{ :put ("CSI-ERR-{nonce} " . $e) }}'
    )
    if not line.isascii() or not line.isprintable():
        raise InvalidRequest("the command is not one line of printable ASCII")
    if len(line) > MAXIMUM_LINE:
        raise InvalidRequest(
            f"the command has {len(line)} characters, RouterOS is sent {MAXIMUM_LINE} at most",
            advice="the names of the volume and of the nodes that have it are too long together",
        )
    return line
