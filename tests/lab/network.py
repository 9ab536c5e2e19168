"""A network that loses packets between this machine's initiator and its target."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

PORT: Final = 4420
Direction = Literal["to the target", "from the target", "both ways"]

_MATCHES: Final[dict[Direction, tuple[tuple[str, str], ...]]] = {
    "to the target": (("-d", "--dport"),),
    "from the target": (("-s", "--sport"),),
    "both ways": (("-d", "--dport"), ("-s", "--sport")),
}


@contextmanager
def dropped(direction: Direction, address: str = "0.0.0.0/0") -> Iterator[None]:
    """Drop every packet of NVMe/TCP that goes this way: nobody is told, as when a switch dies.

    ``address``: only those of the target's one address.
    """
    rules = [
        ["INPUT", "-p", "tcp", end, address, match, str(PORT), "-j", "DROP"]
        for end, match in _MATCHES[direction]
    ]
    added = []
    try:
        for rule in rules:
            _iptables("--insert", *rule)
            added.append(rule)
        yield
    finally:
        for rule in added:
            _iptables("--delete", *rule)


def _iptables(*arguments: str) -> None:
    done = subprocess.run(
        ["iptables", "--wait", *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"iptables {arguments}: {done.stderr}"
