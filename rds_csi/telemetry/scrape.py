"""The HTTP server that Prometheus asks: one path, one answer, on the driver's own event loop.

prometheus-client brings a server of its own, with a thread for each request. Here everything
that is counted lives on one loop without locks, and the drain must end what it began; a page of
HTTP/1.1 costs less than threads that meddle with either. The answer is made from memory, so
nobody waits for it. Whoever connects gets little: a few connections, seconds, kilobytes.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_CONNECTIONS: Final = 16
_SECONDS: Final = 10.0
"""For a whole connection: Prometheus's own time-out, unless told otherwise."""
_LARGEST_HEAD: Final = 16 * 1024
_BIND_AGAIN: Final = 5.0
"""Seconds until a taken port is tried again: with host networking the predecessor may have it."""


class MetricsServer:
    """Serves ``render()`` at ``/metrics``. ``host`` None is every address of the machine."""

    def __init__(self, host: str | None, port: int, render: Callable[[], bytes]) -> None:
        self._address = (host, port)
        self._render = render
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until cancelled. An address that cannot be had is tried again and again."""
        server = await self._listen()
        where = [socket.getsockname()[:2] for socket in server.sockets]
        log.info("serving metrics", at=[f"{host}:{port}" for host, port in where])
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _listen(self) -> asyncio.Server:
        refused = ""
        while True:
            try:
                return await asyncio.start_server(
                    self._connected, *self._address, limit=_LARGEST_HEAD
                )
            except OSError as error:
                if str(error) != refused:
                    log.warning("cannot serve metrics", flag="--metrics-address", error=str(error))
                refused = str(error)
                await asyncio.sleep(_BIND_AGAIN)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= _CONNECTIONS:
            writer.transport.abort()
            return
        # The loop keeps no reference to a task; and the end has to cancel it.
        task = asyncio.create_task(self._serve(reader, writer), name="metrics request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("metrics request came to nothing")
        finally:
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"only GET\n")
        if path != b"/metrics":
            return _response("404 Not Found", b"metrics are at /metrics\n")
        response = _response("200 OK", self._render())
        return response if method == b"GET" else response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _response(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\n"
        f"Content-Type: {_CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n"
        "\r\n"
    )
    return head.encode() + body
