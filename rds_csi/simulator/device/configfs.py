"""The kernel's NVMe target as a tree of folders: ``/sys/kernel/config/nvmet``.

Plain file operations on a root that tests can replace. In configfs making a folder makes the
object with its attribute files, and removing the folder removes it.
"""

import shutil
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from rds_csi.simulator.device.loops import CONTROL, make_node

MOUNT: Final = Path("/sys/kernel/config")
_CONTROL: Final = Path("/sys/class/misc/loop-control/dev")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ConfigFs:
    """Makes, changes and removes objects. Every failure is an OSError."""

    def __init__(self, root: Path = MOUNT / "nvmet") -> None:
        self.root = root

    def available(self) -> bool:
        """Whether the kernel has an NVMe target ready."""
        return (self.root / "subsystems").is_dir()

    def make(self, path: Path) -> None:
        """Make an object."""
        path.mkdir()

    def remove(self, path: Path) -> None:
        """Remove an object; nothing happens when it is gone already."""
        with suppress(FileNotFoundError):
            path.rmdir()

    def write(self, path: Path, value: str) -> None:
        """Set an attribute."""
        path.write_text(value)

    def write_if_known(self, path: Path, value: str) -> None:
        """Set an attribute that older kernels do not have."""
        with suppress(FileNotFoundError, PermissionError):
            path.write_text(value)

    def read(self, path: Path) -> str:
        """An attribute's value; empty when it is not there."""
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            return ""

    def link(self, path: Path, target: Path) -> None:
        """Tie one object to another."""
        with suppress(FileExistsError):
            path.symlink_to(target)

    def unlink(self, path: Path) -> None:
        """Untie; nothing happens when it is not tied."""
        with suppress(FileNotFoundError):
            path.unlink()

    def names(self, path: Path) -> list[str]:
        """The objects in a folder, in order."""
        try:
            return sorted(entry.name for entry in path.iterdir())
        except FileNotFoundError:
            return []


def prepare() -> None:
    """Load the kernel's modules and mount configfs, as far as that is missing and allowed.

    Loop devices belong to it. Raises RuntimeError with what to do when the machine has no NVMe
    target afterwards.
    """
    if not ConfigFs().available():
        _try("modprobe", "nvmet-tcp")
    if not ConfigFs().available():
        _try("mount", "-t", "configfs", "none", str(MOUNT))
    if not CONTROL.exists():
        _try("modprobe", "loop")
    if not CONTROL.exists() and _CONTROL.exists():
        with suppress(OSError):
            make_node(CONTROL, _CONTROL.read_text(), stat.S_IFCHR)
    if not ConfigFs().available() or not CONTROL.exists():
        raise RuntimeError(
            "this kernel offers no NVMe target: needs root, the modules nvmet, nvmet-tcp and loop, "
            f"and configfs on {MOUNT}; without them use --export none"
        )


def _try(program: str, *arguments: str) -> None:
    """Run a program, if it is there; what came of it is looked at afterwards."""
    found = shutil.which(program, path=_PATH)
    if found is not None:
        subprocess.run([found, *arguments], check=False, capture_output=True)


def find_port(configfs: ConfigFs, wanted: Mapping[str, str]) -> str:
    """The name of the port with these attributes, or empty."""
    ports = configfs.root / "ports"
    for name in configfs.names(ports):
        if all(configfs.read(ports / name / key) == value for key, value in wanted.items()):
            return name
    return ""


def free_port_name(configfs: ConfigFs) -> str:
    """A name for a new port: the lowest unused number."""
    taken = set(configfs.names(configfs.root / "ports"))
    number = 1
    while str(number) in taken:
        number += 1
    return str(number)
