"""Making the connection to the RDS: on demand, once for all who wait, never in a storm.

An RDS that is down costs one attempt now and then, not a time-out per call: after a failure the
next attempt has to wait, longer each time up to a limit, and until then calls fail at once with
what the last attempt found.
"""

import asyncio
import random
import secrets
from typing import Final

import asyncssh
import structlog

from rds_csi.errors import (
    DriverError,
    NotAuthorised,
    NotReady,
    OutcomeUnknown,
    RouterOSError,
    ShuttingDown,
    Unavailable,
    UntrustedHostKey,
)
from rds_csi.routeros import commands, quoting
from rds_csi.routeros.exchange import Exchange
from rds_csi.routeros.failures import explain
from rds_csi.routeros.reply import decode
from rds_csi.routeros.settings import (
    CIPHERS,
    SessionSettings,
    client_key,
    host_key_algorithms,
    need_no_local_user,
    trusted_keys,
)
from rds_csi.routeros.version import System, parse_version, read_system, require_supported
from rds_csi.runtime.clock import Clock
from rds_csi.runtime.retry import RetryPolicy, delays

log = structlog.get_logger(__name__)

_GREETING_TIMEOUT: Final = 15.0
_CLOSE_TIMEOUT: Final = 2.0


class Connection:
    """The connection of one session: made when it is wanted, made again when it is gone."""

    def __init__(self, settings: SessionSettings, clock: Clock, rng: random.Random | None) -> None:
        self.system: System | None = None
        """What the RDS said of itself at the last connect."""
        self.booted: float | None = None
        """When it booted, on the monotonic clock, where the last connect told."""
        self.connects = 0
        self.failures = 0
        self._settings = settings
        self._clock = clock
        self._ssh: asyncssh.SSHClientConnection | None = None
        self._attempt: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._delays = delays(RetryPolicy(), limit=settings.reconnect_limit, rng=rng)
        self._failure: DriverError | None = None
        self._not_before = 0.0
        self._closed = False

    @property
    def stands(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._ssh is not None and not self._ssh.is_closed()

    async def get(self) -> asyncssh.SSHClientConnection:
        """The connection, made now if there is none; one attempt serves all who wait.

        Raises :class:`Unavailable`, :class:`NotAuthorised` or :class:`UnsupportedRouterOS`;
        within the pause after a failure at once, with that failure.
        """
        if self._closed:
            raise ShuttingDown("the session with the RDS is closed")
        if self._ssh is not None and not self._ssh.is_closed():
            return self._ssh
        if self._attempt is None:
            wait = self._not_before - self._clock.monotonic()
            if self._failure is not None and wait > 0:
                raise _repeated(self._failure, wait)
            self._attempt = asyncio.ensure_future(self._connect())
            self._attempt.add_done_callback(self._attempt_done)
        attempt = self._attempt
        # Unlike a plain await, this leaves the attempt to the others if this caller is cancelled.
        await asyncio.wait([attempt])
        if attempt.cancelled():
            raise ShuttingDown("the session with the RDS is closed")
        error = attempt.exception()
        if isinstance(error, DriverError):
            # Several may have waited for the same attempt: each gets an error of its own.
            raise _repeated(error) from error
        return attempt.result()

    async def close(self) -> None:
        """End it for good, politely if the RDS takes part."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        if self._ssh is not None:
            self._ssh.close()
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._ssh.wait_closed()
            except TimeoutError:
                self._ssh.abort()

    def _attempt_done(self, task: "asyncio.Task[asyncssh.SSHClientConnection]") -> None:
        self._attempt = None
        if not task.cancelled():
            task.exception()

    async def _connect(self) -> asyncssh.SSHClientConnection:
        host = self._settings.host
        try:
            ssh = await self._login()
            try:
                self.system = await self._greet(ssh)
            except BaseException:
                ssh.abort()
                raise
        except DriverError as error:
            # Loud once; an outage of hours does not need a line per attempt.
            report = log.warning if self._failure is None else log.debug
            report("cannot use the RDS", host=host, error=str(error))
            self._failure = error
            self._not_before = self._clock.monotonic() + self._delays.next()
            self.failures += 1
            raise
        if self.system.uptime is not None:
            self.booted = self._clock.monotonic() - self.system.uptime
        self._ssh = ssh
        self._failure = None
        self._delays.reset()
        self.connects += 1
        log.info("connected to the RDS", host=host, version=self.system.version)
        if not self.system.patched:
            log.warning(
                "RouterOS lacks security fixes: upgrade to 7.23.4, or 7.24.2 or later",
                host=host,
                version=self.system.version,
            )
        return ssh

    async def _login(self) -> asyncssh.SSHClientConnection:
        settings = self._settings
        key = await asyncio.to_thread(client_key, settings)
        keys = [] if settings.insecure_accept_any_host_key else trusted_keys(settings.host_keys)
        if not keys:
            log.warning(
                "INSECURE: accepting any host key; whoever answers gets to be the RDS",
                host=settings.host,
            )
        need_no_local_user()
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

    async def _greet(self, ssh: asyncssh.SSHClientConnection) -> System:
        """Ask for the version before anything else, once per connection."""
        nonce = secrets.token_hex(8)
        try:
            greeting = await self._ask(ssh, quoting.wrap(commands.system(), nonce))
            reply = greeting.conclude(nonce)
        except (RouterOSError, NotReady):
            # Before 7.17 RouterOS cannot parse that line; this one it can, and is then named.
            plain = await self._ask(ssh, commands.PLAIN_VERSION)
            version, _, _ = decode(bytes(plain.output)).strip().partition("\r\n")
            if parse_version(version) is None:
                raise
            return require_supported(System(version=version[:80], board=""))
        except OutcomeUnknown as error:
            raise Unavailable(f"the RDS did not tell its version: {error.what}") from None
        if reply.error is not None:
            raise explain(reply.error)
        return require_supported(read_system(reply))

    async def _ask(self, ssh: asyncssh.SSHClientConnection, line: str) -> Exchange:
        exchange = Exchange(self._settings.maximum_output)
        try:
            async with asyncio.timeout(_GREETING_TIMEOUT):
                await exchange.run(ssh, line)
        except (OutcomeUnknown, TimeoutError):
            raise Unavailable("the RDS did not tell its version") from None
        return exchange


def connect_error(settings: SessionSettings, error: Exception) -> DriverError:
    """What it means that no connection came to be."""
    where = f"RDS {settings.host}:{settings.port}"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return UntrustedHostKey(
            f"{where} shows a host key that is not pinned",
            advice="if its key was replaced on purpose, pin the new one; else somebody poses as it",
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return UntrustedHostKey(
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
