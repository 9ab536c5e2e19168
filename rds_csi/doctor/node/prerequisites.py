"""What the driver needs of a node's kernel and programs, and of the kubelet's directory."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rds_csi.doctor.check import Checks
from rds_csi.doctor.node.time_sync import ClockState
from rds_csi.filesystem.mounts import Mounts
from rds_csi.nvme.cli_errors import MODPROBE
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import ENVIRONMENT, PACKAGES, Runner

PROGRAMS: Final = (
    *("blkid", "blockdev", "dumpe2fs", "mkfs.ext4", "mkfs.xfs", "mount", "nvme"),
    *("resize2fs", "stat", "umount", "xfs_growfs", "xfs_logprint"),
)
"""What the node service runs."""

_NVME_VERSION: Final = re.compile(r"nvme version (\d+)\.(\d+)")
_OLDEST_NVME: Final = (2, 0)
_PROGRAM_TIMEOUT: Final = 10.0
_FLEETING: Final = frozenset({"tmpfs", "overlay", "ramfs"})


def check_kernel(
    checks: Checks, sysfs: Sysfs, module: Path, fabrics: Path, *, several: bool = False
) -> None:
    """NVMe/TCP in the kernel, the device that connects are asked of, and multipath.

    ``module`` is where the parameters of ``nvme_core`` are. ``several``: the RDS has several data
    addresses, which a kernel without native multipath does not join. Such a kernel also tries a
    request that cannot be sent only five times more, all in the instant in which the connection
    breaks (``nvme_max_retries``, drivers/nvme/host/core.c).
    """
    ubuntu = f"Ubuntu has it in linux-modules-extra-{os.uname().release}"
    if sysfs.has_transport():
        checks.ok("kernel module nvme-tcp", "loaded")
    else:
        checks.fail("kernel module nvme-tcp", "not loaded", f"{MODPROBE}; {ubuntu}")
    name = str(fabrics)
    try:
        device = stat.S_ISCHR(fabrics.stat().st_mode)
    except OSError as error:
        checks.fail(name, f"cannot be used: {error.strerror}", MODPROBE)
    else:
        if device:
            checks.ok(name, "there")
        else:
            checks.fail(name, "not a device", "in a container, /dev has to be the host's")
    _check_multipath(checks, module, several=several)


def _check_multipath(checks: Checks, module: Path, *, several: bool) -> None:
    name = "native multipath"
    try:
        on = (module / "multipath").read_text().strip() in {"Y", "1"}
    except OSError:
        on = None
    if on:
        checks.ok(name, "on; I/O that is under way when a connection breaks is tried again")
        return
    what = "the kernel has none" if on is None else "off"
    one = ", and of the RDS's several addresses one is used, the first that connects"
    checks.warn(
        name,
        f"{what}: I/O that is under way when a connection breaks may fail{one if several else ''}",
        "boot with nvme_core.multipath=Y; against the first, pathLayer.enabled helps as well",
    )


def which(program: str) -> str | None:
    """Where the node service would find the program."""
    return shutil.which(program, path=ENVIRONMENT["PATH"])


async def check_programs(checks: Checks, runner: Runner, find: Callable[[str], str | None]) -> None:
    """The programs that the node service runs, and the version of nvme-cli."""
    missing = [name for name in PROGRAMS if find(name) is None]
    if missing:
        packages = sorted({PACKAGES[name] for name in missing})
        checks.fail(
            "programs",
            f"missing: {', '.join(missing)}",
            f"install the Debian packages {', '.join(packages)}, or use the node image",
        )
    else:
        checks.ok("programs", ", ".join(PROGRAMS))
    if "nvme" in missing:
        return
    with checks.failing("nvme-cli", "run `nvme version` on the node"):
        result = await runner.run(["nvme", "version"], timeout=_PROGRAM_TIMEOUT)
        found = _NVME_VERSION.search(result.stdout)
        version = (int(found[1]), int(found[2])) if found else None
        if version is None:
            said = " ".join(result.stdout.split())[:100]
            checks.warn("nvme-cli", f"tells no version: {said!r}", "the driver needs 2.0 or newer")
        elif version < _OLDEST_NVME:
            text = f"version {version[0]}.{version[1]}"
            checks.fail("nvme-cli", text, "upgrade to 2.0 or newer; the node image has 2.13")
        else:
            checks.ok("nvme-cli", f"version {version[0]}.{version[1]}")


async def check_path_layer(
    checks: Checks, runner: Runner, find: Callable[[str], str | None]
) -> None:
    """Whether this node can put maps over devices; only the path layer needs it."""
    name = "path layer"
    if find("dmsetup") is None:
        checks.skip(name, "no dmsetup", f"needed with pathLayer.enabled: {PACKAGES['dmsetup']}")
        return
    result = await runner.run(["dmsetup", "targets"], timeout=_PROGRAM_TIMEOUT, check=False)
    if result.returncode == 0 and re.search(r"^multipath\s", result.stdout, re.MULTILINE):
        checks.ok(name, "possible: the kernel has dm-multipath")
    else:
        checks.skip(
            name,
            "no dm-multipath in this kernel, or not loaded",
            "needed with pathLayer.enabled: `modprobe -a dm-multipath dm-round-robin`",
        )


def check_kubelet_directory(checks: Checks, mounts: Mounts, directory: Path) -> None:
    """Whether the kubelet's directory is there, and mounts below it are seen by the kubelet."""
    name = f"kubelet directory {directory}"
    if not directory.is_dir():
        checks.fail(name, "not there", "set --kubelet-dir to the kubelet's --root-dir")
        return
    mount = mounts.covering(directory)
    if mount is None:
        checks.skip(name, "the mount table does not show where it is mounted")
    elif mount.shared:
        checks.ok(name, f"mounts below it propagate (seen through {mount.point})")
    else:
        checks.fail(
            name,
            f"mounts below it stay private to this mount namespace (seen through {mount.point}): "
            "pods would get empty directories",
            "in a pod: mountPropagation: Bidirectional for this volume; "
            "on the host: mount --make-rshared /",
        )


def check_state_directory(checks: Checks, mounts: Mounts, directory: Path) -> None:
    """Whether records can be written, and are still there after the pod is not."""
    name = f"state directory {directory}"
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".doctor-") as file:
            file.write(b"doctor\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        checks.fail(
            name, f"cannot be written: {error.strerror}", "make it, for root, and not read-only"
        )
        return
    mount = mounts.covering(directory)
    if mount is not None and mount.fs_type in _FLEETING:
        checks.warn(
            name,
            f"writable, but on {mount.fs_type}: what is written is gone with the pod or at reboot",
            "in a pod: a hostPath volume at this path",
        )
    else:
        checks.ok(name, "writable")


def check_clock(checks: Checks, state: Callable[[], ClockState]) -> None:
    """Whether somebody keeps this machine's clock right."""
    name = "clock"
    try:
        found = state()
    except OSError as error:
        checks.skip(name, f"the kernel does not tell: {error.strerror}")
        return
    if found.synchronised:
        checks.ok(name, f"synchronised, off by {found.maximum_error:.3f} s at most")
    else:
        checks.warn(
            name,
            "not synchronised: times in logs do not compare with those of the RDS",
            "run chrony or systemd-timesyncd on the node",
        )
