"""Mounting what is on a device, and showing the device itself: only of the volume's own.

A mount of another volume's device may not even begin, for it replays a journal. So ``mount`` runs
with the device held open and proven (:mod:`rds_csi.filesystem.probe`). Afterwards the mount table
must show that very device, and sysfs the volume's NQN; else what was mounted is unmounted again.
"""

from collections.abc import Sequence
from typing import Final

from rds_csi.errors import (
    CommandFailed,
    CommandStuck,
    DriverError,
    FailedPrecondition,
    Internal,
    NotUndone,
    Unavailable,
)
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mount, Mounts
from rds_csi.model.block_device import Device

_TIMEOUT: Final = 60.0
"""Seconds for one ``mount``; replaying a large journal takes some."""


class DeviceMounts:
    """Mounts devices and binds their nodes, between two proofs of whose they are."""

    def __init__(self, mounts: Mounts, devices: BlockDevices) -> None:
        self._mounts = mounts
        self._devices = devices

    async def mount(
        self, device: Device, point: str, *, fs_type: str, options: Sequence[str], volume: str
    ) -> Mount:
        """Mount the file system on ``device`` at ``point``; returns what the table then shows.

        Raises :class:`FailedPrecondition` with the kernel's words where it does not take the
        file system, :class:`Internal` if the table shows no such mount, :class:`Unavailable` if
        the device is not, or was not to the end, the volume's.
        """
        command = ["mount", "-t", fs_type, "-o", ",".join(options), str(device.path), point]
        read_only = "ro" in options
        bare = not self._mounts.at(point)
        try:
            await self._devices.run_on(device, command, timeout=_TIMEOUT, volume=volume)
            mount = self._mounts.visible(point, volume)
            shown = (mount.devno, mount.fs_type, mount.read_only)
            if shown != (device.devno, fs_type, read_only):
                raise Internal(
                    f"mounted was {mount} instead of {(device.devno, fs_type, read_only)}",
                    volume=volume,
                )
        except CommandStuck:
            raise  # the stuck program may still mount it
        except CommandFailed as error:
            await self._undo(point, bare, error, volume)
            raise FailedPrecondition(
                f"{device.path} cannot be mounted as {fs_type}: {error.stderr.strip()}",
                volume=volume,
                advice="see the kernel's log on the node; a damaged file system has to be "
                "repaired by a person (fsck.ext4 or xfs_repair)",
            ) from error
        except DriverError as error:
            await self._undo(point, bare, error, volume)
            self._devices.prove(device, volume=volume)  # if it is gone, that is the reason
            raise
        return mount

    async def bind(self, device: Device, point: str, *, read_only: bool, volume: str) -> Mount:
        """Show the device's node at ``point`` as well: a raw block volume.

        For ``read_only`` the kernel has to refuse writes to the device already. Raises
        :class:`Internal` if the table does not show the mount, or shows it writable although it
        was to be read-only, and :class:`Unavailable` as :meth:`mount` does.
        """
        command = ["mount", "--bind", str(device.path), point]
        bare = not self._mounts.at(point)
        try:
            await self._devices.run_on(device, command, timeout=_TIMEOUT, volume=volume)
            mount = self._mounts.visible(point, volume)
            if read_only:
                mount = await self._mounts.make_read_only(mount, volume=volume)
            if mount not in self._mounts.of_node(device.path):
                raise Internal(f"{point} shows {mount}", volume=volume)
            # A bound node keeps no number from being given anew, so this comes last.
            self._require_node(device, point, read_only, volume)
        except CommandStuck:
            raise  # as above
        except DriverError as error:
            await self._undo(point, bare, error, volume)
            self._devices.prove(device, volume=volume)  # if it is gone, that is the reason
            raise
        return mount

    def _require_node(self, device: Device, point: str, read_only: bool, volume: str) -> None:
        found = self._devices.number_of(point)
        if found != device.devno:
            raise Internal(f"{point} shows device {found}, not {device.number}", volume=volume)
        if read_only and not self._devices.read_only(device.devno):
            # A read-only bind stops no writes to a device: the kernel's flag for it does.
            raise Unavailable(
                f"{device.path} takes writes again: it was connected anew meanwhile",
                volume=volume,
                advice="the next call makes it read-only once more",
            )
        self._devices.prove(device, volume=volume)

    async def _undo(self, point: str, bare: bool, failure: DriverError, volume: str) -> None:
        """Take this call's own mount away; raises :class:`NotUndone` where that fails too.

        Whoever called finds it by device no more, where the device is another one now.
        """
        if not bare:
            return
        try:
            await self._mounts.unmount(point, volume=volume)
        except DriverError as error:
            raise NotUndone(
                f"{failure.what}; and it could not be unmounted again: {error.what}",
                volume=volume,
                advice="it is safe to repeat",
            ) from error
