"""Exports: what of the disks can be reached over NVMe/TCP.

Proven in ``tests/simulator/device/test_device.py``, ``tests/simulator/device/test_nvmet.py``.
"""

import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol


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
    seed: str = field(default="", compare=False)
    """What serial and UUID are derived from; empty gives new ones each time."""


_BLOCK: Final = 512


@dataclass(frozen=True, slots=True)
class Namespace:
    """What hosts are told of an export, from its beginning to its end."""

    size: int
    """Bytes."""
    uuid: str
    serial: str


def namespace(export: Export) -> Namespace:
    """The namespace of an export that begins now: the size its file has at this moment."""
    identity = uuid.uuid4()
    if export.seed:
        identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{export.seed}/{export.disk}")
    size = export.path.stat().st_size // _BLOCK * _BLOCK
    return Namespace(size, str(identity), identity.hex[:20])


def same_but_hosts(old: Export, new: Export) -> bool:
    """Whether an export only gets another list of hosts, so that it goes on."""
    return (old.nqn, old.path, old.port) == (new.nqn, new.path, new.port)


class Exporter(Protocol):
    """Makes exports real."""

    exports: dict[int, Export]
    """What is exported now, by item id."""
    namespaces: dict[int, Namespace]
    """What hosts are told of it."""

    async def start(self, boot: int) -> None:
        """Come up for the ``boot``-th time."""

    async def stop(self) -> None:
        """End all exports."""

    async def export(self, export: Export) -> None:
        """Export a disk, or change how it is exported. Raises RuntimeFault when refused."""

    async def unexport(self, disk: int) -> None:
        """End an export; nothing happens when there is none."""

    async def announce(self, disk: int) -> None:
        """Tell the hosts of an export the size that its file has now."""

    async def sever(self, disk: int) -> None:
        """End the connections of an export; hosts that are allowed may come back at once."""

    def discarded(self, disk: int) -> int:
        """Bytes that hosts discarded since this was asked last."""

    async def cut(self, disk: int | None) -> None:
        """Make an export (or all) unreachable, as a broken network would."""

    async def restore(self, disk: int | None) -> None:
        """Undo ``cut``."""


class Bookkeeper:
    """Exports on paper only, for machines whose kernel has no NVMe target."""

    def __init__(self) -> None:
        self.exports: dict[int, Export] = {}
        self.namespaces: dict[int, Namespace] = {}
        self.cut_off: set[int] = set()

    async def start(self, boot: int) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Forget the exports."""
        self.exports.clear()
        self.namespaces.clear()
        self.cut_off.clear()

    async def export(self, export: Export) -> None:
        """Note the export."""
        old = self.exports.get(export.disk)
        if old is None or not same_but_hosts(old, export):
            self.namespaces[export.disk] = namespace(export)
        self.exports[export.disk] = export

    async def unexport(self, disk: int) -> None:
        """Forget the export."""
        self.exports.pop(disk, None)
        self.namespaces.pop(disk, None)
        self.cut_off.discard(disk)

    async def announce(self, disk: int) -> None:
        """Note it."""
        if disk in self.exports:
            size = namespace(self.exports[disk]).size
            self.namespaces[disk] = replace(self.namespaces[disk], size=size)

    async def sever(self, disk: int) -> None:
        """Nothing to do."""

    def discarded(self, disk: int) -> int:  # noqa: ARG002 - nobody is connected
        """Nothing."""
        return 0

    async def cut(self, disk: int | None) -> None:
        """Note it."""
        self.cut_off |= set(self.exports) if disk is None else {disk}

    async def restore(self, disk: int | None) -> None:
        """Note it."""
        self.cut_off -= set(self.exports) if disk is None else {disk}
