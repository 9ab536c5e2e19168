"""The kernel's device mapper and ``dmsetup``, over a fake ``/sys`` and ``/dev``.

It knows multipath tables alone, and of ``dmsetup`` what is asked here; anything else fails the
test. As in the kernel (seen on Linux 6.1 and 6.12): two maps share no name and no UUID, but may
well share a device; a map without a table is not in sysfs; a loaded table waits until ``resume``; a
device is held by every table that is loaded; a map in use is not removed; a device that was given
up stays a path by number, which nobody else gets meanwhile.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rds_csi.model.block_device import DeviceNumber
from rds_csi.runtime.process import Result

OK = Result(0, "", "")
BUSY = "Device or resource busy"
MISSING = "No such device or address"
_MAJOR = 253
_TABLE = re.compile(
    r"0 (?P<sectors>[0-9]+) multipath [0-9] (?P<queue>queue_if_no_path )?queue_mode bio 0 "
    r"(?:0 0|1 1 round-robin 0 (?P<count>[0-9]+) 1(?P<paths>( [0-9]+:[0-9]+ 1)+))"
)


@dataclass(slots=True)
class FakeTable:
    """A table that is loaded or in use.

    ``lost``: which of its paths the kernel gave up; ``failed``: those that are there, and failed.
    ``idle``: no I/O has gone to a path since, so that the status still calls each active.
    """

    sectors: int
    paths: list[DeviceNumber]
    queues: bool
    lost: set[DeviceNumber] = field(default_factory=set)
    read_only: bool = False
    failed: set[DeviceNumber] = field(default_factory=set)
    idle: bool = False

    @classmethod
    def parse(cls, text: str, *, read_only: bool = False) -> "FakeTable":
        match = _TABLE.fullmatch(text)
        assert match is not None, f"the kernel takes no such table: {text}"
        words = (match["paths"] or "").split()[::2]
        paths = [(int(major), int(minor)) for major, minor in (each.split(":") for each in words)]
        assert len(paths) == int(match["count"] or 0), text
        waits = match["queue"] is not None
        return cls(int(match["sectors"]), paths, waits, read_only=read_only)

    def shown(self) -> str:
        """As ``dmsetup table`` prints it: with a feature that nobody asked for."""
        features = [*(["queue_if_no_path"] if self.queues else []), "retain_attached_hw_handler"]
        words = (
            f"0 {self.sectors} multipath {len(features) + 2} {' '.join(features)} queue_mode bio"
        )
        if not self.paths:
            return f"{words} 0 0 0 \n"
        paths = "".join(f"{major}:{minor} 1 " for major, minor in self.paths)
        return f"{words} 0 1 1 round-robin 0 {len(self.paths)} 1 {paths}\n"

    def status(self) -> str:
        """As ``dmsetup status`` prints it."""
        if not self.paths:
            return f"0 {self.sectors} multipath 2 0 0 0 0 0 \n"
        dead = set() if self.idle else self.lost | self.failed
        states = {path: "F 1" if path in dead else "A 0" for path in self.paths}
        paths = "".join(f"{path[0]}:{path[1]} {state} " for path, state in states.items())
        return f"0 {self.sectors} multipath 2 0 0 0 1 1 A 0 {len(self.paths)} 0 {paths}\n"


@dataclass(slots=True)
class FakeMap:
    """One map of the kernel."""

    minor: int
    name: str
    uuid: str
    active: FakeTable | None = None
    loaded: FakeTable | None = None

    @property
    def node(self) -> str:
        """The name of its device."""
        return f"dm-{self.minor}"

    @property
    def devno(self) -> DeviceNumber:
        """Its number."""
        return _MAJOR, self.minor

    @property
    def size(self) -> int:
        """Bytes."""
        return self.active.sectors * 512 if self.active is not None else 0

    def paths(self) -> dict[DeviceNumber, bool]:
        """Every device that it holds, and whether it is still there."""
        tables = [table for table in (self.active, self.loaded) if table is not None]
        return {path: path not in table.lost for table in tables for path in table.paths}


class FakeDeviceMapper:
    """``used`` tells whether something (a mount, a descriptor) has a number open."""

    def __init__(
        self, sys: Path, dev: Path, *, used: Callable[[DeviceNumber], bool] = lambda _devno: False
    ) -> None:
        self.maps: dict[int, FakeMap] = {}
        self.targets = "multipath        v1.14.0\nstriped          v1.6.0\n"
        self.held: set[DeviceNumber] = set()
        """Devices that somebody else has for himself."""
        self.open: set[DeviceNumber] = set()
        """Maps that a program has open."""
        self._sys = sys
        self._dev = dev
        self._used = used

    def run(self, words: Sequence[str]) -> Result:
        """``dmsetup`` with these arguments."""
        match words:
            case ["dmsetup", "create", "--noudevsync", name, "--uuid", uuid, "--table", table]:
                return self._create(name, uuid, FakeTable.parse(table))
            case ["dmsetup", "targets"]:
                return Result(0, self.targets, "")
            case ["dmsetup", "status", "--target", "multipath"]:
                return Result(0, self._all() or "No devices found\n", "")
            case ["dmsetup", command, "--uuid", uuid, *options]:
                return self._with(uuid, lambda each: self._act(each, command, options))
        raise AssertionError(f"unexpected: {' '.join(words)}")

    def _all(self) -> str:
        return "".join(
            f"{each.name}: {each.active.status()}"
            for each in self.maps.values()
            if each.active is not None
        )

    def _act(self, found: FakeMap, command: str, options: list[str]) -> Result:
        acts: dict[str, Callable[[], Result]] = {
            "load --table": lambda: self._load(found, FakeTable.parse(options[-1])),
            "load --readonly --table": lambda: self._load(
                found, FakeTable.parse(options[-1], read_only=True)
            ),
            "resume --noflush --nolockfs --noudevsync": lambda: self._resume(found),
            "remove --noudevsync --retry": lambda: self._remove(found),
            "remove --noudevsync": lambda: self._remove(found),
            "message 0 queue_if_no_path": lambda: self._queue(found, True),
            "message 0 fail_if_no_path": lambda: self._queue(found, False),
            "table": lambda: _told(found, FakeTable.shown),
            "status": lambda: _told(found, FakeTable.status),
        }
        kept = options[:-1] if command == "load" else options
        act = acts.get(" ".join([command, *kept]))
        assert act is not None, f"unexpected: dmsetup {command} {options}"
        return act()

    def by_uuid(self, uuid: str) -> FakeMap | None:
        """The map of that UUID."""
        return next((each for each in self.maps.values() if each.uuid == uuid), None)

    def knows(self, name: str, uuid: str) -> bool:
        """Whether a map has that name or that UUID."""
        return any(name == each.name or uuid == each.uuid for each in self.maps.values())

    def by_node(self, name: str) -> FakeMap | None:
        """The map whose device has that name."""
        return next((each for each in self.maps.values() if each.node == name), None)

    def holds(self, devno: DeviceNumber) -> bool:
        """Whether a map holds the device, so that nobody else gets its number."""
        return any(devno in each.paths() for each in self.maps.values())

    def lose(self, devno: DeviceNumber) -> None:
        """The kernel gives a device up."""
        for each in self.maps.values():
            for table in (each.active, each.loaded):
                if table is not None and devno in table.paths:
                    table.lost.add(devno)
            self._show(each)

    def drop(self, found: FakeMap) -> None:
        """It is gone, whoever removed it."""
        self._hide(found)
        del self.maps[found.minor]

    def add(self, name: str, uuid: str, table: FakeTable | None = None) -> FakeMap:
        """A map that is there, whoever made it."""
        minor = next(number for number in range(1000) if number not in self.maps)
        found = self.maps[minor] = FakeMap(minor, name, uuid, table)
        self._show(found)
        return found

    def _create(self, name: str, uuid: str, table: FakeTable) -> Result:
        if self.knows(name, uuid):
            return _failed(BUSY)
        if not self.targets.startswith("multipath"):
            return _failed("Invalid argument")
        if wrong := self._refusal(table):
            return wrong
        self.add(name, uuid, table)
        return OK

    def _refusal(self, table: FakeTable) -> Result | None:
        for path in table.paths:
            if not self._block(path).exists():
                return _failed(MISSING)
            if path in self.held or self._used(path):
                return _failed(BUSY)
        return None

    def _load(self, found: FakeMap, table: FakeTable) -> Result:
        if wrong := self._refusal(table):
            return wrong
        found.loaded = table
        return OK

    def _resume(self, found: FakeMap) -> Result:
        if found.loaded is not None:
            found.active, found.loaded = found.loaded, None
            # Whatever was set before (drivers/md/dm-ioctl.c, do_resume).
            mode = self._sys / "block" / found.node / "ro"
            mode.write_text(f"{int(found.active.read_only)}\n")
        return OK

    def _remove(self, found: FakeMap) -> Result:
        if found.devno in self.open or self._used(found.devno):
            return _failed(BUSY)
        self.drop(found)
        return OK

    @staticmethod
    def _queue(found: FakeMap, queues: bool) -> Result:
        assert found.active is not None
        found.active.queues = queues
        return OK

    def _with(self, uuid: str, act: Callable[[FakeMap], Result]) -> Result:
        found = self.by_uuid(uuid)
        if found is None:
            return _failed(MISSING)
        result = act(found)
        if found.minor in self.maps:
            self._show(found)
        return result

    def _block(self, devno: DeviceNumber) -> Path:
        return self._sys / "dev" / "block" / f"{devno[0]}:{devno[1]}"

    def _show(self, found: FakeMap) -> None:
        """Write what sysfs and ``/dev`` show of it: nothing before it has a table."""
        if found.active is None and found.loaded is None:
            return
        entry = self._sys / "block" / found.node
        for name in ("dm", "slaves"):
            (entry / name).mkdir(parents=True, exist_ok=True)
        sectors = found.active.sectors if found.active is not None else 0
        attributes = {
            "dm/uuid": found.uuid,
            "dm/name": found.name,
            "dm/suspended": "0",
            "dev": f"{_MAJOR}:{found.minor}",
            "size": str(sectors),
        }
        for name, value in attributes.items():
            (entry / name).write_text(f"{value}\n")
        if not (entry / "ro").exists():
            (entry / "ro").write_text("0\n")
        self._link(found, entry)
        (self._dev / found.node).touch()
        if not self._block(found.devno).is_symlink():
            self._block(found.devno).symlink_to(entry)

    def _link(self, found: FakeMap, entry: Path) -> None:
        """Its slaves, and it among their holders. A link to what is gone leads nowhere."""
        shutil.rmtree(entry / "slaves")
        (entry / "slaves").mkdir()
        self._unhold(found)
        for path, there in found.paths().items():
            if not (there and self._block(path).exists()):
                (entry / "slaves" / f"gone-{path[1]}").symlink_to(self._sys / "gone")
                continue
            block = self._block(path).resolve()
            (entry / "slaves" / block.name).symlink_to(block)
            (block / "holders").mkdir(exist_ok=True)
            (block / "holders" / found.node).symlink_to(entry)

    def _unhold(self, found: FakeMap) -> None:
        for holder in (self._sys / "dev" / "block").glob(f"*/holders/{found.node}"):
            holder.unlink()

    def _hide(self, found: FakeMap) -> None:
        if found.active is None and found.loaded is None:
            return
        self._unhold(found)
        shutil.rmtree(self._sys / "block" / found.node)
        self._block(found.devno).unlink()
        (self._dev / found.node).unlink()


def _told(found: FakeMap, how: Callable[[FakeTable], str]) -> Result:
    return Result(0, how(found.active) if found.active is not None else "", "")


def _failed(why: str) -> Result:
    return Result(1, "", f"device-mapper: ioctl on map failed: {why}\nCommand failed.\n")
