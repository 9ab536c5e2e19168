"""Stages that have not succeeded yet, for health: the kubelet asks for such volumes, too.

Kept in memory alone. A driver that starts anew knows of none until the kubelet repeats its call,
which it does every few minutes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rds_csi.errors import DriverError

MOST: Final = 500
"""Volumes; the oldest is forgotten first: one that failed here and was moved is never unstaged."""


class Attempts:
    """What became of the last attempt to stage each volume, unless it succeeded."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    @contextmanager
    def staging(self, volume: str) -> Iterator[None]:
        """One attempt; what it fails with is kept until one succeeds."""
        self._keep(volume, self._told.get(volume) or "its stage is under way")
        try:
            yield
        except DriverError as error:
            self._keep(volume, f"its stage failed: {error.what}")
            raise
        except BaseException:
            self._keep(volume, "its stage was broken off")
            raise
        self.forget(volume)

    def forget(self, volume: str) -> None:
        """It is staged, or nobody wants it here any more."""
        self._told.pop(volume, None)

    def of(self, volume: str) -> str:
        """What is to be said of a volume that is not staged; empty where nobody tried."""
        return self._told.get(volume, "")

    def _keep(self, volume: str, text: str) -> None:
        self._told.pop(volume, None)
        self._told[volume] = text
        while len(self._told) > MOST:
            del self._told[next(iter(self._told))]
