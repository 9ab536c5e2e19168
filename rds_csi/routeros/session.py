"""Commands on the RDS: few at a time, first come, first served, and never trusted blindly.

They run on channels of one multiplexed connection. What can be said of a command that brought
no answer is one of two things: it was never sent (:class:`Unavailable`), or it was and its end
is unknown (:class:`OutcomeUnknown`). Neither is ever taken for an answer.
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import asyncssh
import structlog

from rds_csi.errors import DriverError, OutcomeUnknown, Unavailable
from rds_csi.routeros import quoting
from rds_csi.routeros.connection import Connection
from rds_csi.routeros.exchange import Exchange
from rds_csi.routeros.reply import Reply, decode
from rds_csi.routeros.settings import SessionSettings
from rds_csi.routeros.version import System
from rds_csi.runtime.causes import note
from rds_csi.runtime.clock import Clock, SystemClock

log = structlog.get_logger(__name__)


_LONG: Final = 256 * 1024
"""Bytes of a reply beyond which taking it apart would hold the event loop."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a session did so far, and what it does now. For metrics; nothing decides by it."""

    execs: int
    failures: int
    seconds: float
    connects: int
    connect_failures: int
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What came of a bare line: its text, and the exit status if one was sent."""

    text: str
    status: int | None


class Session:
    """A connection to one RDS. Safe to use from many tasks of one event loop.

    ``observe`` is told of each command: "ok", "failed" or "unknown", and its seconds.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        observe: Callable[[str, float], None] | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._clock = clock if clock is not None else SystemClock()
        self._connection = Connection(settings, self._clock, rng)
        self._channels = asyncio.Semaphore(settings.channels)
        self._execs = 0
        self._failures = 0
        self._seconds = 0.0
        self._waiting = 0
        self._running = 0

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._connection.stands

    @property
    def system(self) -> System | None:
        """What the RDS said of itself at the last connect."""
        return self._connection.system

    @property
    def booted(self) -> float | None:
        """When the RDS booted, on the monotonic clock, as the last connect told."""
        return self._connection.booted

    @property
    def statistics(self) -> Statistics:
        """The numbers of this moment."""
        return Statistics(
            execs=self._execs,
            failures=self._failures,
            seconds=self._seconds,
            connects=self._connection.connects,
            connect_failures=self._connection.failures,
            waiting=self._waiting,
            running=self._running,
        )

    async def execute(self, command: str, *, volume: str = "", largest: int | None = None) -> Reply:
        """Run ``command`` on the RDS; waiting and connecting count towards its time.

        ``largest``: bytes that the reply may have, if fewer than the settings say.

        The reply's ``error`` is RouterOS's own text where the command ran and failed. Raises
        :class:`Unavailable`, :class:`NotAuthorised` or :class:`UnsupportedRouterOS` if nothing
        was sent, :class:`OutcomeUnknown` if it was and no answer came, and what
        ``failures.explain`` makes of a line that RouterOS refused to run.
        """
        nonce = secrets.token_hex(8)
        try:
            line = quoting.wrap(command, nonce)
        except DriverError as error:
            error.volume = error.volume or volume
            raise
        started = self._clock.monotonic()
        outcome = "unknown"
        try:
            exchange = Exchange(largest or self._settings.maximum_output)
            reply = await self._within_time(exchange, line, nonce, volume)
            outcome = "ok" if reply.error is None else "failed"
        except OutcomeUnknown:
            raise
        except DriverError:
            outcome = "failed"
            raise
        finally:
            self._count(outcome, self._clock.monotonic() - started)
        return reply

    async def observe(self, line: str) -> Observation:
        """Run a line as it stands, without a marker: for ``trials.py``, never to decide by.

        Raises as :meth:`execute` does, but for what RouterOS says.
        """
        exchange = Exchange(self._settings.maximum_output)
        try:
            async with asyncio.timeout(self._settings.command_timeout):
                await self._in_turn(exchange, line)
        except TimeoutError:
            limit = self._settings.command_timeout
            raise OutcomeUnknown(f"the RDS did not answer within {limit:g} s") from None
        return Observation(decode(bytes(exchange.output)), exchange.status)

    async def close(self) -> None:
        """Close the connection for good. Commands under way end as :class:`OutcomeUnknown`."""
        await self._connection.close()

    async def _within_time(self, exchange: Exchange, line: str, nonce: str, volume: str) -> Reply:
        limit = self._settings.command_timeout
        try:
            async with asyncio.timeout(limit):
                await self._in_turn(exchange, line)
            if len(exchange.output) > _LONG:
                return await asyncio.to_thread(exchange.conclude, nonce)
            return exchange.conclude(nonce)
        except TimeoutError:
            if exchange.sent:
                raise OutcomeUnknown(
                    f"the RDS did not answer within {limit:g} s", volume=volume
                ) from None
            raise Unavailable(
                f"no free channel to the RDS within {limit:g} s", volume=volume
            ) from None
        except asyncio.CancelledError:
            note(
                "the RDS had not answered the command"
                if exchange.sent
                else "no channel to the RDS was free or connected yet"
            )
            raise
        except DriverError as error:
            error.volume = error.volume or volume
            raise

    async def _in_turn(self, exchange: Exchange, line: str) -> None:
        # Semaphores of asyncio are fair: who came first gets the place.
        self._waiting += 1
        try:
            await self._channels.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        ssh: asyncssh.SSHClientConnection | None = None
        try:
            ssh = await self._connection.get()
            await exchange.run(ssh, line)
        finally:
            if ssh is None or exchange.closed.done():
                self._release()
            else:
                self._release_later(exchange, ssh)

    def _release_later(self, exchange: Exchange, ssh: asyncssh.SSHClientConnection) -> None:
        """Free the place when the channel is really gone, not when its caller left."""

        def give_up() -> None:
            log.warning("the RDS does not close a channel; dropping the connection")
            ssh.abort()

        timer = asyncio.get_running_loop().call_later(self._settings.close_timeout, give_up)

        def gone(_: "asyncio.Future[None]") -> None:
            timer.cancel()
            self._release()

        exchange.closed.add_done_callback(gone)

    def _release(self) -> None:
        self._running -= 1
        self._channels.release()

    def _count(self, outcome: str, seconds: float) -> None:
        self._execs += 1
        self._seconds += seconds
        if outcome != "ok":
            self._failures += 1
        if self._observe is not None:
            self._observe(outcome, seconds)
