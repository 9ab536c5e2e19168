"""How full a mounted file system is, asked so that a dead device cannot hold up the caller.

``statfs`` of a file system whose device does not answer may hang, and the kubelet asks for every
volume every minute. So a child asks, with a deadline. There is no last value to fall back on:
the kubelet does better with an error than with a number of unknown age.
"""

from dataclasses import dataclass
from typing import Final

from rds_csi.errors import Internal
from rds_csi.runtime.process import Runner

_TIMEOUT: Final = 5.0
_FORMAT: Final = "%S %b %f %a %c %d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes and inodes of a file system. ``available`` is what is free for anybody."""

    total: int
    used: int
    available: int
    inodes: int
    inodes_used: int
    inodes_free: int


async def usage(runner: Runner, path: str, *, volume: str) -> Usage:
    """The usage of the file system at ``path``.

    Raises :class:`CommandTimeout` where it does not answer within 5 s.
    """
    result = await runner.run(
        ["stat", "--file-system", f"--format={_FORMAT}", path], timeout=_TIMEOUT, volume=volume
    )
    try:
        block, blocks, free, available, inodes, inodes_free = map(int, result.stdout.split())
    except ValueError:
        raise Internal(
            f"stat says {result.stdout.strip()[:200]!r} of {path}", volume=volume
        ) from None
    return Usage(
        total=blocks * block,
        used=(blocks - free) * block,
        available=available * block,
        inodes=inodes,
        inodes_used=inodes - inodes_free,
        inodes_free=inodes_free,
    )
