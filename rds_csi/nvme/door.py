"""Whether a target answers at all: one TCP connect, for all who wait for the same target.

While an RDS is away, a ``nvme connect`` for each of its volumes would hold every slot of the
connect limit until it times out. So the healer knocks first, once for all volumes of a target.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from rds_csi.model.contexts import Endpoint
from rds_csi.nvme.multipath import Answers, answers

FRESH: Final = 1.0
"""Seconds for which an answer is taken for all who ask."""


@dataclass(slots=True)
class _Answer:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    heard: float = float("-inf")
    open: bool = False


class Door:
    """Asks, and remembers the answer for a moment."""

    def __init__(self, ask: Answers = answers) -> None:
        self._ask = ask
        self._answers: dict[tuple[str, int], _Answer] = {}

    async def open(self, endpoint: Endpoint) -> bool:
        """Whether the target answers; who asks while another does, gets that one's answer."""
        loop = asyncio.get_running_loop()
        found = self._answers.setdefault((endpoint.address, endpoint.port), _Answer())
        async with found.lock:
            if loop.time() - found.heard >= FRESH:
                found.open = await self._ask(endpoint)
                found.heard = loop.time()
            return found.open
