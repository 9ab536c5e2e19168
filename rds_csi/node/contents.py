"""The file system on a volume's device at stage: found, made where that is right, and grown.

What a device shows says whether it is blank (:mod:`rds_csi.filesystem.format`). Whether it may
be, others have to say, for a file that the RDS lost and made anew is blank too:

* the RDS, where it has seen a file system on the volume (``formatted``);
* this node's record. It is written with the mark of a format before ``mkfs`` starts, and without
  it after ``mkfs`` has ended and before the first mount. So staged with a file system and no mark
  means that one was there, whichever step a crash came after.

Either forbids to format. The record ends with the stage: a node is never told that a volume was
deleted, so it would remember for ever, and refuse a new volume of the same name; the RDS tells
every node. But once a stage was refused, that is remembered until the file system is back:
stopping the pod must not be what formats the volume. After that a second hand-over is only a
hint: its first holder may never have come to format it.
"""

from dataclasses import replace
from typing import Final
from uuid import uuid4

import structlog

from rds_csi.errors import CommandTimeout, FailedPrecondition, Internal
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.format import Formatter, State
from rds_csi.filesystem.grow import Grower
from rds_csi.filesystem.mounts import Mount
from rds_csi.model.block_device import Device
from rds_csi.node.connected import same_export
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.wanted import Stage

log = structlog.get_logger(__name__)

_LONGEST: Final = 300
"""Characters of an error that are kept."""


class Contents:
    """Brings a device's file system into the state that a stage needs."""

    def __init__(
        self,
        *,
        devices: BlockDevices,
        formatter: Formatter,
        grower: Grower,
        store: StagingStore,
    ) -> None:
        self._devices = devices
        self._formatter = formatter
        self._grower = grower
        self._store = store

    async def ensure(self, wanted: Stage, before: StagedVolume | None, device: Device) -> str:
        """Make sure of the file system, making it where the device is blank and rightly so.

        Returns its UUID.
        """
        # The name changes with each hand-over. What the mark is of, its UUID says on the device.
        same = before is not None and same_export(before.nqn, wanted.target.nqn)
        mark = before.formatting if before is not None and same else ""
        examination = await self._formatter.examine(
            device,
            wanted.capability.file_system,
            size=wanted.size,
            content_expected=wanted.content_expected,
            mark=mark,
            volume=wanted.volume,
            # Readers on several nodes write nothing; the only one has the kernel do it.
            replay=not (wanted.read_only and wanted.capability.mode.multi_node),
        )
        if examination.state is State.READY:
            found = examination.inspection.superblock
            return found.uuid if found is not None else ""
        await self._require_never_formatted(wanted, before)
        if wanted.read_only:
            raise FailedPrecondition(
                "it has no file system yet and is asked for read-only; it is not formatted",
                volume=wanted.volume,
                advice="use it writable once first",
            )
        if wanted.generation is not None and wanted.generation > 1:
            log.warning(
                "formatting a volume that was handed over before; if it held data, the RDS has "
                "lost or remade its file: stop its pods and look at it there",
                volume=wanted.volume,
                generation=wanted.generation,
                device=str(device.path),
            )
        # An xfs that mkfs left half made is known by the first mark's UUID: that one stays.
        uuid = mark or str(uuid4())
        await self._store.write(replace(wanted.record(), formatting=uuid))
        await self._formatter.make(
            device,
            wanted.capability.file_system,
            examination,
            uuid=uuid,
            volume=wanted.volume,
            newest=wanted.newest_features,
        )
        return uuid

    async def grow(self, wanted: Stage, device: Device, mount: Mount) -> None:
        """Grow the mounted file system to its device; that it fails is noted, and no failure.

        It is usable at its old size, and a stage that failed for this would fail for ever. The
        next stage and each NodeExpandVolume try again. What is no matter of growth, as a device
        that is not the volume's any more, is raised.
        """
        try:
            await self._grower.grow(device, mount, volume=wanted.volume)
        except (Internal, CommandTimeout) as error:
            # A tool may have failed because the device went away under it.
            self._devices.prove(device, volume=wanted.volume)
            log.warning("used at its old size", volume=wanted.volume, error=str(error))
            await self._note(wanted.volume, error.what)
        else:
            await self._note(wanted.volume, "")

    async def _note(self, volume: str, ungrown: str) -> None:
        record = await self._store.read(volume)
        if record is not None and record.ungrown != ungrown[:_LONGEST]:
            await self._store.write(replace(record, ungrown=ungrown[:_LONGEST]))

    async def _require_never_formatted(self, wanted: Stage, before: StagedVolume | None) -> None:
        fs_type = wanted.formatted or (_on_record(before) if before is not None else "")
        if not fs_type:
            return
        if before is not None and before.lost != fs_type:
            await self._store.write(replace(before, lost=fs_type))
        raise FailedPrecondition(
            f"it had a file system ({fs_type}) and has none any more: the RDS has lost or remade "
            "its file; it is not formatted",
            volume=wanted.volume,
            advice="look at its file on the RDS and restore it; if nobody needs the content, "
            "delete the volume and create a new one",
        )


def _on_record(before: StagedVolume) -> str:
    """The file system that was on the volume, as far as this node knows; else empty."""
    return before.lost or (before.fs_type if before.staged and not before.formatting else "")
