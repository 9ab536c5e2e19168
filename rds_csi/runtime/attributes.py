"""Small files that the kernel makes up as they are read, as those of sysfs: many, and quickly.

What is asked for may vanish between two reads: then there is nothing, which is no error.
"""

import os
from typing import Final

_PAGE: Final = 4096
"""Bytes; no attribute of sysfs is longer."""


def children(directory: str) -> list[str]:
    """The names in the directory, in no order; none where there is no such directory."""
    try:
        return os.listdir(directory)  # noqa: PTH208 - a Path for each costs more than the read
    except OSError:
        return []


def read(file: str) -> str:
    """The file's text without its newline; empty where it cannot be read.

    Three system calls: Python's own files make a dozen, and thousands are read.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _PAGE).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def device_number(entry: str) -> tuple[int, int] | None:
    """Major and minor in the ``dev`` of a device's directory; None where there are none."""
    major, colon, minor = read(f"{entry}/dev").partition(":")
    if not colon or not (major.isdigit() and minor.isdigit()):
        return None
    return int(major), int(minor)
