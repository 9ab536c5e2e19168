"""Logging: structured lines on standard error, from our code and from the libraries.

Two things never reach a line: values under a name that sounds like a secret, and, wherever they
stand, the very values that came in the ``secrets`` of the request being served (:func:`hide`).
Tracebacks are logged without local variables.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

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


@dataclass(slots=True)
class _Levels:
    """The level asked for at the start, and the one in force."""

    normal: Level = "info"
    now: Level = "info"


_levels: Final = _Levels()

_hidden: ContextVar[tuple[str, ...]] = ContextVar("hidden", default=())


def configure(
    *, level: Level = "info", style: Style = "json", stream: TextIO | None = None
) -> None:
    """Set up structlog and the standard library's logging, once per process.

    ``stream`` is standard error unless given. Loggers are not cached, so that :func:`set_level`
    reaches those which exist already.
    """
    out = stream if stream is not None else sys.stderr
    structlog.configure(
        processors=[*_shared(), redact, _renderer(style, out)],
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
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
    _levels.normal = level
    set_level(level)


def set_level(level: Level) -> None:
    """Log from ``level`` on; takes effect at once, on every logger.

    Libraries are a step quieter than we are: their "info" is what we call debugging.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(logging.INFO if number <= logging.DEBUG else logging.WARNING)
    _levels.now = level


def toggle_debug() -> None:
    """Log everything from now on; called again, as before. The driver does it at SIGUSR1.

    A driver that was started with ``debug`` goes to ``info``. Each change is logged.
    """
    normal: Level = "info" if _levels.normal == "debug" else _levels.normal
    level: Level = normal if _levels.now == "debug" else "debug"
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
            scrub(str(key)): _redacted(str(key), each, depth - 1) for key, each in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redacted("", each, depth - 1) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return scrub(value if isinstance(value, str) else _text(value))


def _text(value: object) -> str:
    return str(value) if isinstance(value, (BaseException, PurePath)) else repr(value)


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
