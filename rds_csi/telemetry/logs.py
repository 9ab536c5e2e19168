"""Logging: structured lines on standard error, from our code and from the libraries.

Two things never reach a line: values under a name that sounds like a secret, and, wherever they
stand, the very values that came in the ``secrets`` of the request being served (:func:`hide`).
Tracebacks are logged without local variables.

A log line changes no answer: whatever goes wrong with it, in making it (a value that cannot be
shown) or in writing it (:mod:`rds_csi.telemetry.sink`), is counted (:func:`dropped`), never raised.
"""

import atexit
import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any, Final, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from rds_csi.telemetry.sink import Sink

Level = Literal["debug", "info", "warning", "error"]
Style = Literal["json", "console"]

HIDDEN: Final = "[hidden]"
_SHORTEST_SECRET: Final = 4
"""Characters. A shorter value is found by chance in texts that have nothing to do with it."""
_SECRET_NAME: Final = re.compile(
    r"secret|password|passwd|passphrase|private.?key|credential|authorization|token", re.IGNORECASE
)
_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_DEEPEST: Final = 6


_LAST_SECONDS: Final = 1.0
"""How long the end of the process waits for the last lines to be written."""


@dataclass(slots=True)
class _State:
    """The level asked for at the start and the one in force; where lines go, and lines lost."""

    normal: Level = "info"
    now: Level = "info"
    sink: Sink | None = None
    unmade: int = 0


_state: Final = _State()

_hidden: ContextVar[tuple[str, ...]] = ContextVar("hidden", default=())


def configure(
    *, level: Level = "info", style: Style = "json", stream: TextIO | None = None
) -> None:
    """Set up structlog and the standard library's logging, once per process.

    ``stream`` is standard error unless given, written to by a thread (:func:`drain`). Loggers
    are not cached, so that :func:`set_level` reaches those which exist already.
    """
    out = stream if stream is not None else _standard_error()
    structlog.configure(
        processors=[*_shared(), redact, _renderer(style, out)],
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_shared(_foreign_level)],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                _renderer(style, out),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    _state.normal = level
    set_level(level)


def _standard_error() -> TextIO:
    """Standard error behind a queue; itself where it is no descriptor, as in a test."""
    try:
        descriptor = None if sys.stderr is None else sys.stderr.fileno()
    except (OSError, ValueError):
        return sys.stderr
    if _state.sink is None:
        atexit.register(drain)
    if _state.sink is None or _state.sink.descriptor != descriptor:
        _state.sink = Sink(descriptor, notice=_tell_of_dropped)
    return cast("TextIO", _state.sink)


def _tell_of_dropped(lines: int) -> None:
    structlog.get_logger(__name__).warning("log lines were dropped", lines=lines)


def drain(seconds: float = _LAST_SECONDS) -> None:
    """Wait for the lines that are not written yet, at most so long. At the end of the process."""
    if _state.sink is not None:
        _state.sink.drain(seconds)


def dropped() -> int:
    """How many lines this process lost: not written, or not made."""
    return _state.unmade + (_state.sink.dropped if _state.sink is not None else 0)


def _unmade(what: object, tell: Callable[..., Any]) -> None:
    """Count a line that could not be made, and say so in one that can."""
    _state.unmade += 1
    with contextlib.suppress(Exception):
        tell("a log line could not be made", what=_text(what)[:200])


class _Handler(logging.StreamHandler[TextIO]):
    """The standard library's, which else prints what went wrong to standard error itself."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Count the line."""
        _unmade(record.msg, structlog.get_logger(__name__).error)


def _guarded(level: int) -> type[structlog.typing.FilteringBoundLogger]:
    """A logger from ``level`` on whose methods never raise."""
    plain = structlog.make_filtering_bound_logger(level)
    made: Callable[..., Any] = plain._proxy_to_logger  # type: ignore[attr-defined] # noqa: SLF001 - documented for such classes

    def proxy(self: Any, method: str, event: str | None = None, **fields: Any) -> Any:
        try:
            return made(self, method, event, **fields)
        except Exception:  # noqa: BLE001 - whoever logs has other worries
            _unmade(event, partial(made, self, "error"))
            return None

    return type("GuardedLogger", (plain,), {"_proxy_to_logger": proxy})


def set_level(level: Level) -> None:
    """Log from ``level`` on; takes effect at once, on every logger.

    Libraries are a step quieter than we are: their "info" is what we call debugging.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=_guarded(number))
    logging.getLogger().setLevel(logging.INFO if number <= logging.DEBUG else logging.WARNING)
    _state.now = level


def toggle_debug() -> None:
    """Log everything from now on; called again, as before. The driver does it at SIGUSR1.

    A driver that was started with ``debug`` goes to ``info``. Each change is logged.
    """
    normal: Level = "info" if _state.normal == "debug" else _state.normal
    level: Level = normal if _state.now == "debug" else "debug"
    if level == "debug":
        set_level(level)
    structlog.get_logger(__name__).info("log level changed", to=level)
    set_level(level)


def hide(values: Iterable[str]) -> None:
    """Keep these values out of every line of this context: of this task and those it starts."""
    known = {*_hidden.get(), *(value for value in values if len(value) >= _SHORTEST_SECRET)}
    # The longest first: one may be part of another.
    _hidden.set(tuple(sorted(known, key=len, reverse=True)))


def scrub(text: str) -> str:
    """``text`` without private keys and without the values hidden in this context."""
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(HIDDEN, text)
    for value in _hidden.get():
        if value in text:
            text = text.replace(value, HIDDEN)
    return text


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The structlog processor that hides secrets; the last before the renderer."""
    return {key: _redacted(key, value, _DEEPEST) for key, value in event.items()}


def _redacted(name: str, value: Any, depth: int) -> Any:
    if _SECRET_NAME.search(name) or depth == 0:
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            scrub(_text(key)): _redacted(_text(key), each, depth - 1) for key, each in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redacted("", each, depth - 1) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return scrub(_text(value))


def _text(value: object) -> str:
    try:
        shown = isinstance(value, (str, BaseException, PurePath))
        return str(value) if shown else repr(value)
    except Exception as error:  # noqa: BLE001 - anybody's code
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def _foreign_level(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["level"] = method
    return event


def _shared(
    level: Callable[..., MutableMapping[str, Any]] = structlog.processors.add_log_level,
) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]


def _renderer(style: Style, out: TextIO) -> Processor:
    if style == "json":
        # All ASCII: no byte of a name or an error text can end a line or steer a terminal.
        return structlog.processors.JSONRenderer(ensure_ascii=True)
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
