"""The control socket: quirks, faults and the journal for tests and demos in other processes.

One JSON object per line each way over a unix socket: ``{"do": "cut", "with": {"slot": "x"}}``
is answered by ``{"ok": …}`` or ``{"error": "…"}``. What can be done is in ``_ACTS``. It works
while SSH does not: that is its point.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self

from rds_csi.simulator.language.values import RuntimeFault
from rds_csi.simulator.simulator import Simulator

_MAXIMUM_LINE: Final = 64 * 1024**2


class ControlServer:
    """Serves a simulator's control socket."""

    def __init__(self, simulator: Simulator, path: Path) -> None:
        self._simulator = simulator
        self._path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; only the same user may connect. A socket left by an earlier run is replaced."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_MAXIMUM_LINE)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening and hang up."""
        if self._server:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            act = _ACTS[request["do"]]
            return {"ok": await act(self._simulator, **request.get("with", {}))}
        except (ValueError, TypeError, KeyError, OSError, RuntimeFault) as error:
            return {"error": f"{type(error).__name__}: {error}"}


class Control:
    """The client of a control socket, not async: ``Control(path).do("cut", slot="x")``."""

    def __init__(self, path: Path | str, *, timeout: float = 60.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rwb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def do(self, act: str, **arguments: Any) -> Any:
        """Have something done; its result. Raises RuntimeError with what the simulator says."""
        self._file.write(json.dumps({"do": act, "with": arguments}).encode() + b"\n")
        self._file.flush()
        line = self._file.readline()
        if not line:
            raise RuntimeError("the simulator hung up")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["ok"]


async def _status(simulator: Simulator) -> dict[str, Any]:
    exporter = simulator.device.exporter
    return {
        "port": simulator.port,
        "host_key": simulator.host_key_line,
        "connections": simulator.server.connections,
        "execs": simulator.journal.count,
        "exported": sorted(simulator.exported),
        "disks": {
            slot: {"id": disk.id, "size": disk.size, **disk.properties}
            for slot, disk in simulator.disks.items()
        },
        "waiting": sorted(simulator.waiting),
        "namespaces": {slot: asdict(told) for slot, told in simulator.namespaces.items()},
        "nqns": sorted(export.nqn for export in exporter.exports.values()),
        "files": simulator.files,
        "hazards": simulator.device.hazards,
    }


async def _journal(simulator: Simulator, since: int = 0) -> list[dict[str, Any]]:
    return simulator.journal.as_json(since)


async def _run(simulator: Simulator, line: str) -> str:
    return await simulator.run(line)


async def _authorize(simulator: Simulator, key: str) -> None:
    simulator.authorize(key)


async def _make_directory(simulator: Simulator, name: str) -> None:
    simulator.make_directory(name)


async def _quirk(simulator: Simulator, name: str, value: str | float | bool) -> None:
    simulator.quirks.set(name, value)


async def _fault(simulator: Simulator, **fault: Any) -> None:
    simulator.faults.add(fault.pop("kind"), **fault)


async def _clear(simulator: Simulator) -> None:
    simulator.faults.clear()


async def _refuse_auth(simulator: Simulator, refuse: bool = True) -> None:
    simulator.faults.refuse_auth = refuse


async def _drop(simulator: Simulator) -> None:
    simulator.server.drop_connections()


async def _fill_pool(simulator: Simulator, pool: str, free: int = 0) -> None:
    simulator.fill_pool(pool, free=free)


async def _discard(simulator: Simulator, slot: str, offset: int, length: int) -> None:
    simulator.discard(slot, offset, length)


async def _stop_ssh(simulator: Simulator) -> None:
    await simulator.server.stop()


async def _start_ssh(simulator: Simulator) -> None:
    await simulator.server.start(simulator.address, simulator.port)


async def _version(simulator: Simulator, version: str) -> None:
    simulator.set_version(version)


_ACTS: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    "status": _status,
    "journal": _journal,
    "run": _run,
    "authorize": _authorize,
    "make-directory": _make_directory,
    "quirk": _quirk,
    "fault": _fault,
    "clear-faults": _clear,
    "refuse-auth": _refuse_auth,
    "drop-connections": _drop,
    "fill-pool": _fill_pool,
    "unmount-pool": Simulator.unmount_pool,
    "mount-pool": Simulator.mount_pool,
    "reboot": Simulator.reboot,
    "cut": Simulator.cut,
    "discard": _discard,
    "restore": Simulator.restore,
    "stop-ssh": _stop_ssh,
    "start-ssh": _start_ssh,
    "version": _version,
}
