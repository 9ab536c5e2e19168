"""What an RDS remembers: its pools and disks, kept in ``state.json`` under the root folder."""

import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rds_csi.simulator.language.values import RuntimeFault, Value

_STATE: Final = "state.json"
_FORMAT: Final = 1


@dataclass(slots=True)
class Pool:
    """A mounted file system that holds files: a RAID array with XFS unless told otherwise."""

    id: int
    slot: str
    size: int
    """Bytes."""
    fs: str = "xfs"
    mount_point: str = ""
    comment: str = ""
    mounted: bool = True
    filled: int = 0
    """Bytes a fault says are taken by something else."""


@dataclass(slots=True)
class Disk:
    """An entry of ``/disk`` that is no pool; strings are byte strings (see ``values.py``)."""

    id: int
    type: str
    slot: str
    size: int
    properties: dict[str, Value] = field(default_factory=dict)
    """What was set, by property name; the rest has its default."""
    visible_from: float = 0.0
    """The loop time from which listings show it."""
    fs: str = ""
    """The file system that was recognised in it last."""


class Store:
    """The disks and pools by id and by slot, and their file. Every change is ``save``d."""

    def __init__(self, root: Path) -> None:
        self._path = root / _STATE
        self.pools: dict[int, Pool] = {}
        self.disks: dict[int, Disk] = {}
        self.by_slot: dict[str, Disk | Pool] = {}
        self.serial = uuid.uuid4().hex
        self.identity = "rds-simulator"
        self.boots = 0
        self.items: dict[str, list[dict[str, Any]]] = {}
        """The items of the menus that only store and show them, by menu; ``kept`` in the file."""
        self.punched: dict[str, int] = {}
        """Bytes that hosts discarded, by the name of the file."""
        self._next_id = 1
        self.dirty = False
        self._load()

    def _load(self) -> None:
        try:
            state = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        if state.get("format") != _FORMAT:
            raise ValueError(f"{self._path} was written by another version of the simulator")
        self.serial, self.identity = state["serial"], state["identity"]
        self.boots, self._next_id = state["boots"], state["next_id"]
        self.items = state.get("kept", {})
        self.punched = state.get("punched", {})
        for pool in state["pools"]:
            self._put(Pool(**pool))
        for disk in state["disks"]:
            self._put(Disk(**disk))

    def save(self) -> None:
        """Write the state if it changed, atomically: a kill leaves the old file or the new."""
        if not self.dirty:
            return
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(self._state(), separators=(",", ":")))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self.dirty = False

    def _state(self) -> dict[str, Any]:
        disks = [
            {
                "id": disk.id,
                "type": disk.type,
                "slot": disk.slot,
                "size": disk.size,
                "properties": disk.properties,
            }
            for disk in self.disks.values()
        ]
        return {
            "format": _FORMAT,
            "serial": self.serial,
            "identity": self.identity,
            "boots": self.boots,
            "next_id": self._next_id,
            "kept": self.items,
            "punched": self.punched,
            "pools": [asdict(pool) for pool in self.pools.values()],
            "disks": disks,
        }

    def _put(self, entry: Disk | Pool) -> None:
        if isinstance(entry, Pool):
            self.pools[entry.id] = entry
        else:
            self.disks[entry.id] = entry
        self.by_slot[entry.slot] = entry

    def new_id(self) -> int:
        """A fresh item id; ids are never used again."""
        self._next_id += 1
        self.dirty = True
        return self._next_id - 1

    def add_pool(self, slot: str, size: int, *, fs: str = "xfs", mount_point: str = "") -> Pool:
        """A pool of that name; one that is known already keeps its id and takes the new size."""
        known = self.by_slot.get(slot)
        if isinstance(known, Pool):
            known.size = size
            self.dirty = True
            return known
        if known:
            raise ValueError(f"slot {slot} is a disk already")
        pool = Pool(self.new_id(), slot, size, fs=fs, mount_point=mount_point or slot)
        self._put(pool)
        return pool

    def add_disk(self, disk: Disk) -> None:
        """Enter a new disk."""
        self._put(disk)
        self.dirty = True

    def rename(self, entry: Disk | Pool, slot: str) -> None:
        """Give an entry another slot name."""
        if slot != entry.slot and slot in self.by_slot:
            raise RuntimeFault("failure: item with such name already exists")
        del self.by_slot[entry.slot]
        entry.slot = slot
        self.by_slot[slot] = entry
        self.dirty = True

    def remove_disk(self, disk: Disk) -> None:
        """Forget a disk; its file stays."""
        del self.disks[disk.id]
        del self.by_slot[disk.slot]
        self.dirty = True

    def forget_holes(self, name: str) -> None:
        """A file is gone, or a folder with all that was in it."""
        for each in [each for each in self.punched if f"{each}/".startswith(f"{name}/")]:
            del self.punched[each]
            self.dirty = True

    def move_holes(self, old: str, new: str) -> None:
        """A file, or a folder with what is in it, has another name."""
        for each in [each for each in self.punched if f"{each}/".startswith(f"{old}/")]:
            self.punched[new + each[len(old) :]] = self.punched.pop(each)
            self.dirty = True

    def pool_of(self, name: str) -> Pool | None:
        """The pool a file name (no leading slash) lies on, mounted or not."""
        first = name.partition("/")[0]
        for pool in self.pools.values():
            if pool.mount_point == first:
                return pool
        return None
