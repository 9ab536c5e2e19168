"""What the kernel said, and when."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KMSG: Final = Path("/dev/kmsg")


@dataclass(frozen=True, slots=True)
class Said:
    """One line; ``when`` in seconds since the machine started."""

    when: float
    text: str


class KernelLog:
    """The kernel's words since this was made."""

    def __init__(self) -> None:
        self._descriptor = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._descriptor, 0, os.SEEK_END)
        self._said: list[Said] = []

    def lines(self, word: str) -> list[Said]:
        """The lines that have the word in them, oldest first."""
        while True:
            try:
                record = os.read(self._descriptor, 8192)
            except BlockingIOError:
                return [said for said in self._said if word in said.text]
            except BrokenPipeError:
                continue  # the oldest records were overwritten; the next read has newer ones
            head, _, text = record.decode(errors="replace").partition(";")
            self._said.append(Said(int(head.split(",")[2]) / 1e6, text.partition("\n")[0]))

    def close(self) -> None:
        os.close(self._descriptor)
