"""Keeping an eye on what has to be asked for, so that a scrape does not have to ask."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from rds_csi.errors import DriverError

log = structlog.get_logger(__name__)


async def refreshing(what: str, look: Callable[[], Awaitable[None]], *, interval: float) -> None:
    """Await ``look()`` now and ``interval`` seconds after each end of it; never returns.

    What could not be seen is said once, until it is seen again. A look that hangs keeps the next
    one waiting: two would hang as well, and the age of what was seen last tells of it.
    """
    failing = False
    while True:
        try:
            await look()
        except DriverError as error:
            (log.debug if failing else log.warning)("cannot look", at=what, error=str(error))
            failing = True
        else:
            failing = False
        await asyncio.sleep(interval)
