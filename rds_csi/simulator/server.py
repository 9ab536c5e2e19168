"""The SSH side: public-key login, one command per channel, no terminal.

As on a device all text goes to stdout, line ends are CRLF and the exit status says nothing.
"""

import asyncio
import os
import re
from typing import Any, Final

import asyncssh
import structlog

from rds_csi.simulator.console import Console
from rds_csi.simulator.device.faults import Fault, Faults, Quirks
from rds_csi.simulator.journal import Exec, Journal
from rds_csi.simulator.language.interpreter import PromptSignal
from rds_csi.simulator.language.values import from_text

log = structlog.get_logger(__name__)

_GARBAGE: Final = "\x1b[?1;2c\r\n%%%% interrupted by peer %%%%\r\n"
_CLOSE_TIMEOUT: Final = 2.0
"""Seconds for connections that were dropped to be gone."""
_LOGIN_OPTIONS: Final = re.compile(r"\+.*?(\d+)w")

Process = asyncssh.SSHServerProcess[bytes]
Connection = asyncssh.SSHServerConnection


class Server:
    """Listens, admits keys, runs execs. ``start`` and ``stop`` may alternate."""

    def __init__(
        self,
        console: Console,
        journal: Journal,
        faults: Faults,
        quirks: Quirks,
        host_key: asyncssh.SSHKey,
    ) -> None:
        self._console = console
        self._journal = journal
        self._faults = faults
        self._quirks = quirks
        self._host_key = host_key
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._open = False
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._channels: dict[asyncssh.SSHServerConnection, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.authorized: set[bytes] = set()
        """The public keys that may log in, in wire form."""
        self.port = 0

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def authorize(self, key: str | bytes | asyncssh.SSHKey) -> None:
        """Admit a public key, given as a key or as an authorized_keys line."""
        if not isinstance(key, asyncssh.SSHKey):
            key = asyncssh.import_public_key(key)
        self.authorized.add(key.public_data)

    async def start(self, address: str, port: int) -> None:
        """Listen; port 0 picks a free one, which a later start uses again."""
        self._open = True
        # asyncssh looks for a home, for the configuration it is told not to read: a container's
        # user may have none.
        if not os.environ.get("HOME"):
            os.environ["HOME"] = "/nonexistent"
        self._acceptor = await asyncssh.listen(
            address,
            self.port or port,
            config=None,
            server_host_keys=[self._host_key],
            server_factory=lambda: _Login(self),
            process_factory=self._serve,
            encoding=None,
            allow_scp=False,
            reuse_address=True,
        )
        self.port = self._acceptor.get_port()

    async def stop(self) -> None:
        """Stop listening and drop every connection, as a reboot does."""
        self._open = False
        acceptor, self._acceptor = self._acceptor, None
        if acceptor:
            acceptor.close()
        self.drop_connections()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if acceptor:
            # From Python 3.12 on this waits for the connections as well, so they went first.
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await acceptor.wait_closed()
            except TimeoutError:
                log.warning("connections stay open", count=len(self._connections))

    def drop_connections(self) -> None:
        """Break all connections without a word."""
        for connection in list(self._connections):
            connection.abort()

    # Login

    def connected(self, connection: asyncssh.SSHServerConnection) -> bool:
        """Admit a connection, or not when there are too many, or it came while stopping."""
        if not self._open or len(self._connections) >= self._quirks.maximum_sessions:
            return False
        self._connections.add(connection)
        self._patch_keepalive(connection)
        return True

    def disconnected(self, connection: asyncssh.SSHServerConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._channels.pop(connection, None)

    def admits(self, user: str, key: asyncssh.SSHKey, connection: Connection) -> bool:
        """Whether the key may log in now; the connection gets the rights of its user.

        Keys that were authorized from outside may do everything, under any name.
        """
        if self._faults.refuse_auth:
            return False
        if key.public_data in self.authorized:
            return True
        peer = connection.get_extra_info("peername")[0]
        rights = self._console.rights_of(user.partition("+")[0], key, peer)
        connection.set_extra_info(rights=rights)
        return rights is not None

    def _patch_keepalive(self, connection: asyncssh.SSHServerConnection) -> None:
        """Make the answer to keepalives depend on the quirk; asyncssh always says yes."""
        report = connection._report_global_response  # noqa: SLF001 (no public way)

        def answer(packet: asyncssh.packet.SSHPacket) -> None:
            packet.check_end()
            if self._quirks.keepalive != "hang":
                report(self._quirks.keepalive == "answer")

        name = "_process_keepalive_at_openssh_dot_com_global_request"
        setattr(connection, name, answer)

    # Execs

    async def _serve(self, process: Process) -> None:
        """One channel. Nothing may escape: asyncssh would close the whole connection."""
        task = asyncio.current_task()
        if task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        connection = process.get_extra_info("connection")
        self._channels[connection] = self._channels.get(connection, 0) + 1
        try:
            limit = self._quirks.maximum_channels
            if limit and self._channels[connection] > limit:
                await process.stdin.read()
            else:
                await self._exec(process, connection)
        except (OSError, asyncssh.Error) as error:
            log.debug("channel lost", error=str(error))
        except Exception:
            log.exception("exec failed")
            process.exit(255)
        finally:
            if connection in self._channels:
                self._channels[connection] -= 1

    async def _exec(self, process: Process, connection: asyncssh.SSHServerConnection) -> None:
        if process.command is None:
            process.stdout.write(b"interactive login is not simulated\r\n")
            process.exit(1)
            return
        line = process.command
        record = self._journal.begin(line)
        fault = self._faults.strike(line)
        record.fault = fault.kind if fault else ""
        if self._quirks.latency:
            await asyncio.sleep(self._quirks.latency)
        kind = fault.kind if fault else ""
        if kind == "drop-before":
            record.outcome = "dropped"
            connection.abort()
            return
        if kind == "stall-before":
            record.outcome = "stalled"
            await process.stdin.read()
            return
        try:
            output = await self._run(process, record, fault)
        except PromptSignal as signal:
            process.stdout.write(signal.prompt.encode("latin-1"))
            await process.stdin.read()
            return
        finally:
            self._journal.end(record)
        await self._reply(process, connection, record, fault, output)

    async def _run(self, process: Process, record: Exec, fault: Fault | None) -> bytes:
        options = _LOGIN_OPTIONS.search(process.get_extra_info("username", ""))
        width = int(options.group(1)) if options else self._quirks.width
        failing = fault if fault and fault.kind == "runtime-error" else None
        line = from_text(record.line)
        rights = process.get_extra_info("rights")
        text = await self._console.run(line, record, width=width, failing=failing, rights=rights)
        output = text.encode("latin-1")
        record.output = output.decode("utf-8", "replace")
        return output

    async def _reply(
        self,
        process: Process,
        connection: asyncssh.SSHServerConnection,
        record: Exec,
        fault: Fault | None,
        output: bytes,
    ) -> None:
        match fault.kind if fault else "":
            case "drop-after":
                connection.abort()
                return
            case "stall-after":
                await process.stdin.read()
                return
            case "garbage":
                text = fault.text if fault and fault.text else _GARBAGE
                output = text.encode()
            case "invalid-utf8":
                output = output[:-2] + b"\xff" + output[-2:]
            case "truncate":
                output = output[: len(output) // 2]
            case "no-exit-status":
                process.stdout.write(output)
                process.close()
                return
        process.stdout.write(output)
        failed = record.outcome in ("parse-error", "runtime-error")
        process.exit(self._quirks.exit_status if failed else 0)


class _Login(asyncssh.SSHServer):
    """Public keys only."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Count the connection."""
        self._connection = conn
        if not self._server.connected(conn):
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        if self._connection:
            self._server.disconnected(self._connection)

    def begin_auth(self, username: str) -> bool:
        """Everybody has to prove who they are."""
        del username
        return True

    def public_key_auth_supported(self) -> bool:
        """The only way in, as on a device once a user has a key."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether the key is authorized."""
        connection = self._connection
        return connection is not None and self._server.admits(username, key, connection)
