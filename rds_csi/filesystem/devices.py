"""Block devices by number: what sysfs says of them, and questions only a child may ask.

Sysfs (``/sys/dev/block/MAJOR:MINOR``) answers from the kernel's memory, also when the device's
target is gone. Opening or reading the device may wait for as long as the outage lasts, so that
is done by :mod:`rds_csi.filesystem.probe` in a child with a deadline.
"""

import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rds_csi.errors import CommandFailed, FailedPrecondition, VolumeInUse
from rds_csi.filesystem import probe
from rds_csi.filesystem.mounts import DeviceNumber
from rds_csi.process import Result, Runner

_SECTOR: Final = 512
"""Bytes; sysfs counts in these whatever the device's own block is."""
_QUICK: Final = 30.0
_INSPECT: Final = 60.0
"""Seconds for reading some 9 MiB of samples over a slow network."""
_PROBE: Final = (sys.executable, "-I", "-S", "-B", probe.__file__)


@dataclass(frozen=True, slots=True)
class Device:
    """A device node, the number it must have, and whose it must be.

    Names and numbers are given anew, in the same instant, to another volume. What stays is the
    subsystem's NQN and the host NQN of a controller that leads to it: they are proven.
    """

    path: Path
    devno: DeviceNumber
    nqn: str
    host_nqn: str

    @property
    def number(self) -> str:
        """The number as the kernel writes it."""
        return f"{self.devno[0]}:{self.devno[1]}"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the samples of a device show, see :mod:`rds_csi.filesystem.probe`.

    ``size`` in bytes. ``data`` is the offset of the first byte found that is not zero.
    ``unfinished`` is the UUID of an xfs whose mkfs did not finish. ``digest`` is of all samples.
    """

    size: int
    data: int | None
    unfinished: str | None
    digest: str


class BlockDevices:
    """The block devices of this machine."""

    def __init__(self, runner: Runner, *, root: Path = Path("/sys")) -> None:
        self._runner = runner
        self._root = root

    def exists(self, devno: DeviceNumber) -> bool:
        """Whether the kernel has such a device now."""
        return self._directory(devno).exists()

    def number_of(self, path: Path | str) -> DeviceNumber | None:
        """The device number of a node at ``path``, or None where there is none."""
        try:
            found = Path(path).stat()
        except OSError:
            return None
        if not stat.S_ISBLK(found.st_mode):
            return None
        return os.major(found.st_rdev), os.minor(found.st_rdev)

    def size(self, devno: DeviceNumber) -> int | None:
        """The size in bytes, or None for no such device."""
        text = self._read(devno, "size")
        return int(text) * _SECTOR if text is not None else None

    def read_only(self, devno: DeviceNumber) -> bool | None:
        """Whether the kernel refuses writes to the device, or None for no such device."""
        text = self._read(devno, "ro")
        return text != "0" if text is not None else None

    async def set_read_only(self, device: Device, read_only: bool, *, volume: str) -> None:
        """Make the kernel refuse or take writes to the device, for everybody on this node.

        Raises :class:`FailedPrecondition` where the kernel does not follow: a namespace that the
        target protects stays read-only.
        """
        if self.read_only(device.devno) == read_only:
            return
        flag = "--setro" if read_only else "--setrw"
        await self._runner.run(["blockdev", flag, str(device.path)], timeout=_QUICK, volume=volume)
        if self.read_only(device.devno) != read_only:
            wanted = "read-only" if read_only else "writable"
            raise FailedPrecondition(f"{device.path} cannot be made {wanted}", volume=volume)

    async def inspect(self, device: Device, *, volume: str) -> Inspection:
        """Read samples of the device.

        Raises :class:`CommandFailed` where one cannot be read, :class:`CommandTimeout` where the
        device does not answer.
        """
        result = await self._probe(["inspect", *_names(device)], _INSPECT, volume)
        return Inspection(**json.loads(result.stdout))

    async def run_on(
        self,
        device: Device,
        inspection: Inspection,
        command: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the deadline ends a program, not a coroutine
        volume: str,
    ) -> Result:
        """Run ``command`` if the device is still the one inspected, with the same content.

        The device's name cannot pass to another device between this check and the end of the
        command. Raises :class:`CommandFailed` from the check and from the command.
        """
        return await self._probe(
            ["run", *_names(device), inspection.digest, *command], timeout, volume
        )

    async def require_unclaimed(self, device: Device, *, volume: str) -> None:
        """Raise :class:`VolumeInUse` if something in the kernel still holds the device.

        That is a mount in any mount namespace, also one we cannot see, device mapper, or swap.
        """
        try:
            await self._probe(["claim", *_names(device)], _QUICK, volume)
        except CommandFailed as error:
            if error.returncode != probe.HELD:
                raise
            raise VolumeInUse(
                f"{device.path} is still held: mounted in another mount namespace, or used by "
                "device mapper or swap",
                volume=volume,
                advice=f"on the node: lsblk {device.path}; "
                f"grep {device.number} /proc/[0-9]*/mountinfo",
            ) from error

    async def _probe(self, arguments: Sequence[str], seconds: float, volume: str) -> Result:
        return await self._runner.run([*_PROBE, *arguments], timeout=seconds, volume=volume)

    def _directory(self, devno: DeviceNumber) -> Path:
        return self._root / "dev" / "block" / f"{devno[0]}:{devno[1]}"

    def _read(self, devno: DeviceNumber, attribute: str) -> str | None:
        try:
            return (self._directory(devno) / attribute).read_text().strip()
        except OSError:
            return None  # the device went away before or while it was read


def _names(device: Device) -> tuple[str, str]:
    return str(device.path), device.number
