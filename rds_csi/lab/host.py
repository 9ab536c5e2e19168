"""What the host must have for the lab: programs, and a kernel with its modules.

Missing programs are installed with apt. The kernel is Debian's package, downloaded and unpacked
but not installed: no boot loader, no initramfs, seconds instead of a minute. Whatever is
changed on the host is said before it is done.
"""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
_MODULES: Final = ("nvme-tcp", "nvmet-tcp", "loop", "ext4", "xfs", "9pnet_virtio", "overlay")
_META_PACKAGE: Final = "linux-image-amd64"
CACHE: Final = Path("/var/cache/rds-csi/lab")


class LabUnavailable(Exception):
    """This machine cannot run the lab; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image whose modules stand in ``/lib/modules``."""

    version: str
    image: Path


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
    _check_distribution(missing)
    say(f"installing Debian packages: {' '.join(missing)}")
    _run("apt-get", "update", "-q")
    _run("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing)
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


def kernel(say: Say, cache: Path = CACHE, modules: Path = Path("/lib/modules")) -> Kernel:
    """A kernel that has all we need: the host's own, one fetched before, or one fetched now.

    Raises :class:`LabUnavailable` if none is at hand and none can be fetched.
    """
    found = find_kernel([cache, Path("/boot")], modules)
    if found is not None:
        return found
    _check_distribution([_META_PACKAGE])
    say(f"downloading Debian's kernel package; unpacking to {cache} and {modules}")
    _fetch_kernel(cache, modules)
    found = find_kernel([cache], modules)
    if found is None:
        raise LabUnavailable(f"Debian's kernel lacks one of the modules {', '.join(_MODULES)}")
    return found


def find_kernel(places: Sequence[Path], modules: Path) -> Kernel | None:
    """The newest kernel image in ``places`` whose modules are complete."""
    images = [image for place in places for image in place.glob("vmlinuz-*")]
    for image in sorted(images, key=_age, reverse=True):
        version = image.name.removeprefix("vmlinuz-")
        if _complete(modules / version):
            return Kernel(version, image)
    return None


def given_kernel(image: Path, modules: Path = Path("/lib/modules")) -> Kernel:
    """The kernel of that image file; :class:`LabUnavailable` if it or a module is missing."""
    version = image.name.removeprefix("vmlinuz-")
    if not image.is_file() or not _complete(modules / version):
        raise LabUnavailable(
            f"{image} is no kernel with modules in {modules / version}: "
            f"expected a file vmlinuz-VERSION, and {', '.join(_MODULES)}"
        )
    return Kernel(version, image.resolve())


def _age(image: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", image.name)]


def _complete(modules: Path) -> bool:
    known = ""
    for name in ("modules.dep", "modules.builtin"):
        try:
            known += (modules / name).read_text()
        except FileNotFoundError:
            return False
    # File names may have "_" where the module's name has "-", and the other way round.
    names = {Path(word.rstrip(":")).name.split(".")[0].replace("-", "_") for word in known.split()}
    return all(module.replace("-", "_") in names for module in _MODULES)


def _fetch_kernel(cache: Path, modules: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    _run("apt-get", "update", "-q")
    depends = _run("apt-cache", "depends", _META_PACKAGE)
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    if match is None:
        raise LabUnavailable(f"apt knows no package that {_META_PACKAGE} depends on")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        _run("apt-get", "download", "-q", match[1], cwd=scratch)
        (package,) = Path(scratch).glob("*.deb")
        _run("dpkg", "-x", str(package), scratch)
        (image,) = Path(scratch).glob("boot/vmlinuz-*")
        version = image.name.removeprefix("vmlinuz-")
        (unpacked,) = [
            *Path(scratch).glob("lib/modules/*"),
            *Path(scratch).glob("usr/lib/modules/*"),
        ]
        modules.mkdir(parents=True, exist_ok=True)
        shutil.copytree(unpacked, modules / version, symlinks=True, dirs_exist_ok=True)
        _run("depmod", version)
        # Last, so that an image in the cache always has its modules.
        image.replace(cache / image.name)


def _check_distribution(wanted: Sequence[str]) -> None:
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


def _run(*arguments: str, cwd: str | None = None) -> str:
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
