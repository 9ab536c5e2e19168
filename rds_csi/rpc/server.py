"""The gRPC server: services on a unix socket, and an end that loses no running call."""

# grpclib has no graceful end: its close() cuts running calls off without an answer, tells clients
# nothing and goes on serving new calls of old connections. The drain uses attributes it does not
# promise, so it is pinned exactly, and tests/unit/rpc/test_server.py looks at each of them.
# ruff: noqa: SLF001

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import grpclib.server
import structlog
from grpclib.protocol import H2Protocol
from hyperframe.frame import GoAwayFrame

from rds_csi.csi import v1 as csi
from rds_csi.rpc.calls import Calls, Metrics, NoMetrics, RpcSettings
from rds_csi.rpc.codec import Codec
from rds_csi.rpc.listener import Listener
from rds_csi.rpc.operations import Operations

log = structlog.get_logger(__name__)

_BASES: Final = (
    csi.IdentityBase,
    csi.ControllerBase,
    csi.GroupControllerBase,
    csi.SnapshotMetadataBase,
    csi.NodeBase,
)
"""All of CSI. Of a service it does not know at all grpclib answers so that Go reads "unknown"."""
_GOAWAY: Final = GoAwayFrame(0, last_stream_id=2**31 - 1, error_code=0)
_ANSWER_BUDGET: Final = 1.0
"""Seconds for answers that are ready to reach their callers."""


class Server:
    """Serves CSI services on one unix socket. ``operations`` tells what is under way."""

    def __init__(
        self,
        services: Sequence[Any],
        *,
        settings: RpcSettings = RpcSettings(),  # noqa: B008 - frozen
        metrics: Metrics | None = None,
    ) -> None:
        self.operations = Operations()
        self._settings = settings
        calls = Calls(self.operations, settings, metrics or NoMetrics())
        absent = [base() for base in _BASES if not any(isinstance(s, base) for s in services)]
        self._handlers = [calls.wrap(service) for service in (*services, *absent)]
        self._grpc: _GrpcServer | None = None
        self._listener: Listener | None = None

    async def start(self, path: Path) -> None:
        """Listen at ``path``. Raises :class:`rds_csi.errors.SocketUnusable` if that cannot be."""
        if self._grpc is not None:
            raise RuntimeError("a server starts once")
        listener = Listener.open(path)
        grpc = _GrpcServer(self._handlers, codec=Codec())
        try:
            await grpc.start(sock=listener.socket)
        except BaseException:
            listener.remove()
            listener.socket.close()
            raise
        self._listener, self._grpc = listener, grpc
        log.info("listening", socket=str(path))

    async def drain(self, budget: float) -> list[str]:
        """End: no new calls, ``budget`` seconds for those under way, then stop and close.

        Takes at most ``budget``, the settings' ``grace`` and a moment. Returns the names of
        operations that would not stop even so.
        """
        if self._grpc is None or self._listener is None:
            return []
        grpc, self._grpc = self._grpc, None
        log.info("draining", calls=len(self.operations.running), budget_s=budget)
        try:
            self.operations.refuse()
            grpc.say_goodbye()
            left = await self.operations.close(budget, self._settings.grace)
            await grpc.wait_answered(_ANSWER_BUDGET)
        finally:
            # Also when the drain itself is cancelled: nobody must find a dead socket.
            self._listener.remove()
            grpc.cut()
        await grpc.wait_gone(_ANSWER_BUDGET)
        log.info("drained", left=left)
        return left


class _GrpcServer(grpclib.server.Server):
    """grpclib's server, with the parts of a graceful end that it lacks."""

    def __init__(self, handlers: Sequence[Any], codec: Codec) -> None:
        super().__init__(handlers, codec=codec)
        self.protocols: WeakSet[H2Protocol] = WeakSet()
        self._cut: list[asyncio.Transport] = []

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        self.protocols.add(protocol)
        return protocol

    def _transports(self) -> Iterator[asyncio.Transport]:
        for protocol in self.protocols:
            connection = getattr(protocol, "connection", None)
            if connection is not None and not connection.is_closing():
                yield connection._transport

    def say_goodbye(self) -> None:
        """Close the listener and tell every client to send its next call elsewhere.

        The frame goes out raw: h2 would refuse to send anything after its own GOAWAY.
        """
        if self._server is not None:
            self._server.close()
        for transport in self._transports():
            transport.write(_GOAWAY.serialize())

    async def wait_answered(self, seconds: float) -> None:
        """Wait until no handler runs any more, or the time is up."""
        tasks = {task for handler in self._handlers for task in handler._tasks.values()}
        running = {task for task in tasks if not task.done()}
        if running:
            await asyncio.wait(running, timeout=seconds)

    def cut(self) -> None:
        """Cancel what handlers are left and close every connection."""
        self.close()
        self._cut = list(self._transports())
        for protocol in tuple(self.protocols):
            if hasattr(protocol, "processor"):
                protocol.processor.close("the driver has stopped")

    async def wait_gone(self, seconds: float) -> None:
        """Wait until every connection is closed; those that will not be are dropped."""
        waiting = asyncio.ensure_future(self.wait_closed())
        await asyncio.wait({waiting}, timeout=seconds)
        waiting.cancel()
        for transport in self._cut:
            transport.abort()
