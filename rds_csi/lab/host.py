"""What the host must have for the lab: root, Debian, and programs.

Missing programs are installed with apt. Whatever is changed on the host is said before it is done.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rds_csi.runtime.process import ENVIRONMENT, PACKAGES

Say = Callable[[str], None]
"""Told, in a sentence, what is done to the host."""

PROGRAMS: Final[Mapping[str, str]] = {
    **PACKAGES,  # what the driver runs
    "qemu-system-x86_64": "qemu-system-x86",
    "file": "file",  # virtme-ng asks it whether busybox is static
    "bash": "bash",
    "depmod": "kmod",
    "dmesg": "util-linux",
    "findmnt": "util-linux",
    "ip": "iproute2",
    "iptables": "iptables",
    "mkfs.btrfs": "btrfs-progs",
}
"""Program and the Debian package that brings it: for the host, the guest's script and the tests."""

_BUSYBOX: Final = "busybox-static"
"""The initramfs that loads 9p is made of it; the dynamic ``busybox`` would not start there."""


class LabUnavailable(Exception):
    """This machine cannot run the lab; the text says why and what would help."""


def check(machine: str = platform.machine()) -> None:
    """Raise :class:`LabUnavailable` where no installation could help."""
    if os.geteuid() != 0:
        raise LabUnavailable("the lab needs root: it installs packages and mounts file systems")
    if machine != "x86_64":
        raise LabUnavailable(f"the lab boots an x86_64 kernel; this machine is {machine}")


def search_path() -> str:
    """Where programs are looked for: PATH if there is one, and the system's own directories.

    A root shell made by ``su`` has no ``/usr/sbin`` on its PATH.
    """
    return ":".join(filter(None, (os.environ.get("PATH"), ENVIRONMENT["PATH"])))


def install_programs(
    say: Say, programs: Mapping[str, str] = PROGRAMS, *, packages: Sequence[str] = (_BUSYBOX,)
) -> None:
    """Install what is missing: the Debian packages of ``programs``, and ``packages``.

    Raises :class:`LabUnavailable` if the host is not Debian or apt fails.
    """
    missing = missing_packages(programs, packages)
    if not missing:
        return
    check_distribution(missing)
    say(f"installing Debian packages: {' '.join(missing)}")
    run("apt-get", "update", "-q")
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing)
    still = missing_packages(programs, packages)
    if still:
        raise LabUnavailable(f"apt installed {' '.join(still)}, yet the programs are not found")


def missing_packages(programs: Mapping[str, str], packages: Sequence[str] = ()) -> list[str]:
    """The packages of the programs that are not found, and those of ``packages`` not installed."""
    path = search_path()
    missing = {package for name, package in programs.items() if not shutil.which(name, path=path)}
    info = Path("/var/lib/dpkg/info")
    missing |= {package for package in packages if not (info / f"{package}.list").exists()}
    return sorted(missing)


def check_distribution(wanted: Sequence[str]) -> None:
    """Raise :class:`LabUnavailable`, naming what is ``wanted``, unless this is Debian with apt."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if release.get("ID") != "debian" or not shutil.which("apt-get", path=search_path()):
        name = release.get("PRETTY_NAME", "an unknown system")
        raise LabUnavailable(
            f"only Debian's packages are installed by themselves and this is {name}: "
            f"install {', '.join(wanted)} by hand"
        )


def run(*arguments: str, cwd: Path | None = None) -> str:
    """What a program of the system printed; :class:`LabUnavailable` if it fails or is not there."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    environment["PATH"] = search_path()
    try:
        done = subprocess.run(
            arguments,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise LabUnavailable(f"{arguments[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise LabUnavailable(f"{' '.join(arguments)} failed with {done.returncode}:\n{tail}")
    return done.stdout
