"""The version of RouterOS: read once per connection, and refused where it is too old."""

import re
from dataclasses import dataclass
from typing import Any, Final

from rds_csi.errors import RouterOSError, UnsupportedRouterOS
from rds_csi.routeros.reply import Reply, as_text

MINIMUM: Final = (7, 21)
"""The first version whose exports have a settable NQN (``nvme-tcp-server-nqn``)."""

_FIXED: Final = ((7, 23, 4), (7, 24, 0), (7, 24, 2))
"""The fixes came with the first on its branch, and with the last on that of the second."""

_EARLY: Final = re.compile(r"7\.25beta[12](?!\d)")
"""Of the branch that the third beta brought them to."""

_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?![\d.])")

_UPTIME: Final = re.compile(
    r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+):(\d{2}):(\d{2})|(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?)"
)
_SECONDS: Final = (604800, 86400, 3600, 60, 1, 3600, 60, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What the RDS says of itself: RouterOS version, as it prints it, and board.

    ``uptime`` is in seconds, and None where it says none that can be read; ``boots`` is what its
    log says of boots, the oldest first.
    """

    version: str
    board: str
    uptime: int | None = None
    boots: tuple[str, ...] = ()

    @property
    def patched(self) -> bool:
        """Whether it has the security fixes: :func:`has_security_fixes`."""
        return has_security_fixes(self.version)


def read_system(reply: Reply) -> System:
    """The system in the reply of ``commands.system``."""
    items = reply.items("system")
    found = items[0] if items else {}
    return System(
        version=as_text(found.get("version")),
        board=as_text(found.get("board-name")),
        uptime=parse_uptime(as_text(found.get("uptime"))),
        boots=tuple(as_text(each.get("message")) for each in _log(reply)),
    )


def parse_uptime(text: str) -> int | None:
    """Seconds of ``1w2d03:04:05`` or ``2d3h4m5s``; None for anything else."""
    match = _UPTIME.fullmatch(text.strip())
    if match is None or not match[0]:
        return None
    return sum(
        int(number) * seconds
        for number, seconds in zip(match.groups(), _SECONDS, strict=True)
        if number
    )


def _log(reply: Reply) -> list[dict[str, Any]]:
    """The lines of the log; a log that is none keeps nobody from working with the RDS."""
    try:
        return reply.items("log")
    except RouterOSError:
        return []


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The numbers of ``7.24.4 (stable)`` or ``7.25beta3``; None where there are none."""
    match = _VERSION.match(text.strip())
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def has_security_fixes(text: str) -> bool:
    """Whether a version has the fixes of CVE-2026-67276, -67277, -67279 and -86060.

    With the first and the last of them anybody who knows an authorised RSA public key can log in,
    with more rights than the key's user; both are exploited. A version that cannot be read has not.
    """
    version = parse_version(text) or (0, 0, 0)
    first, second, last = _FIXED
    return not (version < first or second <= version < last or _EARLY.match(text.strip()))


def require_supported(system: System) -> System:
    """Itself; raises :class:`UnsupportedRouterOS` for a version too old, or none at all."""
    version = parse_version(system.version)
    if version is None or version[:2] < MINIMUM:
        raise UnsupportedRouterOS(
            f"RouterOS {system.version or '(no version)'} on {system.board or 'the RDS'} "
            "is not supported: before 7.21 an export's NQN cannot be set",
            advice="upgrade RouterOS to 7.23.4, or 7.24.2 or later, for their security fixes",
        )
    return system
