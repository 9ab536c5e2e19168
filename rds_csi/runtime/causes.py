"""Why work that was stopped had not ended: noted by who knows, read by who tells the caller.

A deadline ends work with a cancellation, and a cancellation has no text: the caller would learn
that the time is up and not that the RDS refused four connections before. So whoever is cancelled
while something keeps failing, or does not come, says so here. The innermost comes first.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from rds_csi.errors import DriverError


@dataclass(slots=True)
class Causes:
    """What was noted: texts, and the advice of the first that had one."""

    texts: list[str] = field(default_factory=list)
    advice: str = ""


_causes: Final[ContextVar[Causes | None]] = ContextVar("causes", default=None)


def collect() -> Causes:
    """What is noted in this context from now on: in this task and in those it starts."""
    causes = Causes()
    _causes.set(causes)
    return causes


def note(text: str, *, advice: str = "") -> None:
    """Say what the work was waiting for when it was cancelled. Where nobody collects: nothing."""
    causes = _causes.get()
    if causes is not None and text not in causes.texts:
        causes.texts.append(text)
        causes.advice = causes.advice or advice


def note_failure(error: BaseException) -> None:
    """Say what the attempt before had failed with."""
    said = error if isinstance(error, DriverError) else None
    note(
        f"the last attempt failed: {said.what if said else error}",
        advice=said.advice if said else "",
    )


@contextmanager
def noting(text: str) -> Iterator[None]:
    """:func:`note`, if the block is cancelled."""
    try:
        yield
    except asyncio.CancelledError:
        note(text)
        raise
