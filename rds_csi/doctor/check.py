"""What came of a check, and the list of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from rds_csi.errors import DriverError


class Status(StrEnum):
    """How a check ended. Only ``failed`` makes the doctor's exit status 1.

    ``warning``: it works, but not as it should. ``skipped``: it could not be looked at.
    """

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One result: what was looked at, what was found, and, unless all is well, what to do."""

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(slots=True)
class Checks:
    """The results so far, in their order."""

    results: list[Check] = field(default_factory=list)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.results)

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(check.status is Status.FAILED for check in self.results)

    def add(self, name: str, status: Status, found: str, advice: str = "") -> None:
        """One more result."""
        self.results.append(Check(name, status, found, advice))

    def ok(self, name: str, found: str) -> None:
        """It is as it should be."""
        self.add(name, Status.OK, found)

    def warn(self, name: str, found: str, advice: str) -> None:
        """It works, but not as it should."""
        self.add(name, Status.WARNING, found, advice)

    def fail(self, name: str, found: str, advice: str) -> None:
        """The driver does not work, or not safely, until somebody does something."""
        self.add(name, Status.FAILED, found, advice)

    def skip(self, name: str, found: str, advice: str = "") -> None:
        """It could not be looked at."""
        self.add(name, Status.SKIPPED, found, advice)

    @contextmanager
    def failing(self, name: str, advice: str) -> Iterator[None]:
        """A :class:`DriverError` inside is a failed check; ``advice`` unless it has its own."""
        try:
            yield
        except DriverError as error:
            self.fail(name, error.what, error.advice or advice)
