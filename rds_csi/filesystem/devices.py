"""Block devices by number: what sysfs says of them, and questions only a child may ask.

Sysfs (``/sys/dev/block/MAJOR:MINOR``) answers from the kernel's memory, also when the device's
target is gone. Opening or reading the device may wait for as long as the outage lasts, so that
is done by :mod:`rds_csi.filesystem.probe` in a child with a deadline. The same program proves
whose device it is: a name or a number is no identity.
"""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rds_csi.errors import (
    CommandFailed,
    CommandTimeout,
    FailedPrecondition,
    NotReady,
    Unavailable,
    VolumeInUse,
)
from rds_csi.filesystem import probe
from rds_csi.model.block_device import Device, DeviceNumber
from rds_csi.runtime.process import PACKAGES, Result, Runner

_SECTOR: Final = 512
"""Bytes; sysfs counts in these whatever the device's own block is."""
_QUICK: Final = 30.0
_INSPECT: Final = 60.0
"""Seconds for reading some 9 MiB of samples over a slow network."""
_LOOKS: Final = 7
_PAUSE: Final = 0.5
"""Seconds between two looks for a holder. A container that is being started has every mount of the
node in its own mount namespace for an instant, until it leaves them behind."""
_PROBE: Final = (sys.executable, "-I", "-S", "-B", probe.__file__)


@dataclass(frozen=True, slots=True)
class Superblock:
    """The first superblock of a device: ``family`` is ``ext`` or ``xfs``.

    ``finished``: mkfs wrote its last, so it is a file system. ``replay``: its journal has to be
    replayed before it shows all that was written; None where that was not asked for.
    """

    family: str
    uuid: str
    finished: bool
    replay: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What direct reads of a device show, see :mod:`rds_csi.filesystem.probe`.

    ``size`` in bytes. ``data`` is the offset of the first byte found that is not zero.
    ``copies`` are the UUIDs of superblocks elsewhere than at the start, ``foreign`` names what no
    mkfs of ours leaves. ``digest`` is of all samples. ``blkid`` is what it says of them.
    """

    size: int
    data: int | None
    superblock: Superblock | None
    copies: tuple[str, ...]
    foreign: tuple[str, ...]
    digest: str
    blkid: Result

    @property
    def unfinished(self) -> str | None:
        """The UUID of an xfs whose mkfs did not finish."""
        found = self.superblock
        return found.uuid if found is not None and not found.finished else None


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
        command = ["blockdev", flag, str(device.path)]
        await self.run_on(device, command, timeout=_QUICK, volume=volume)
        if self.read_only(device.devno) != read_only:
            wanted = "read-only" if read_only else "writable"
            raise FailedPrecondition(f"{device.path} cannot be made {wanted}", volume=volume)

    def prove(self, device: Device, *, volume: str) -> None:
        """Raise :class:`Unavailable` unless the device's number is this volume's now.

        Asked of sysfs alone, so it holds for as long as something (a mount, a descriptor) keeps
        the number from being given to another device.
        """
        try:
            probe.prove(str(self._root), *_whose(device))
        except probe.Refused as error:
            raise _not_ours(device, str(error), volume) from None

    async def inspect(self, device: Device, *, log: bool = False, volume: str) -> Inspection:
        """Read samples of the device; with ``log``, also whether an xfs has a log to replay.

        Raises :class:`CommandFailed` where one cannot be read, :class:`CommandTimeout` where the
        device does not answer, :class:`Unavailable` where it is not the volume's any more.
        """
        words = ["inspect", *(["log"] if log else [])]
        found = json.loads((await self._probe(device, words, _INSPECT, volume)).stdout)
        superblock, blkid = found["superblock"], found["blkid"]
        return Inspection(
            size=found["size"],
            data=found["data"],
            superblock=None if superblock is None else Superblock(**superblock),
            copies=tuple(found["copies"]),
            foreign=tuple(found["foreign"]),
            digest=found["digest"],
            blkid=Result(blkid["status"], blkid["output"], blkid["errors"]),
        )

    async def superblock(self, device: Device, *, volume: str) -> Superblock | None:
        """The first superblock on the device, read past the cache; None for none of ext or xfs.

        Raises as :meth:`inspect` does.
        """
        found = json.loads((await self._probe(device, ["superblock"], _QUICK, volume)).stdout)
        return None if found is None else Superblock(**found)

    async def run_on(
        self,
        device: Device,
        command: Sequence[str],
        *,
        digest: str = "-",
        timeout: float,  # noqa: ASYNC109 - the deadline ends a program, not a coroutine
        volume: str,
    ) -> Result:
        """Run ``command`` on the device, proven to be the volume's before and after.

        The device's name and number cannot pass to another device between the first proof and
        the end of the command. With ``digest``, it runs only if the samples still have that one.
        Raises :class:`CommandFailed` from the command, :class:`Unavailable` where the device is
        not, or was not to the end, the volume's.
        """
        try:
            result = await self._probe(device, ["run", digest, *command], timeout, volume)
        except CommandFailed as error:
            if error.returncode == probe.CHANGED:
                raise
            raise CommandFailed(
                f"{command[0]} failed with status {error.returncode}: "
                f"{error.stderr.strip()[-500:]}",
                returncode=error.returncode,
                stderr=error.stderr,
                volume=volume,
            ) from None
        self.prove(device, volume=volume)
        return result

    async def usage(self, program: str, *, volume: str) -> str:
        """What the program prints without arguments: which options it has."""
        result = await self._runner.run([program], timeout=_QUICK, volume=volume, check=False)
        return result.stdout + result.stderr

    async def require_unclaimed(self, device: Device, *, volume: str) -> None:
        """Raise :class:`VolumeInUse` if something in the kernel holds the device, and goes on to.

        That is a mount in any mount namespace, also one we cannot see, device mapper, or swap.
        """
        for _ in range(_LOOKS - 1):
            if await self._held(device, volume) is None:
                return
            await asyncio.sleep(_PAUSE)
        if (held := await self._held(device, volume)) is not None:
            raise VolumeInUse(
                f"{device.path} is still held: mounted in another mount namespace, or used by "
                "device mapper or swap",
                volume=volume,
                advice=f"on the node: lsblk {device.path}; "
                f"grep {device.number} /proc/[0-9]*/mountinfo",
            ) from held

    async def _held(self, device: Device, volume: str) -> CommandFailed | None:
        """The probe's word that something holds the device just now."""
        try:
            await self._probe(device, ["claim"], _QUICK, volume)
        except CommandFailed as error:
            if error.returncode != probe.HELD:
                raise
            return error
        return None

    async def _probe(
        self, device: Device, words: Sequence[str], seconds: float, volume: str
    ) -> Result:
        whose = (str(self._root), str(device.path), *_whose(device))
        try:
            return await self._runner.run([*_PROBE, *whose, *words], timeout=seconds, volume=volume)
        except CommandFailed as error:
            if error.returncode == probe.OTHER:
                raise _not_ours(device, error.stderr.strip(), volume) from error
            if error.returncode == probe.MISSING:
                raise _missing(error.stderr.strip(), volume) from error
            self.prove(device, volume=volume)  # if it is gone, that is the reason
            raise
        except CommandTimeout as error:
            name = words[2] if words[0] == "run" else f"{words[0]} of {device.path}"
            raise CommandTimeout(
                f"{name} took longer than {seconds:g} s and was killed", volume=volume
            ) from error

    def _directory(self, devno: DeviceNumber) -> Path:
        return self._root / "dev" / "block" / f"{devno[0]}:{devno[1]}"

    def _read(self, devno: DeviceNumber, attribute: str) -> str | None:
        try:
            return (self._directory(devno) / attribute).read_text().strip()
        except OSError:
            return None  # the device went away before or while it was read


def _whose(device: Device) -> tuple[str, str, str, str]:
    """What :func:`rds_csi.filesystem.probe.prove` is asked."""
    return device.number, device.nqn, device.host_nqn, device.map or probe.NO_MAP


def _not_ours(device: Device, why: str, volume: str) -> Unavailable:
    return Unavailable(
        f"{device.path} is not its device any more: {why}",
        volume=volume,
        advice="the kernel gave the connection up; the next call connects anew",
    )


def _missing(program: str, volume: str) -> NotReady:
    package = PACKAGES.get(program)
    return NotReady(
        f"the program {program} cannot be run: there is none",
        volume=volume,
        advice=f"it is in the Debian package {package}" if package else "",
    )
