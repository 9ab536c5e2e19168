"""Whether this machine's clock is kept right by somebody, as the kernel has been told."""

import ctypes
import os
from dataclasses import dataclass
from typing import Final

_TIME_ERROR: Final = 5
"""``adjtimex(2)``: the clock is not synchronised."""


class _Timex(ctypes.Structure):
    """``struct timex`` of ``<sys/timex.h>``, and more room than what follows in it needs."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("rest", ctypes.c_long * 32),
    )


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the kernel knows of its clock; the largest error it may have, in seconds."""

    synchronised: bool
    maximum_error: float


def clock_state() -> ClockState:
    """Ask the kernel, changing nothing; OSError where it does not tell."""
    timex = _Timex(modes=0)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ClockState(state != _TIME_ERROR, timex.maxerror / 1e6)
