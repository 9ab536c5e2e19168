"""Counts what the driver opens and lists below a directory: the work of a look, not its time."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_watched: list[tuple[str, Counter[str]]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watched or event not in ("open", "os.listdir", "os.scandir"):
        return
    path = arguments[0]
    if isinstance(path, (str, bytes, Path)):
        for root, counts in _watched:
            if os.fsdecode(path).startswith(root):
                counts[os.fsdecode(path).removeprefix(root).lstrip("/")] += 1


@contextmanager
def counted(root: Path) -> Iterator[Counter[str]]:
    """How often each file or directory below ``root`` was opened or listed in the block."""
    if not _installed:
        sys.addaudithook(_audit)  # it cannot be taken away again
        _installed.append(True)
    watched = (str(root), Counter[str]())
    _watched.append(watched)
    try:
        yield watched[1]
    finally:
        _watched.remove(watched)


_installed: list[bool] = []
