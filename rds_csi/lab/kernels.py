"""Which kernel the lab boots: one that is at hand, Debian's for this machine, or one by name.

Debian's packages are downloaded and unpacked but not installed: no boot loader, no initramfs,
seconds instead of a minute. The image goes to a cache, the modules to ``/lib/modules``.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rds_csi.lab import debian
from rds_csi.lab.debian import Archive
from rds_csi.lab.host import LabUnavailable, Say, check_distribution, run

CACHE: Final = Path("/var/cache/rds-csi/lab")
MODULES: Final = Path("/lib/modules")
BOOT: Final = Path("/boot")
NEWEST: Final = "newest"
SUITES: Final[Mapping[str, Sequence[str]]] = {
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("trixie", "trixie-security"),
    NEWEST: ("trixie-backports",),
}
"""The kernels that have a name, and the suites of Debian they are in."""
_NEEDED: Final = ("nvme-tcp", "nvmet-tcp", "loop", "ext4", "xfs", "9pnet_virtio", "overlay")
_META_PACKAGE: Final = "linux-image-amd64"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image whose modules stand in ``/lib/modules``."""

    version: str
    image: Path


def kernel(say: Say, cache: Path = CACHE, modules: Path = MODULES) -> Kernel:
    """A kernel that has all we need: the host's own, one fetched before, or one fetched now.

    Raises :class:`LabUnavailable` if none is at hand and none can be fetched.
    """
    found = find_kernel([cache, BOOT], modules)
    if found is not None:
        return found
    check_distribution([_META_PACKAGE])
    say(f"downloading Debian's kernel package; unpacking to {cache} and {modules}")
    cache.mkdir(parents=True, exist_ok=True)
    run("apt-get", "update", "-q")
    depends = run("apt-cache", "depends", _META_PACKAGE)
    match = re.search(r"Depends: (linux-image-\d\S*)", depends)
    if match is None:
        raise LabUnavailable(f"apt knows no package that {_META_PACKAGE} depends on")
    parts = [match[1], *_parts(match[1], run("apt-cache", "depends", match[1]).split())]
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        run("apt-get", "download", "-q", *parts, cwd=Path(scratch))
        return install([*Path(scratch).glob("*.deb")], cache, modules)


def named_kernel(
    say: Say,
    name: str,
    cache: Path = CACHE,
    modules: Path = MODULES,
    *,
    sources: Sequence[str] | None = None,
) -> Kernel:
    """The kernel of that name in :data:`SUITES`: at hand, or fetched.

    The newest is asked for each time, and where that fails the newest fetched before is taken.
    Each name has a folder of its own in the cache, so that none is booted unasked. ``sources``:
    lines of ``sources.list``, instead of Debian's.

    Raises :class:`LabUnavailable` if it is not at hand and cannot be fetched.
    """
    folder = cache / name
    series = "" if name == NEWEST else f"{name}."
    if series and (found := find_kernel([folder, cache, BOOT], modules, series)):
        return found
    if sources is None:
        check_distribution([f"{_META_PACKAGE} of {SUITES[name][0]}"])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = Archive(Path(scratch), sources or debian.sources(SUITES[name]))
            return _from_archive(say, archive, series, folder, modules)
    except LabUnavailable as error:
        fetched = find_kernel([folder], modules) if name == NEWEST else None
        if fetched is None:
            raise LabUnavailable(f"Debian's kernel {name!r} cannot be had: {error}") from None
        say(f"the newest kernel fetched before, {fetched.version}, is taken: {error}")
        return fetched


def _from_archive(say: Say, archive: Archive, series: str, cache: Path, modules: Path) -> Kernel:
    archive.update()
    versions = [each for each in archive.versions(_META_PACKAGE) if each.startswith(series)]
    if not versions:
        raise LabUnavailable(f"no version {series}* of {_META_PACKAGE} in it")
    version = versions[0]
    images = [
        package
        for package in archive.depends(_META_PACKAGE, version)
        if re.match(r"linux-image-\d", package)
    ]
    if len(images) != 1:
        raise LabUnavailable(f"{_META_PACKAGE} {version} depends on no kernel: {images}")
    (package,) = images
    release = package.removeprefix("linux-image-")
    fetched = cache / f"vmlinuz-{release}"
    if fetched.exists() and _complete(modules / release):
        return Kernel(release, fetched)
    parts = [package, *_parts(package, archive.depends(package, version))]
    say(
        f"downloading Debian's packages {' '.join(parts)}; unpacking to {cache} and {modules}, "
        "installing nothing"
    )
    files = archive.download(*(f"{part}={version}" for part in parts))
    return install(files, cache, modules)


def _parts(image: str, depends: Sequence[str]) -> list[str]:
    """Where else the kernel is: since 7.x the package of the image only names the others."""
    release = image.removeprefix("linux-image-")
    others = {f"linux-{part}-{release}" for part in ("base", "binary", "modules")}
    return sorted(others.intersection(depends))


def install(packages: Sequence[Path], cache: Path, modules: Path) -> Kernel:
    """Unpack a kernel's packages: its image to the cache, its modules to ``modules``.

    Both layouts of Debian's packages are known. Raises :class:`LabUnavailable` for another.
    """
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        root = Path(scratch)
        debian.unpack(packages, root)
        trees = [*root.glob("lib/modules/*"), *root.glob("usr/lib/modules/*")]
        versions = {tree.name for tree in trees}
        images = [*root.glob("boot/vmlinuz-*"), *(tree / "vmlinuz" for tree in trees)]
        images = [image for image in images if image.is_file()]
        if len(versions) != 1 or len(images) != 1:
            names = ", ".join(package.name for package in packages)
            raise LabUnavailable(
                f"of {names} one kernel and its modules were expected: their layout is another"
            )
        (version,), (image,) = versions, images
        modules.mkdir(parents=True, exist_ok=True)
        for tree in trees:
            shutil.copytree(tree, modules / version, symlinks=True, dirs_exist_ok=True)
        run("depmod", "-b", str(modules.parents[1]), version)
        if not _complete(modules / version):
            raise LabUnavailable(f"Linux {version} lacks one of the modules {', '.join(_NEEDED)}")
        # Last, so that an image in the cache always has its modules.
        return Kernel(version, image.replace(cache / f"vmlinuz-{version}"))


def find_kernel(places: Sequence[Path], modules: Path, series: str = "") -> Kernel | None:
    """The newest kernel image in ``places`` whose modules are complete.

    ``series``: what its version begins with.
    """
    images = [image for place in places for image in place.glob(f"vmlinuz-{series}*")]
    for image in sorted(images, key=_age, reverse=True):
        version = image.name.removeprefix("vmlinuz-")
        if _complete(modules / version):
            return Kernel(version, image)
    return None


def given_kernel(image: Path, modules: Path = MODULES) -> Kernel:
    """The kernel of that image file; :class:`LabUnavailable` if it or a module is missing."""
    version = image.name.removeprefix("vmlinuz-")
    if not image.is_file() or not _complete(modules / version):
        raise LabUnavailable(
            f"{image} is no kernel with modules in {modules / version}: "
            f"expected a file vmlinuz-VERSION, and {', '.join(_NEEDED)}"
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
    return all(module.replace("-", "_") in names for module in _NEEDED)
