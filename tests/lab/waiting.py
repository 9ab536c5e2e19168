"""Waiting for states, and calling again as Kubernetes does."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from grpclib.exceptions import GRPCError

REPEATS: Final = 10
"""Calls after which an operation must have converged."""


async def until(check: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Return once ``check`` is true; fail the test, saying ``what``, if that takes too long.

    The kernel and other processes set no events, so this looks again and again.
    """
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(0.02)


async def converge(call: Callable[[], Awaitable[None]], step: str) -> None:
    """Repeat the call until it succeeds; fail the test if it never does."""
    errors = []
    for _ in range(REPEATS):
        try:
            await call()
        except GRPCError as error:
            errors.append(f"{error.status.name}: {error.message}")
            await asyncio.sleep(0.5)
        else:
            return
    pytest.fail(f"after a kill at {step!r} it does not converge: {errors}")
