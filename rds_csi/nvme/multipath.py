"""Several ways to one volume: a connection for each address of its target.

Linux joins them: with native multipath (``nvme_core.multipath``) all connections to one NQN lead to
the same block device, and I/O goes on over another one when one is lost. How it chooses among
those that live is the kernel's own ``iopolicy``, which is left as it is.

Where the kernel does not join them, each connection makes a block device of its own. Two of those
are two ways to write that know nothing of each other, so then only one connection is made.

What proves that another address leads to the same volume, is the namespace's own identifier (UUID,
NGUID or EUI-64): the kernel takes no path to a namespace that has another one. Where a target gives
none, the kernel takes any, so then only one connection is made, too.

One address that connects is enough to use a volume. Whatever goes wrong with the others is logged
and counted, and shown as a path that is down, and never fails a call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from rds_csi.errors import (
    CommandStuck,
    CommandTimeout,
    ConnectFailed,
    ConnectRejected,
    DriverError,
)
from rds_csi.model.contexts import Endpoint, Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.dialer import Dialer, is_at
from rds_csi.nvme.live_settings import Settings
from rds_csi.nvme.readiness import Timings
from rds_csi.nvme.sysfs import Controller, Sysfs
from rds_csi.runtime.retry import is_transient

log = structlog.get_logger(__name__)

ANSWER: Final = 2.0
"""Seconds for an address to take a TCP connection: a lost SYN is sent again after one."""

Answers = Callable[[Endpoint], Awaitable[bool]]


async def answers(endpoint: Endpoint) -> bool:
    """Whether somebody takes a TCP connection there. A dead address costs 2 s, and no connect."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER):
            _, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    return True


def missing(target: Target, controllers: Iterable[Controller]) -> list[Endpoint]:
    """The addresses of the target that no connection leads to; one on its way out is none."""
    there = [each for each in controllers if not each.leaving]
    return [
        endpoint
        for endpoint in target.endpoints
        if not any(is_at(each, endpoint) for each in there)
    ]


class Paths:
    """Makes the connections of a volume. ``on_event`` is told of ``path_failed``: a metric.

    Whoever calls holds the lock of the subsystem, but for :meth:`answering`.
    """

    def __init__(
        self,
        dialer: Dialer,
        settings: Settings,
        sysfs: Sysfs,
        *,
        timings: Timings,
        answers: Answers = answers,
        on_event: Callable[[str], None] = lambda _event: None,
    ) -> None:
        self._dialer = dialer
        self._settings = settings
        self._sysfs = sysfs
        self._timings = timings
        self._answers = answers
        self._on_event = on_event

    def extensible(self, controllers: Sequence[Controller]) -> str:
        """Why the connections are to stay the only ones; empty where others may stand beside."""
        if not self._sysfs.joined(controllers):
            return "this node's kernel joins no paths; nvme_core.multipath=Y makes it"
        if not self._sysfs.identified(controllers):
            return "its namespace has no identifier of its own, by which paths are joined"
        return ""

    async def answering(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Those at which somebody answers, in their order."""
        there = await asyncio.gather(*map(self._answers, endpoints))
        return [endpoint for endpoint, found in zip(endpoints, there, strict=True) if found]

    async def first(
        self, target: Target, config: ConnectionConfig, *, volume: str
    ) -> Endpoint | None:
        """Connect at the first address that takes it; None if somebody was faster.

        Those that answer come first, in their order. Raises what :meth:`Dialer.dial` does: the
        first failure, but one that may pass before one that will not.
        """
        failures: list[DriverError] = []
        for endpoint in await self._in_order(target.endpoints):
            try:
                made = await self._dialer.dial(endpoint, config, volume=volume)
            except (ConnectFailed, ConnectRejected, CommandTimeout) as error:
                failures.append(error)
                if len(target.endpoints) > 1:
                    self._failed(endpoint, volume, error.what)
            else:
                return endpoint if made else None
        raise next(filter(is_transient, failures), failures[0])

    async def add_missing(
        self,
        target: Target,
        config: ConnectionConfig,
        *,
        volume: str,
        among: Collection[Endpoint] | None = None,
    ) -> list[str]:
        """Connect at each address that no connection leads to, beside those that stand.

        Only at those ``among`` these, which answer, where it is known. Returns the addresses that
        are still without a connection. Raises :class:`CommandStuck` alone.
        """
        own = self._dialer.own(target.nqn)
        wanted = missing(target, own)
        if not own or not wanted:
            return [endpoint.address for endpoint in wanted]
        if why := self.extensible(own):
            log.warning(
                "only one of its addresses is used",
                volume=volume,
                nqn=target.nqn,
                why=why,
                unused=[endpoint.address for endpoint in wanted],
            )
            return [endpoint.address for endpoint in wanted]
        there = await self.answering(wanted) if among is None else among
        left = []
        for endpoint in wanted:
            if endpoint not in there:
                self._failed(endpoint, volume, "nobody answers there")
            if endpoint not in there or not await self._add(endpoint, config, volume):
                left.append(endpoint.address)
        return left

    async def _in_order(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        if len(endpoints) == 1:
            return list(endpoints)
        there = await self.answering(endpoints)
        return [*there, *(each for each in endpoints if each not in there)]

    async def _add(self, endpoint: Endpoint, config: ConnectionConfig, volume: str) -> bool:
        """Whether there is one more path now, proven like the first."""
        standing = self._dialer.own(endpoint.nqn)
        before = {each.name for each in standing}
        made = False
        try:
            made = await self._dialer.dial(endpoint, config, volume=volume)
            await self._until_joined(endpoint, standing, volume)
            new = self._dialer.new(endpoint, before)
            self._settings.require(new, endpoint, config, volume=volume)
        except CommandStuck:
            raise
        except DriverError as error:
            self._failed(endpoint, volume, error.what)
            if made:
                await self._dialer.take_back(self._dialer.new(endpoint, before), volume=volume)
            return False
        log.info("path connected", volume=volume, nqn=endpoint.nqn, address=endpoint.address)
        return True

    async def _until_joined(
        self, endpoint: Endpoint, standing: Sequence[Controller], volume: str
    ) -> None:
        """Wait until the new connection leads to the device that the others lead to.

        What another RDS exports under this NQN never becomes a path of it: see above.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timings.path
        before = {each.name for each in standing}
        while True:
            new = self._dialer.new(endpoint, before)
            device = self._sysfs.namespace_of(new)
            same = device is not None and device == self._sysfs.namespace_of(standing)
            if same and any(each.live for each in new) and self._sysfs.joined(new):
                return
            if loop.time() >= end:
                states = ", ".join(each.state for each in new) or "gone"
                raise ConnectFailed(
                    f"the connection to {endpoint.address}:{endpoint.port} is {states} and does "
                    f"not lead to its device within {self._timings.path:g} s",
                    volume=volume,
                    advice="is it an address of the same RDS? The kernel log of the node says more",
                )
            await asyncio.sleep(self._timings.poll)

    def _failed(self, endpoint: Endpoint, volume: str, why: str) -> None:
        self._on_event("path_failed")
        log.warning(
            "address does not connect",
            volume=volume,
            nqn=endpoint.nqn,
            address=endpoint.address,
            why=why,
        )
