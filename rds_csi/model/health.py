"""What can be wrong with a volume or with the storage behind it, in words for an operator.

CSI 1.13 reports health as a list of problems, empty for healthy. A reason is a CamelCase word
that stays the same as long as the condition does; no two problems of one volume share it.
"""

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """CSI ``VolumeHealthErrorType``, same numbers."""

    DEGRADED = 1
    INACCESSIBLE = 2
    DATA_LOSS = 3


class StorageSeverity(IntEnum):
    """CSI ``StorageHealthErrorType``, same numbers."""

    DEGRADED = 1
    UNREACHABLE = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a volume: how bad, which, and what to do about it."""

    severity: Severity
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class StorageProblem:
    """One thing that is wrong between this node and the storage."""

    severity: StorageSeverity
    reason: str
    message: str


def summary(problems: list[Problem]) -> str:
    """All of it in one line, worst first; empty when nothing is wrong."""
    ordered = sorted(problems, key=lambda each: -each.severity)
    return "; ".join(f"{each.reason}: {each.message}" for each in ordered)
