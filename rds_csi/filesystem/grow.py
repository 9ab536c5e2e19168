"""Growing a mounted file system to the size of its device.

Both kinds grow while they are mounted, and only so: growing ext4 offline would need a full
check first. It is asked for after each expansion and at each stage, because a volume may have
grown while no node had it.

The mount keeps its device's name and number from being given to another one. So it is enough to
prove, before and after, that the device of this mount is the volume's.
"""

import re
from typing import Final

import structlog

from rds_csi.errors import CommandFailed, Internal, Unavailable
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mount
from rds_csi.model.block_device import Device
from rds_csi.model.volume import MIB
from rds_csi.runtime.process import Runner

log = structlog.get_logger(__name__)

_QUICK: Final = 30.0
_GROW: Final = 600.0
"""Seconds. The call's own deadline is nearly always shorter; the next call goes on."""
_SLACK: Final = 16 * MIB
"""What may stay unused at the end: a last block group or allocation group too small for its
own metadata (ext4 up to about 7 MiB with 4 KiB blocks, xfs 64 blocks)."""


class Grower:
    """Compares file systems with their devices and makes up the difference."""

    def __init__(self, runner: Runner, devices: BlockDevices) -> None:
        self._runner = runner
        self._devices = devices

    async def grow(self, device: Device, mount: Mount, *, volume: str) -> bool:
        """Grow the file system seen at the writable ``mount``; returns whether it had to be.

        Raises :class:`Internal` where the file system is smaller than its device afterwards, and
        :class:`Unavailable` where the device is gone.
        """
        if mount.devno != device.devno:
            raise Unavailable(
                f"{mount.point} shows device {mount.devno}, not {device.number}",
                volume=volume,
                advice="the kernel gave the connection up; the next call looks again",
            )
        self._devices.prove(device, volume=volume)
        size = self._devices.size(device.devno)
        if size is None:
            raise Unavailable(f"{device.path} is gone", volume=volume)
        before = await self.size(device, mount, volume=volume)
        if size - before < _SLACK:
            return False
        command = (
            ["xfs_growfs", "-d", mount.point]
            if mount.fs_type == "xfs"
            else ["resize2fs", str(device.path)]
        )
        try:
            await self._devices.run_on(device, command, timeout=_GROW, volume=volume)
        except CommandFailed as error:
            raise Internal(
                f"the {mount.fs_type} on {device.path} could not be grown: "
                f"{error.stderr.strip()[-500:]}",
                volume=volume,
                advice="it is unharmed at its old size; the next call tries again",
            ) from error
        after = await self.size(device, mount, volume=volume)
        if size - after >= _SLACK:
            raise Internal(
                f"{command[0]} reported success, but the file system has {after} bytes and "
                f"{device.path} {size}",
                volume=volume,
            )
        log.info("file system grown", volume=volume, before=before, after=after)
        return True

    async def size(self, device: Device, mount: Mount, *, volume: str) -> int:
        """The size of the file system in bytes, its own metadata included."""
        if mount.fs_type == "xfs":
            # Asked of the kernel: the superblock on the device lags behind the log.
            command = ["xfs_growfs", "-n", mount.point]
            pattern = r"^data\s+=\s*bsize=(\d+)\s+blocks=(\d+)"
        else:
            command = ["dumpe2fs", "-h", str(device.path)]
            pattern = r"(?s)^Block count:\s+(\d+)$.*?^Block size:\s+(\d+)$"
        try:
            result = await self._runner.run(command, timeout=_QUICK, volume=volume)
        except CommandFailed:
            self._devices.prove(device, volume=volume)  # if it is gone, that is the reason
            raise
        self._devices.prove(device, volume=volume)
        found = re.search(pattern, result.stdout, re.MULTILINE)
        if found is None:
            raise Internal(
                f"the size of the {mount.fs_type} on {device.path} is not in what {command[0]} "
                f"says: {result.stdout.strip()[:300]!r}",
                volume=volume,
            )
        return int(found[1]) * int(found[2])
