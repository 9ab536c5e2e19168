"""A program of its own that acts on controllers and devices it has proven.

Opening a device, reading it and deleting its controller may each wait for as long as an outage
lasts, and no thread that waits so can be ended. This file is therefore run by path, as a child
that can be killed, without the package and its imports (``python -I -S proven.py``), and needs the
standard library alone.

    proven.py delete SYS DEV NQN HOSTNQN CONTROLLER...
        takes the controllers down, if nothing in the kernel holds a device of theirs: a mount in
        any mount namespace, device mapper, swap. The devices are held alone until that is done,
        so nobody can begin to use one meanwhile.
    proven.py rescan SYS DEV NQN HOSTNQN CONTROLLER...
        has the kernel read their namespaces again.
    proven.py give-up SYS DEV NQN HOSTNQN CONTROLLER...
        takes the controllers down, held or not, unless one of them carries I/O.
    proven.py read SYS DEV NQN HOSTNQN NAME MAJOR:MINOR CONTROLLER...
        reads the first block of their device of that name and number, past the cache.

Names are given anew, to another volume, in the instant they are free: of controllers, devices and
device numbers alike. So a controller's directory is opened once, and read and written through
that descriptor, which leads nowhere once the controller is gone. A device is opened, and only then
looked up below its controller: while it is open, name and number are its own.

Exit status: 0, or 1 for an error, 3 if no controller is (still) the one that is meant, 4 if a
device is held, or a controller alive that should not be.
"""

import errno
import mmap
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ERROR, NOT_OURS, HELD = 1, 3, 4

_BLOCK = 4096
_NAMESPACE = re.compile(r"nvme[0-9]+n[0-9]+")
_PATH = re.compile(r"(nvme[0-9]+)c[0-9]+(n[0-9]+)")
_GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)


class Gone(Exception):
    """The controller or the device is another one by now, or gone."""


class Held(Exception):
    """Something is at work with it."""


class Meant(NamedTuple):
    """Whose controllers are meant, and where they are looked for."""

    sys: Path
    dev: Path
    nqn: str
    hostnqn: str


class Controller:
    """A controller's directory, opened once."""

    def __init__(self, directory: Path, meant: Meant) -> None:
        self.name = directory.name
        self._directory = directory
        self._meant = meant
        self._descriptor = -1
        with suppress(FileNotFoundError):
            self._descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def proven(self) -> bool:
        """Whether it is there, and the one that is meant."""
        found = (self.read("subsysnqn"), self.read("hostnqn"))
        return found == (self._meant.nqn, self._meant.hostnqn)

    def read(self, attribute: str) -> str:
        """What it shows; empty where it is gone."""
        try:
            descriptor = os.open(attribute, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._descriptor)
            with open(descriptor, errors="replace") as file:  # noqa: PTH123 - a descriptor
                return file.read().strip()
        except OSError:
            return ""

    def write(self, attribute: str) -> None:
        """Write 1."""
        descriptor = os.open(attribute, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            os.write(descriptor, b"1\n")
        finally:
            os.close(descriptor)

    def devices(self) -> Iterator[Path]:
        """The directories of the block devices it leads to (host/multipath.c has two layouts)."""
        with suppress(OSError):
            for entry in sorted(self._directory.iterdir()):
                if _NAMESPACE.fullmatch(entry.name):
                    yield entry
                elif path := _PATH.fullmatch(entry.name):
                    yield from self._heads("".join(path.groups()))

    def _heads(self, name: str) -> Iterator[Path]:
        for subsystem in (self._meant.sys / "class" / "nvme-subsystem").iterdir():
            if (subsystem / self.name).exists() and (subsystem / name).exists():
                yield subsystem / name


def hold(device: Path, meant: Meant, flags: int) -> int | None:
    """A descriptor of the block device, proven to be the subsystem's; None if it is gone."""
    node, number = meant.dev / device.name, _read(device / "dev")
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC | flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Held(f"{device.name} is held") from None
        if error.errno in _GONE and not _read(device / "dev"):
            return None
        raise
    found = os.fstat(descriptor).st_rdev
    same = number == _read(device / "dev") == f"{os.major(found)}:{os.minor(found)}"
    if not same or _read(device.parent / "subsysnqn") != meant.nqn:
        os.close(descriptor)
        raise Gone(f"{node} is not the device {number} of {meant.nqn}")
    return descriptor


def delete(controllers: list[Controller], meant: Meant) -> None:
    """Take them down, holding all they lead to until the program ends."""
    held: set[Path] = set()
    while new := {device for each in controllers for device in each.devices()} - held:
        for device in new:
            hold(device, meant, os.O_EXCL)
        held |= new
    write(controllers, "delete_controller")


def write(controllers: list[Controller], attribute: str) -> None:
    """Write 1 into each that is still the one meant, whatever becomes of the others."""
    failures = []
    for controller in controllers:
        if not controller.proven():
            continue
        try:
            controller.write(attribute)
        except OSError as error:
            if error.errno not in _GONE:
                failures.append(f"{attribute} of {controller.name}: {error.strerror}")
    if failures:
        raise OSError(errno.EIO, "; ".join(failures))


def give_up(controllers: list[Controller]) -> None:
    """Take down connections that the kernel tries in vain to bring back."""
    alive = [controller.name for controller in controllers if controller.read("state") == "live"]
    if alive:
        raise Held(f"{', '.join(alive)} is live")
    write(controllers, "delete_controller")


def read(controllers: list[Controller], meant: Meant, name: str, number: str) -> None:
    """Read one block of the device, which is the subsystem's before and afterwards."""
    for controller in controllers:
        for device in controller.devices():
            if (device.name, _read(device / "dev")) != (name, number):
                continue
            descriptor = hold(device, meant, os.O_DIRECT)
            if descriptor is not None:
                read_block(descriptor)
                if controller.proven() and _read(device / "dev") == number:
                    return
    raise Gone(f"{name} ({number}) is not a device of {meant.nqn}")


def read_block(descriptor: int) -> None:
    """Read one block, or raise OSError."""
    # Memory as direct reads want it: aligned to a page.
    with mmap.mmap(-1, _BLOCK) as buffer:
        count = os.preadv(descriptor, [buffer], 0)
    if count != _BLOCK:
        raise OSError(errno.EIO, f"{count} bytes read of {_BLOCK}")


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def perform(command: str, meant: Meant, arguments: list[str]) -> None:
    """Do it with those of the controllers that are the ones meant; :class:`Gone` if none is."""
    device, directories = ([], arguments) if command != "read" else (arguments[:2], arguments[2:])
    opened = [Controller(Path(directory), meant) for directory in directories]
    controllers = [controller for controller in opened if controller.proven()]
    if not controllers:
        raise Gone(f"there is no controller of {meant.nqn} any more")
    match command:
        case "delete":
            delete(controllers, meant)
        case "rescan":
            write(controllers, "rescan_controller")
        case "give-up":
            give_up(controllers)
        case "read":
            read(controllers, meant, *device)
        case _:
            raise ValueError(f"unknown command {command}")


def main(arguments: list[str]) -> int:
    """Do what the arguments say; returns the exit status."""
    command, root, dev, nqn, hostnqn, *rest = arguments
    try:
        perform(command, Meant(Path(root), Path(dev), nqn, hostnqn), rest)
    except (Gone, Held) as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program's output
        return HELD if isinstance(error, Held) else NOT_OURS
    except OSError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
