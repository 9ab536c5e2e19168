"""Our volumes in the order of their ids, a page at a time.

The token is the last id of the page before. So a listing survives a restart, and no volume is
passed over because another was deleted meanwhile.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from rds_csi.errors import BadToken, InvalidRequest
from rds_csi.model.volume import is_volume_id
from rds_csi.routeros import Disk, Disks
from rds_csi.runtime.clock import Clock

_AGE: Final = 60.0
"""Seconds for which the later pages of a listing come from its first page's answer."""


class Listing:
    """Pages of at most ``page`` volumes, over a ``Disks`` backend."""

    def __init__(self, disks: Disks, clock: Clock, page: int) -> None:
        self._disks = disks
        self._clock = clock
        self._page = page
        self._since = float("-inf")
        self._answer: list[Disk] = []
        self._one = asyncio.Lock()
        self._begun = 0
        self._answered = 0

    async def page(
        self,
        token: str,
        max_entries: int,
        *,
        only: Callable[[Disk], bool] = lambda _disk: True,
    ) -> tuple[list[Disk], str]:
        """The volumes behind ``token`` for which ``only`` is true, and the next token.

        Raises :class:`BadToken` for one that is not ours, :class:`InvalidRequest`.
        """
        if max_entries < 0:
            raise InvalidRequest("max_entries is negative")
        if token and not is_volume_id(token):
            raise BadToken(
                f"starting_token {token[:64]!r} is not one of ours", advice="list from the start"
            )
        size = min(max_entries or self._page, self._page)
        listed = await self._listed(first=not token)
        rest = [disk for disk in listed if disk.slot > token and only(disk)]
        return rest[:size], rest[size - 1].slot if len(rest) > size else ""

    async def _listed(self, *, first: bool) -> list[Disk]:
        if first or self._clock.monotonic() - self._since > _AGE:
            await self._ask()
        return self._answer

    async def _ask(self) -> None:
        """Ask the RDS, or share the answer of a question that was begun after this call.

        One that was under way already is no answer: it may lack what its caller has just made.
        """
        before = self._begun
        async with self._one:
            if self._answered > before:
                return
            self._begun += 1
            answer = sorted(await self._disks.list(), key=lambda disk: disk.slot)
            self._answer, self._answered = answer, self._begun
            self._since = self._clock.monotonic()
