"""An HTTP/2 client without manners: sends what no gRPC library would, shows what came back."""

import asyncio
import contextlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h2.config
import h2.connection
import h2.events

HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


GOAWAY = 7


@dataclass(frozen=True)
class Goodbye:
    """A GOAWAY frame."""

    last_stream: int
    error: int


def message(data: bytes, flag: int = 0) -> bytes:
    """A gRPC message: compression flag, length, bytes."""
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


class RawClient:
    """One connection. ``events`` holds everything received, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        config.validate_outbound_headers = False
        self.h2 = h2.connection.H2Connection(config)
        self.events: list[Any] = []
        self.closed = asyncio.Event()
        self._news = asyncio.Event()
        self.hold = False

    async def __aenter__(self) -> Self:
        self._reader, self.writer = await asyncio.open_unix_connection(str(self._path))
        self.h2.initiate_connection()
        self.flush()
        self._task = asyncio.create_task(self._receive())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._task.cancel()
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def _receive(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                header = await self._reader.readexactly(9)
                frame = header + await self._reader.readexactly(int.from_bytes(header[:3], "big"))
                if header[3] == GOAWAY:
                    # h2 takes and sends nothing after it; this client goes on regardless.
                    self.events.append(Goodbye(*struct.unpack(">II", frame[9:17])))
                else:
                    self._feed(frame)
                self._news.set()
        self.closed.set()
        self._news.set()

    def _feed(self, frame: bytes) -> None:
        for event in self.h2.receive_data(frame):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and not self.hold:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()

    def call(
        self,
        rpc: str,
        data: bytes | None = b"",
        *,
        flag: int = 0,
        headers: tuple[tuple[str, str], ...] = (),
        drop: tuple[str, ...] = (),
        raw: bytes | None = None,
    ) -> int:
        """Send a call, or something like one; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        sent = dict(HEADERS) | {":path": f"/csi.v1.{rpc}"} | dict(headers)
        body = raw if raw is not None else (None if data is None else message(data, flag))
        self.h2.send_headers(
            stream, [(k, v) for k, v in sent.items() if k not in drop], end_stream=body is None
        )
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    async def until(self, kind: type, stream: int | None = None) -> Any:
        """The first event of the kind, waiting for it; None if the connection ends before."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            if self.closed.is_set():
                return None
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 5)

    async def trailers(self, stream: int) -> dict[str, str]:
        """The headers that carry the status: trailers, or the only headers there were."""
        await self.until(h2.events.StreamEnded, stream)
        found: dict[str, str] = {}
        for event in self.events:
            if getattr(event, "stream_id", None) == stream and hasattr(event, "headers"):
                found |= dict(event.headers)
        return found
