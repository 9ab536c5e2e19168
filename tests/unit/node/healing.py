"""A healer over a node with maps, and what it does."""

import asyncio
import random
from contextlib import suppress

from rds_csi.model.contexts import Endpoint
from rds_csi.node.healer import Healer, entries
from rds_csi.node.waiting import Waits
from rds_csi.nvme.door import Door
from tests.unit.fakes.clock import FakeClock
from tests.unit.node.mapped_host import ADDRESS, VOLUME, Locks, MappedHost


class Healing:
    """A healer over a host, and what it does."""

    def __init__(self, host: MappedHost) -> None:
        self.host = host
        self.clock = FakeClock()
        self.waits = Waits(self.clock)
        self.locks = Locks()
        self.healed: list[tuple[str, float]] = []
        self.event: bool | None = False
        self.open = True
        self.knocks: list[float] = []
        self.task: asyncio.Task[None] | None = None
        self.healer = Healer(
            sight=host.sight,
            mender=host.mender,
            waits=self.waits,
            exclusively=self.locks,
            door=Door(self.knock),
            events=lambda: self.event,
            entries=lambda: (entries(host.sys), tuple(host.connections)),
            rng=random.Random(4),
            on_healed=lambda volume: self.healed.append((volume, now())),
        )

    async def knock(self, endpoint: Endpoint) -> bool:
        assert (endpoint.address, endpoint.port) == (ADDRESS, 4420)
        self.knocks.append(now())
        return self.open

    def start(self) -> None:
        self.task = asyncio.create_task(self.healer.run())

    @property
    def programs(self) -> int:
        return len(self.host.calls)

    def reason(self, volume: str = VOLUME) -> str:
        found = self.waits.of(volume)
        return "" if found is None else found.reason

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task


def now() -> float:
    return asyncio.get_running_loop().time()
