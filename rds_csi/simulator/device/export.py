"""Exports: what of the disks can be reached over NVMe/TCP.

Proven in ``tests/simulator/device/test_device.py``, ``tests/simulator/device/test_nvmet.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Export:
    """One disk as an NVMe subsystem with namespace 1."""

    disk: int
    """The disk's item id, which names the export towards the exporter."""
    nqn: str
    path: Path
    port: int
    """TCP port."""
    hosts: tuple[str, ...] = ()
    """Host NQNs that may connect; empty means any."""
    seed: str = ""
    """What serial and UUID are derived from; empty gives new ones each time."""


class Exporter(Protocol):
    """Makes exports real."""

    exports: dict[int, Export]
    """What is exported now, by item id."""

    async def start(self, boot: int) -> None:
        """Come up for the ``boot``-th time."""

    async def stop(self) -> None:
        """End all exports."""

    async def export(self, export: Export) -> None:
        """Export a disk, or change how it is exported. Raises RuntimeFault when refused."""

    async def unexport(self, disk: int) -> None:
        """End an export; nothing happens when there is none."""

    async def resized(self, disk: int) -> None:
        """The file of an export has another size."""

    async def cut(self, disk: int | None) -> None:
        """Make an export (or all) unreachable, as a broken network would."""

    async def restore(self, disk: int | None) -> None:
        """Undo ``cut``."""


class Bookkeeper:
    """Exports on paper only, for machines whose kernel has no NVMe target."""

    def __init__(self) -> None:
        self.exports: dict[int, Export] = {}
        self.cut_off: set[int] = set()

    async def start(self, boot: int) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Forget the exports."""
        self.exports.clear()
        self.cut_off.clear()

    async def export(self, export: Export) -> None:
        """Note the export."""
        self.exports[export.disk] = export

    async def unexport(self, disk: int) -> None:
        """Forget the export."""
        self.exports.pop(disk, None)
        self.cut_off.discard(disk)

    async def resized(self, disk: int) -> None:
        """Nothing to do."""

    async def cut(self, disk: int | None) -> None:
        """Note it."""
        self.cut_off |= set(self.exports) if disk is None else {disk}

    async def restore(self, disk: int | None) -> None:
        """Note it."""
        self.cut_off -= set(self.exports) if disk is None else {disk}
