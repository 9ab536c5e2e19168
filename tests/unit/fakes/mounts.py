"""A mount table that behaves as the kernel's, and ``mount`` and ``umount`` that change it.

The table is written to a file in the form of ``/proc/self/mountinfo``, so what reads it is the
real parser. Directories are real ones: a file in a directory is still there when nothing is
mounted over it. Only what ``mount(8)`` does with the arguments we give is known; anything else
fails the test.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rds_csi.runtime.process import Result

DeviceNumber = tuple[int, int]
OK = Result(0, "", "")
PER_MOUNT = frozenset({"nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime"})
DEVTMPFS: DeviceNumber = (0, 6)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a device holds, as far as mounting it goes."""

    devno: DeviceNumber
    type: str
    mountable: bool = True


@dataclass(slots=True, eq=False)
class Entry:
    """One mount."""

    devno: DeviceNumber
    root: str
    point: str
    options: tuple[str, ...]
    type: str
    source: str
    super: dict[str, str] = field(default_factory=dict)
    """Shared by all mounts of the file system."""

    def line(self, number: int) -> str:
        flags = ",".join(self.options)
        return (
            f"{number} 1 {self.devno[0]}:{self.devno[1]} {escape(self.root)} "
            f"{escape(self.point)} {flags} shared:{number} master:1 - {self.type} "
            f"{escape(self.source)} {self.super.get('mode', 'rw')},seclabel\n"
        )


def escape(text: str) -> str:
    """As the kernel writes a path."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in text)


class FakeMountTable:
    """The table. ``file_system`` answers what is on a device node, None for no such device."""

    def __init__(
        self,
        path: Path,
        *,
        dev: Path,
        file_system: Callable[[str], FileSystem | None] = lambda _device: None,
    ) -> None:
        self.path = path
        self.entries = [
            Entry((8, 1), "/", "/", ("rw", "relatime"), "ext4", "/dev/sda1"),
            Entry(DEVTMPFS, "/", str(dev), ("rw", "nosuid"), "devtmpfs", "devtmpfs"),
        ]
        self.busy: set[str] = set()
        """Points at which files are open."""
        self._dev = dev
        self._file_system = file_system
        self._write()

    def points(self) -> list[str]:
        """Where something is mounted, but for the two mounts that are always there."""
        return [entry.point for entry in self.entries[2:]]

    def at(self, point: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.point == point]

    def unplug(self, node: str) -> None:
        """A device's node is gone; mounts that show it keep showing the old one."""
        for entry in self.entries:
            if (entry.devno, entry.root) == (DEVTMPFS, f"/{Path(node).name}"):
                entry.root += "//deleted"
        self._write()

    def run(self, args: Sequence[str]) -> Result:
        """``mount`` or ``umount`` with these arguments."""
        result = self._umount(args[1:]) if args[0] == "umount" else self._mount(args[1:])
        self._write()
        return result

    def _mount(self, args: Sequence[str]) -> Result:
        match args:
            case ["-t", fs_type, "-o", options, device, point]:
                return self._mount_device(fs_type, options.split(","), device, point)
            case ["--bind", source, point]:
                return self._bind(source, point)
            case ["-o", options, point]:
                return self._remount(options.split(","), point)
        raise AssertionError(f"mount {args}")

    def _mount_device(
        self, fs_type: str, options: Sequence[str], device: str, point: str
    ) -> Result:
        found = self._file_system(device)
        if not Path(point).is_dir():
            return _failed(f"mount: {point}: mount point does not exist.")
        if found is None:
            return _failed(f"mount: {point}: special device {device} does not exist.")
        if found.type != fs_type or not found.mountable:
            return _failed(f"mount: {point}: wrong fs type, bad option, bad superblock on {device}")
        mounted = [entry for entry in self.entries if entry.devno == found.devno]
        mode = "ro" if "ro" in options else "rw"
        top = self.at(point)[-1:]
        if top and top[0].devno == found.devno:
            return _failed(f"mount: {point}: {device} already mounted on {point}.")
        if mounted and mounted[0].super["mode"] != mode:
            return _failed(f"mount: {point}: {device} already mounted or mount point busy.")
        flags = (mode, *(flag for flag in options if flag in PER_MOUNT))
        shared = mounted[0].super if mounted else {"mode": mode}
        self.entries.append(Entry(found.devno, "/", point, flags, fs_type, device, shared))
        return OK

    def _bind(self, source: str, point: str) -> Result:
        if not Path(source).exists() or not Path(point).exists():
            return _failed(f"mount: {point}: mount point does not exist.")
        if Path(source).is_dir() != Path(point).is_dir():
            return _failed(f"mount: {point}: not a directory.")
        covering = [
            entry for entry in self.entries if Path(source).is_relative_to(entry.point)
        ]  # in the order of mounting; the deepest point wins, of a stack the last
        covering.sort(key=lambda entry: len(entry.point))
        seen = covering[-1]
        root = str(Path(seen.root) / Path(source).relative_to(seen.point))
        self.entries.append(
            Entry(seen.devno, root, point, seen.options, seen.type, seen.source, seen.super)
        )
        return OK

    def _remount(self, options: Sequence[str], point: str) -> Result:
        if options[:2] != ["remount", "bind"]:
            raise AssertionError(f"remount {options}")
        found = self.at(point)
        if not found:
            return _failed(f"mount: {point}: mount point not mounted or bad option.")
        # All flags of the mount are set anew: those not repeated are gone.
        found[-1].options = tuple(options[2:])
        return OK

    def _umount(self, args: Sequence[str]) -> Result:
        (point,) = args
        found = self.at(point)
        if not found:
            return _failed(f"umount: {point}: not mounted.")
        if point in self.busy:
            return _failed(f"umount: {point}: target is busy.")
        if any(Path(entry.point).is_relative_to(point) and entry.point != point
               for entry in self.entries):  # fmt: skip
            return _failed(f"umount: {point}: target is busy.")
        self.entries.remove(found[-1])
        return OK

    def stack(self, point: str) -> None:
        """Mount the same once more on top, as a driver does that never looks."""
        self.entries.append(replace(self.at(point)[-1]))
        self._write()

    def _write(self) -> None:
        lines = [entry.line(number) for number, entry in enumerate(self.entries, start=20)]
        self.path.write_bytes(os.fsencode("".join(lines)))


def _failed(text: str) -> Result:
    return Result(32, "", text + "\n")
