"""Long-lived tasks: kept running, and ended together.

Every background service of the driver runs under :func:`supervise` in one TaskGroup. A crash
of one is logged and repaired by starting it again; it never takes the RPCs down with it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from rds_csi.runtime.retry import DelaySequence, RetryPolicy, delays

log = structlog.get_logger(__name__)

_LONGEST_WAIT: Final = 60.0
_HEALTHY_AFTER: Final = 120.0
"""Seconds after which a service that crashes again is treated as if for the first time."""


async def supervise(
    name: str,
    service: Callable[[], Awaitable[None]],
    *,
    waits: DelaySequence | None = None,
    on_crash: Callable[[str], None] = lambda _name: None,
) -> None:
    """Run ``service`` until it returns or is cancelled; after a crash, run it again.

    The waits between the runs grow from one second to a minute, with jitter. ``on_crash`` is
    told the name at each crash: a metric.
    """
    waits = waits or delays(RetryPolicy(), limit=_LONGEST_WAIT)
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await service()
        except Exception:
            if loop.time() - started >= _HEALTHY_AFTER:
                waits.reset()
            wait = waits.next()
            on_crash(name)
            log.exception("background service crashed", service=name, restart_in_s=round(wait, 2))
            await asyncio.sleep(wait)
        else:
            log.debug("background service ended", service=name)
            return
