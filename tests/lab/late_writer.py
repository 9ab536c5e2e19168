"""A program that has a volume open, and overwrites a part of it when it is told to."""

import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from rds_csi.demo.kubelet import Claim
from tests.lab.waiting import until
from tests.lab.world import MIB, SIZE

EARLY: Final = b"written by whom it belongs. "
LATE: Final = b"written when it was too late. "
_WRITE: Final = f"""
import os, sys
size, where = {MIB}, int(sys.argv[2])
def block(words):
    return (words * (size // len(words) + 1))[:size]
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.pwrite(file, block({EARLY!r}), where)
os.fsync(file)
print("ready", flush=True)
sys.stdin.readline()
os.pwrite(file, block({LATE!r}), where)
if sys.argv[3] == "flush":
    os.fsync(file)
"""
"""Overwrites blocks that are allocated already, so that they go to where the first ones are."""


class LateWriter:
    """Writes and flushes ``EARLY`` at once, ``LATE`` once told to.

    With ``flush`` the program ends only when what is late has arrived, or failed; without, of a
    file it leaves it in the page cache.
    """

    def __init__(self, claim: Claim, *, flush: bool = True) -> None:
        raw = claim.access == "block"
        # Of a raw device a place that no other writer of these tests uses.
        place, offset = (claim.target, SIZE - 2 * MIB) if raw else (claim.target / "late", 0)
        how = "flush" if flush else "leave"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WRITE, str(place), str(offset), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def write(self) -> None:
        """Have it write what is late."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    async def end(self) -> int:
        """Its exit status, once it has ended."""
        await until(lambda: self.ended, "the late writer ends")
        self._process.communicate()  # closes its pipes
        return self._process.returncode


def holds(path: Path, words: bytes) -> bool:
    """Whether the words are anywhere in a file; its holes are not read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        end = 0
        while True:
            try:
                begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return False
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            if content.find(words, begin, end) >= 0:
                return True
