"""The HTTP server for Prometheus: what it answers, and what it does not suffer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from rds_csi.telemetry import scrape
from rds_csi.telemetry.scrape import MetricsServer
from tests.unit.fakes.ssh import until

BODY = b"rds_csi_x 1.0\n"


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


@contextlib.asynccontextmanager
async def served(
    log: list[Any], port: int = 0, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[int, "asyncio.Task[None]"]]:
    task = asyncio.create_task(MetricsServer(host, port, lambda: BODY).serve())
    try:
        yield await where(log), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def where(log: list[Any]) -> int:
    """The port, once it is served."""

    def at() -> list[Any]:
        return [entry["at"] for entry in log if entry["event"] == "serving metrics"]

    await until(at)
    return int(at()[0][0].rpartition(":")[2])


async def ask(port: int, request: bytes, host: str = "127.0.0.1") -> bytes:
    """What comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "line", [b"GET /metrics HTTP/1.1", b"GET /metrics?name=x HTTP/1.0", b"GET /metrics"]
)
async def test_the_metrics(log: list[Any], line: bytes) -> None:
    async with served(log) as (port, _):
        answer = await ask(port, line + b"\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert f"Content-Length: {len(BODY)}".encode() in head
    assert body == BODY


async def test_a_head_has_no_body(log: list[Any]) -> None:
    async with served(log) as (port, _):
        answer = await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert f"Content-Length: {len(BODY)}".encode() in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/.. HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02 nonsense\r\n\r\n", b"405"),
        (b"\r\n\r\n", b"405"),
    ],
)
async def test_anything_else_is_refused(log: list[Any], request_: bytes, status: bytes) -> None:
    async with served(log) as (port, _):
        answer = await ask(port, request_)
        assert answer.split(b" ")[1] == status
        assert BODY not in answer
        assert BODY in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("request_", [b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 70_000, b"GET"])
async def test_a_request_without_end_is_cut_off(
    log: list[Any], request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "_SECONDS", 0.05)
    async with served(log) as (port, _):
        assert await ask(port, request_) == b""
        assert BODY in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_a_client_that_leaves_harms_nobody(log: list[Any]) -> None:
    async with served(log) as (port, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /met")
        writer.transport.abort()
        assert BODY in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_more_connections_than_allowed_are_dropped(
    log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "_CONNECTIONS", 2)
    async with served(log) as (port, _):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        for _, writer in idle:
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        for reader, writer in idle:
            assert BODY in await reader.read()
            writer.close()
        assert BODY in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_the_end_does_not_wait_for_clients(log: list[Any]) -> None:
    async with served(log) as (port, task):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /me")
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(2):
            with pytest.raises(asyncio.CancelledError):
                await task
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.close()


async def test_a_taken_address_is_said_once_and_tried_again(
    log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "_BIND_AGAIN", 0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        serving = asyncio.create_task(MetricsServer("127.0.0.1", port, lambda: BODY).serve())
        for _ in range(100):
            await asyncio.sleep(0)
        (line,) = log
        assert line["event"] == "cannot serve metrics"
        assert line["flag"] == "--metrics-address"
        assert str(port) in line["error"]
    assert await where(log) == port
    assert BODY in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
