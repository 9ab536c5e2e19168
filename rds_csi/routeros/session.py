"""The one SSH connection to the RDS: made on demand, shared by all, never trusted blindly.

Commands run on channels of one multiplexed connection, few at a time and first come, first
served. What can be said of a failed command is one of two things: it was never sent
(:class:`Unavailable`), or it was and its end is unknown (:class:`OutcomeUnknown`). Neither is
ever taken for an answer.
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import asyncssh
import structlog

from rds_csi.clock import Clock, SystemClock
from rds_csi.errors import (
    DriverError,
    NotAuthorised,
    OutcomeUnknown,
    RouterOSError,
    ShuttingDown,
    Unavailable,
)
from rds_csi.retry import RetryPolicy, delays
from rds_csi.routeros import commands, script
from rds_csi.routeros.exchange import Exchange
from rds_csi.routeros.failures import explain, rejected
from rds_csi.routeros.reply import Reply, decode, excerpt, read
from rds_csi.routeros.settings import (
    CIPHERS,
    SessionSettings,
    client_key,
    host_key_algorithms,
    trusted_keys,
)
from rds_csi.routeros.system import System, read_system, require_supported

log = structlog.get_logger(__name__)

_GREETING_TIMEOUT: Final = 15.0


@dataclass(slots=True)
class Statistics:
    """What the session did so far, and what it does now. For metrics; nothing decides by it."""

    execs: int = 0
    failures: int = 0
    seconds: float = 0.0
    connects: int = 0
    connect_failures: int = 0
    waiting: int = 0
    running: int = 0


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
        self.statistics = Statistics()
        self.system: System | None = None
        """What the RDS said of itself at the last connect."""
        self._settings = settings
        self._observe = observe
        self._clock = clock if clock is not None else SystemClock()
        self._channels = asyncio.Semaphore(settings.channels)
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._delays = delays(RetryPolicy(), limit=settings.reconnect_limit, rng=rng)
        self._failure: DriverError | None = None
        self._not_before = 0.0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    async def execute(self, command: str, *, volume: str = "") -> Reply:
        """Run ``command`` on the RDS; waiting and connecting count towards its time.

        The reply's ``error`` is RouterOS's own text where the command ran and failed. Raises
        :class:`Unavailable`, :class:`NotAuthorised` or :class:`UnsupportedRouterOS` if nothing
        was sent, :class:`OutcomeUnknown` if it was and no answer came, and what
        ``failures.explain`` makes of a line that RouterOS refused to run.
        """
        nonce = secrets.token_hex(8)
        line = script.wrap(command, nonce)
        started = self._clock.monotonic()
        outcome = "unknown"
        try:
            reply = await self._execute(line, nonce, volume)
            outcome = "ok" if reply.error is None else "failed"
        except OutcomeUnknown:
            raise
        except DriverError:
            outcome = "failed"
            raise
        finally:
            self._count(outcome, self._clock.monotonic() - started)
        return reply

    async def close(self) -> None:
        """Close the connection for good. Commands under way end as :class:`OutcomeUnknown`."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()

    async def _execute(self, line: str, nonce: str, volume: str) -> Reply:
        timeout = self._settings.command_timeout
        exchange = Exchange(self._settings.maximum_output)
        try:
            async with asyncio.timeout(timeout):
                await self._queued(exchange, line)
        except TimeoutError:
            if exchange.sent:
                raise OutcomeUnknown(
                    f"the RDS did not answer within {timeout:g} s", volume=volume
                ) from None
            raise Unavailable(
                f"no free channel to the RDS within {timeout:g} s", volume=volume
            ) from None
        except (Unavailable, OutcomeUnknown) as error:
            error.volume = error.volume or volume
            raise
        return _conclude(exchange, nonce, volume)

    async def _queued(self, exchange: Exchange, line: str) -> None:
        self.statistics.waiting += 1
        try:
            await self._channels.acquire()
        finally:
            self.statistics.waiting -= 1
        self.statistics.running += 1
        connection: asyncssh.SSHClientConnection | None = None
        try:
            connection = await self._connected()
            await exchange.run(connection, line)
        finally:
            if connection is None:
                self._release(exchange.closed)
            else:
                self._release_when_closed(exchange, connection)

    def _release_when_closed(
        self, exchange: Exchange, connection: asyncssh.SSHClientConnection
    ) -> None:
        """Free the place when the channel is really gone, not when its caller left."""
        if exchange.closed.done():
            self._release(exchange.closed)
            return
        exchange.closed.add_done_callback(self._release)

        def give_up() -> None:
            if not exchange.closed.done():
                log.warning("the RDS does not close a channel; dropping the connection")
                connection.abort()

        timer = asyncio.get_running_loop().call_later(self._settings.close_timeout, give_up)
        exchange.closed.add_done_callback(lambda _: timer.cancel())

    def _release(self, _closed: "asyncio.Future[None]") -> None:
        self.statistics.running -= 1
        self._channels.release()

    def _count(self, outcome: str, seconds: float) -> None:
        self.statistics.execs += 1
        self.statistics.seconds += seconds
        if outcome != "ok":
            self.statistics.failures += 1
        if self._observe is not None:
            self._observe(outcome, seconds)

    # The connection

    async def _connected(self) -> asyncssh.SSHClientConnection:
        """The connection, made now if there is none; one attempt serves all who wait."""
        if self._closed:
            raise ShuttingDown("the session with the RDS is closed")
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        if self._connecting is None:
            wait = self._not_before - self._clock.monotonic()
            if self._failure is not None and wait > 0:
                raise _repeated(self._failure, wait)
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(self._connect_done)
        attempt = self._connecting
        # Unlike a plain await, this leaves the attempt to the others if this caller is cancelled.
        await asyncio.wait([attempt])
        if attempt.cancelled():
            raise ShuttingDown("the session with the RDS is closed")
        error = attempt.exception()
        if isinstance(error, DriverError):
            # Several may have waited for the same attempt: each gets an error of its own.
            raise _repeated(error) from error
        return attempt.result()

    def _connect_done(self, task: "asyncio.Task[asyncssh.SSHClientConnection]") -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()

    async def _connect(self) -> asyncssh.SSHClientConnection:
        try:
            connection = await self._login()
            try:
                self.system = await self._greet(connection)
            except BaseException:
                connection.abort()
                raise
        except DriverError as error:
            first = self._failure is None
            self._failure = error
            self._not_before = self._clock.monotonic() + self._delays.next()
            self.statistics.connect_failures += 1
            (log.warning if first else log.debug)(
                "cannot use the RDS", host=self._settings.host, error=str(error)
            )
            raise
        self._connection = connection
        self._failure = None
        self._delays.reset()
        self.statistics.connects += 1
        log.info("connected to the RDS", host=self._settings.host, version=self.system.version)
        return connection

    async def _login(self) -> asyncssh.SSHClientConnection:
        settings = self._settings
        key = await asyncio.to_thread(client_key, settings)
        keys = [] if settings.insecure_accept_any_host_key else trusted_keys(settings.host_keys)
        if not keys:
            log.warning(
                "INSECURE: accepting any host key; whoever answers gets to be the RDS",
                host=settings.host,
            )
        try:
            return await asyncssh.connect(
                settings.host,
                settings.port,
                username=settings.user,
                client_keys=[key],
                known_hosts=(keys, [], []) if keys else None,
                server_host_key_algs=host_key_algorithms(keys) if keys else (),
                preferred_auth=["publickey"],
                encryption_algs=list(CIPHERS),
                # Nothing of the machine's own SSH set-up may change what we trust or send.
                config=None,
                agent_path=None,
                connect_timeout=settings.connect_timeout,
                login_timeout=settings.login_timeout,
                keepalive_interval=settings.keepalive_interval,
                keepalive_count_max=settings.keepalive_count,
            )
        except (asyncssh.Error, OSError) as error:
            raise connect_error(settings, error) from error

    async def _greet(self, connection: asyncssh.SSHClientConnection) -> System:
        """Ask for the version before anything else, once per connection."""
        nonce = secrets.token_hex(8)
        try:
            greeting = await self._ask(connection, script.wrap(commands.system(), nonce))
            reply = _conclude(greeting, nonce, "")
        except RouterOSError:
            # Before 7.17 RouterOS cannot parse that line; this one it can, and is then named.
            plain = await self._ask(connection, commands.PLAIN_VERSION)
            version, _, _ = decode(bytes(plain.output)).strip().partition("\r\n")
            return require_supported(System(version=version[:80], board=""))
        except OutcomeUnknown as error:
            raise Unavailable(f"the RDS did not tell its version: {error.what}") from None
        if reply.error is not None:
            raise explain(reply.error)
        return require_supported(read_system(reply))

    async def _ask(self, connection: asyncssh.SSHClientConnection, line: str) -> Exchange:
        exchange = Exchange(self._settings.maximum_output)
        try:
            async with asyncio.timeout(_GREETING_TIMEOUT):
                await exchange.run(connection, line)
        except (OutcomeUnknown, TimeoutError):
            raise Unavailable("the RDS did not tell its version") from None
        return exchange


def _conclude(exchange: Exchange, nonce: str, volume: str) -> Reply:
    """The reply, if the output proves how the command ended.

    The marker is proof by itself, with or without an exit status. Without it, only RouterOS's
    refusal to run the line is an answer.
    """
    text = decode(bytes(exchange.output))
    reply = read(text, nonce)
    if reply is not None:
        return reply
    if exchange.complete and rejected(text):
        raise explain(text, volume=volume)
    raise OutcomeUnknown(
        "the reply of the RDS ended without its marker"
        f"{'' if exchange.complete else ' (connection lost)'}: {excerpt(text)!r}",
        volume=volume,
    )


def connect_error(settings: SessionSettings, error: Exception) -> DriverError:
    """What it means that no connection came to be."""
    where = f"RDS {settings.host}:{settings.port}"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return NotAuthorised(
            f"{where} shows a host key that is not pinned",
            advice="if its key was replaced on purpose, pin the new one; else somebody poses as it",
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return NotAuthorised(
            f"{where} agrees on no algorithm: {error}",
            advice="are its host keys of the types that are pinned?",
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return NotAuthorised(
            f"{where} does not accept the key of user {settings.user!r}",
            advice="/user/ssh-keys/import, and policy ssh for the user's group",
        )
    if isinstance(error, TimeoutError):
        return Unavailable(f"{where} did not answer within {settings.connect_timeout:g} s")
    return Unavailable(f"{where} cannot be reached: {error}")


def _repeated(failure: DriverError, wait: float = 0.0) -> DriverError:
    """The same failure for another caller."""
    later = f"; next attempt in {wait:.1f} s" if wait else ""
    return type(failure)(f"{failure.what}{later}", advice=failure.advice)
