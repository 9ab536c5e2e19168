"""What happens around every call, once: check, lock, deadline, errors, log line, metrics."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from struct import error as StructError  # noqa: N812 - a class, though spelt small
from typing import Any, Final, Protocol

import structlog
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream
from h2.exceptions import ProtocolError
from structlog.contextvars import bind_contextvars

from rds_csi.csi import v1 as csi
from rds_csi.errors import Code, DriverError, Internal, InvalidRequest
from rds_csi.rpc.operations import Operations
from rds_csi.rpc.requests import MUTATES, check
from rds_csi.telemetry import logs

log = structlog.get_logger(__name__)

_GENERATED: Final = csi.IdentityBase.__module__
_LONGEST_TEXT: Final = 2048
"""Bytes of an error's text. Percent-encoding may treble it, and gRPC's C core drops the whole
reply when a trailer passes 8 KiB."""
_FAILED: Final = "the driver failed; its log says how"


class Metrics(Protocol):
    """Who counts calls. ``rpc`` is the method's name, like ``CreateVolume``."""

    def rpc_started(self, rpc: str) -> None:
        """A call has come in."""

    def rpc_finished(self, rpc: str, code: Code, seconds: float) -> None:
        """The call has been answered, or its caller has left."""


class NoMetrics:
    """Counts nothing."""

    def rpc_started(self, rpc: str) -> None:
        """Do nothing."""

    def rpc_finished(self, rpc: str, code: Code, seconds: float) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcSettings:
    """How calls are treated. Times in seconds.

    ``timeout`` is for callers that set no deadline. Of a deadline, the last ``margin`` (at most
    a tenth of what is left) is kept for the answer. ``grace`` is how long operations may take to
    tidy up once the drain has cancelled them: longer than it takes to kill a program
    (:mod:`rds_csi.runtime.process`). ``node`` is this node's id, for the log.
    """

    timeout: float = 110.0
    margin: float = 1.0
    grace: float = 4.0
    node: str = ""

    def budget(self, remaining: float | None) -> float:
        """How long an operation may take when its caller waits ``remaining`` seconds."""
        if remaining is None:
            return self.timeout
        return remaining - min(self.margin, remaining / 10)


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of a service: where it is called, its short name, and the function that serves it."""

    path: str
    name: str
    scope: str
    serve: Callable[[Any], Awaitable[Any]]
    offered: bool


class Service:
    """What grpclib asks a service for: its methods, each with everything around it."""

    def __init__(self, mapping: dict[str, Handler]) -> None:
        self._mapping = mapping

    def __mapping__(self) -> dict[str, Handler]:
        """The handlers by path."""
        return self._mapping


class Calls:
    """Wraps services. A service is a subclass of a generated base that overrides what it offers."""

    def __init__(self, operations: Operations, settings: RpcSettings, metrics: Metrics) -> None:
        self._operations = operations
        self._settings = settings
        self._metrics = metrics

    def wrap(self, service: Any) -> Service:
        """The service with everything around it. Methods it does not offer are UNIMPLEMENTED."""
        wrapped = {}
        for path, handler in service.__mapping__().items():
            method = _method(path, handler, service)
            if method.offered and handler.cardinality is not Cardinality.UNARY_UNARY:
                raise NotImplementedError(f"{method.name}: streams are not served")
            serve = partial(self._call if method.offered else _unimplemented, method)
            wrapped[path] = Handler(
                serve, handler.cardinality, handler.request_type, handler.reply_type
            )
        return Service(wrapped)

    async def _call(self, method: Method, stream: Stream[Any, Any]) -> None:
        # This task serves this call alone: what is bound here ends with it.
        bind_contextvars(rpc=method.name, request_id=os.urandom(4).hex())
        self._metrics.rpc_started(method.name)
        started = time.monotonic()
        error: BaseException | None = None
        try:
            await self._answer(method, stream)
        except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001 - mapped
            error = failure
            raise _for_caller(method, failure) from None
        finally:
            seconds = time.monotonic() - started
            code = _code(error, stream)
            self._metrics.rpc_finished(method.name, code, seconds)
            _log_line(method, code, seconds, error)

    async def _answer(self, method: Method, stream: Stream[Any, Any]) -> None:
        request = await _receive(stream)
        logs.hide(getattr(request, "secrets", {}).values())
        bind_contextvars(**self._subject(request))
        check(request)
        mutates = MUTATES.get(method.name)
        deadline = stream.deadline
        reply = await self._operations.run(
            method.name,
            lambda: method.serve(request),
            timeout=self._settings.budget(deadline.time_remaining() if deadline else None),
            volume=mutates(request) if mutates else "",
            scope=method.scope,
        )
        await stream.send_message(reply)

    def _subject(self, request: Any) -> dict[str, str]:
        """What the call is about, for the log: unchecked texts, so cut short."""
        named = {
            "volume": getattr(request, "volume_id", "") or getattr(request, "name", ""),
            "node": getattr(request, "node_id", "") or self._settings.node,
        }
        return {key: value[:256] for key, value in named.items() if value}


def _method(path: str, handler: Handler, service: Any) -> Method:
    _, service_name, name = path.split("/")
    python_name = handler.func.__name__.removeprefix("__rpc_")
    owner = next(each for each in type(service).__mro__ if python_name in each.__dict__)
    return Method(
        path=path,
        name=name,
        scope=service_name,
        serve=getattr(service, python_name),
        offered=owner.__module__ != _GENERATED,
    )


async def _receive(stream: Stream[Any, Any]) -> Any:
    try:
        request = await stream.recv_message()
    except NotImplementedError:
        # The gRPC compression guide asks for this code.
        raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not taken") from None
    except (AssertionError, StructError):
        raise InvalidRequest("the message ends too soon") from None
    if request is None:
        raise InvalidRequest("the call came without a message")
    return request


async def _unimplemented(method: Method, _stream: Stream[Any, Any]) -> None:
    # A sidecar or kubelet that asks for it has not looked at the capabilities: worth knowing.
    log.warning("call not offered", rpc=method.name, code=Code.UNIMPLEMENTED.name)
    raise GRPCError(Status.UNIMPLEMENTED, f"{method.name} is not offered by this driver")


def _for_caller(method: Method, error: BaseException) -> BaseException:
    """What the caller is told: code and text, never details (CSI spec, "Error Scheme").

    An error nobody foresaw came at a moment nobody knows: of a call that changes something, the
    outcome is open. It is logged and counted as what it is, INTERNAL.
    """
    if isinstance(error, (asyncio.CancelledError, GRPCError)):
        return error
    if isinstance(error, ProtocolError):
        return GRPCError(Status.CANCELLED, "the caller has left")
    if not isinstance(error, DriverError):
        status = Status.UNAVAILABLE if method.name in MUTATES else Status.INTERNAL
        return GRPCError(status, _FAILED)
    text = logs.scrub(str(error)).encode()[:_LONGEST_TEXT].decode(errors="ignore")
    return GRPCError(Status(error.code.value), text)


def _code(error: BaseException | None, stream: Stream[Any, Any]) -> Code:
    if error is None:
        return Code.OK
    if isinstance(error, DriverError):
        return error.code
    if isinstance(error, GRPCError):
        return Code(error.status.value)
    if isinstance(error, ProtocolError):
        return Code.CANCELLED
    if isinstance(error, asyncio.CancelledError):
        late = stream.deadline is not None and not stream.deadline.time_remaining()
        return Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
    return Code.INTERNAL


def _log_line(method: Method, code: Code, seconds: float, error: BaseException | None) -> None:
    """One line per call. Reading calls that went well are the routine of every minute."""
    fields: dict[str, Any] = {"code": code.name, "duration_s": round(seconds, 3)}
    if error is None:
        (log.info if method.name in MUTATES else log.debug)("call", **fields)
    elif code is not Code.INTERNAL:
        log.warning("call failed", **fields, error=str(error))
    elif isinstance(error, DriverError) and not isinstance(error, Internal):
        log.error("call failed", **fields, error=str(error))
    else:
        log.error("call failed", **fields, exc_info=error)
