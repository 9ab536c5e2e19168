"""The version of RouterOS: read once per connection, and refused where it is too old."""

import re
from dataclasses import dataclass
from typing import Final

from rds_csi.errors import UnsupportedRouterOS
from rds_csi.routeros.reply import Reply, as_text

MINIMUM: Final = (7, 21)
"""The first version whose exports have a settable NQN (``nvme-tcp-server-nqn``)."""

_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?![\d.])")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What the RDS says of itself: RouterOS version, as it prints it, and board."""

    version: str
    board: str


def read_system(reply: Reply) -> System:
    """The system in the reply of ``commands.system``."""
    items = reply.items("system")
    found = items[0] if items else {}
    return System(version=as_text(found.get("version")), board=as_text(found.get("board-name")))


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The numbers of ``7.24.4 (stable)`` or ``7.25beta3``; None where there are none."""
    match = _VERSION.match(text.strip())
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def require_supported(system: System) -> System:
    """Itself; raises :class:`UnsupportedRouterOS` for a version too old, or none at all."""
    version = parse_version(system.version)
    if version is None or version[:2] < MINIMUM:
        raise UnsupportedRouterOS(
            f"RouterOS {system.version or '(no version)'} on {system.board or 'the RDS'} "
            "is not supported: before 7.21 an export's NQN cannot be set",
            advice="upgrade RouterOS; 7.23.4 or 7.24.2 and later have the SSH security fixes too",
        )
    return system
