"""An SSH server in the test's own event loop that answers as the test says.

Real SSH, no RouterOS: for what can go wrong with connections and channels. What RouterOS does
with a line is the simulator's business.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import asyncssh

from rds_csi.routeros.settings import SessionSettings

Process = asyncssh.SSHServerProcess[bytes]
Answer = Callable[[Process, str, str], Awaitable[None]]

VERSION = '[{"board-name":"RDS2216","version":"7.23.2 (stable)"}]'


def key(algorithm: str = "ssh-ed25519") -> asyncssh.SSHKey:
    return asyncssh.generate_private_key(algorithm)


def public_text(private: asyncssh.SSHKey) -> str:
    return private.export_public_key().decode().strip()


async def succeed(process: Process, nonce: str, _command: str) -> None:
    process.stdout.write(f"CSI-OK-{nonce}\r\n".encode())
    process.exit(0)


class FakeRds:
    """``async with FakeRds(tmp_path) as rds``; ``rds.answer`` is called for each command.

    The greeting (the version query of each new connection) is answered with ``version`` and
    is not among ``commands``.
    """

    def __init__(self, directory: Path, *host_keys: asyncssh.SSHKey) -> None:
        self.host_keys = list(host_keys) or [key()]
        self.signatures: tuple[str, ...] = ()
        """The algorithms with which it signs; any that its host keys can, if empty."""
        self.client_keys = [key()]
        self.answer: Answer = succeed
        self.version = VERSION
        self.greetings = 0
        self.commands: list[str] = []
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.running = 0
        self.most_running = 0
        self.port = 0
        self.errors: list[BaseException] = []
        self.key_file = directory / "id"
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self.write_client_key(self.client_keys[0])

    def write_client_key(self, private: asyncssh.SSHKey) -> None:
        self.key_file.write_bytes(private.export_private_key())
        self.key_file.chmod(0o600)

    def settings(self, **changes: Any) -> SessionSettings:
        values: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "csi",
            "key_file": self.key_file,
            "host_keys": tuple(public_text(each) for each in self.host_keys),
            "connect_timeout": 5.0,
            "login_timeout": 5.0,
            "command_timeout": 5.0,
            "reconnect_limit": 0.05,
        }
        return SessionSettings(**(values | changes))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        fake = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                self.conn = conn
                fake.connections.append(conn)
                if fake.signatures:
                    able = conn._server_host_keys
                    conn._server_host_keys = OrderedDict(
                        (name, able[name]) for name in map(str.encode, fake.signatures)
                    )
                    conn._server_host_key_algs = list(conn._server_host_keys)

            def connection_lost(self, exc: Exception | None) -> None:
                fake.connections.remove(self.conn)

            def begin_auth(self, username: str) -> bool:
                return True

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                return any(key.public_data == known.public_data for known in fake.client_keys)

        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_host_keys=self.host_keys,
            server_factory=Server,
            process_factory=self._handle,
            encoding=None,
        )
        self.port = self._acceptor.get_port()

    async def stop(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            self.drop()
            await self._acceptor.wait_closed()
            self._acceptor = None
        while self.connections:  # noqa: ASYNC110 - asyncssh has no event for the last one
            await asyncio.sleep(0)

    def drop(self) -> None:
        """Cut every connection, as a reboot does."""
        for connection in list(self.connections):
            connection.abort()

    async def _handle(self, process: Process) -> None:
        command = process.command or ""
        found = re.search(r"CSI-OK-([0-9a-f]{16})", command)
        nonce = found[1] if found else ""
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if "/system/resource/print" in command:
                self.greetings += 1
                process.stdout.write(f"system\r\n{self.version}\r\n".encode())
                await succeed(process, nonce, command)
            else:
                self.commands.append(command)
                await self.answer(process, nonce, command)
        except (asyncssh.Error, OSError):
            pass
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - else asyncssh closes the connection
            self.errors.append(error)
        finally:
            self.running -= 1


class Gate:
    """An answer that waits until the test opens it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, process: Process, nonce: str, command: str) -> None:
        self.entered.set()
        await self.open.wait()
        await succeed(process, nonce, command)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what has no event, 5 s at most."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)
