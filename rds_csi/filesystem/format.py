"""Making a file system, and the proof that has to come before.

Only what is proven blank is formatted. "No signature found" is no such proof: ``blkid`` says
it also of a device that it cannot read, and data needs no signature. So all of this must hold:

* every sample of the device reads as zeros (:mod:`rds_csi.filesystem.probe`), past the page
  cache, and none fails to be read;
* ``blkid -p``, asked about these very bytes and not about a device that may fail meanwhile,
  ends with status 2 and prints nothing;
* the device is not smaller than the volume is expected to be (it may have grown since);
* the volume was not made from a snapshot or another volume;
* ``mkfs`` starts on the very device that was looked at, with its content still the same. Its
  NQN says which one it is: blank devices of one size have the same content.

An interrupted ``mkfs`` leaves a device that is not blank and holds nothing. It is recognised by
a mark on the node, which carries the UUID of the file system to be made. The mark is written
durably before ``mkfs`` starts and removed durably before the first mount. A mark may outlive
its volume's next user on another node, so it proves nothing alone: a file system whose ``mkfs``
*finished* is never formatted again, mark or no mark, and whatever ``blkid`` says. That is seen
in the first superblock, by our own direct read:

* ext4: ``mke2fs`` clears the old signature first and writes the primary superblock last, after
  an fsync. One with its magic number is finished.
* xfs: ``mkfs.xfs`` sets ``sb_inprogress`` in its first superblock and clears it with its last
  write; the kernel does not mount such a file system, so no data can be in it. The UUID in it
  must be that of the mark.

Our own half begins with 2 KiB of zeros (the place of a boot record and of that superblock), or
with the superblock of an unfinished xfs; every copy of a superblock in it has the mark's UUID.
Anything else is somebody's data, the mark notwithstanding.

No file system is checked (``fsck``) before it is mounted. A journal left by a crash is replayed
by the kernel; a checker that finds a dirty journal only reports errors that are none. Damage
beyond that is a person's decision, so a mount that fails says what to do and nothing is changed.
Readers on several nodes mount without that replay, which would write: what was written last
would be missing in silence, so they are refused until the volume was used writable once.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

import structlog

from rds_csi.errors import CommandFailed, FailedPrecondition, Internal, NotBlank
from rds_csi.filesystem.devices import BlockDevices, Inspection, Superblock
from rds_csi.filesystem.mkfs import mkfs_arguments
from rds_csi.model.block_device import Device
from rds_csi.model.volume import MIB

log = structlog.get_logger(__name__)

_MKFS_TIMEOUT: Final = 600.0
"""Seconds. The call's own deadline is nearly always shorter."""
_NOTHING_FOUND: Final = 2
_HEAD: Final = 2048
"""Bytes that no mkfs of ours leaves other than zero before it has finished."""
_NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
_MINIMUM_XFS: Final = 300 * MIB
"""mkfs.xfs makes none smaller since xfsprogs 5.19."""


class State(Enum):
    """What a device was proven to hold: the file system wanted, nothing, or our own ruin."""

    READY = "ready"
    BLANK = "blank"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Signature:
    """What ``blkid`` recognised: its ``TYPE``, ``UUID`` and partition table type, or empty."""

    type: str = ""
    uuid: str = ""
    partitions: str = ""

    def __bool__(self) -> bool:
        return bool(self.type or self.partitions)

    def __str__(self) -> str:
        parts = [self.type] if self.type else []
        if self.partitions:
            parts.append(f"a partition table ({self.partitions})")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Examination:
    """The verdict about a device, and what it rests on."""

    state: State
    inspection: Inspection


class Formatter:
    """Looks at devices and makes file systems on them."""

    def __init__(self, devices: BlockDevices) -> None:
        self._devices = devices

    async def examine(
        self,
        device: Device,
        fs_type: str,
        *,
        size: int | None,
        content_expected: bool,
        mark: str,
        volume: str,
        replay: bool = True,
    ) -> Examination:
        """Whether the device holds the file system wanted, or may be formatted.

        ``size`` in bytes is what the device must have at least to be formatted (None: not known,
        so it is not). ``mark`` is the UUID from the mark of an interrupted format, or empty.
        ``replay``: the mount to come replays the journal, where the device takes writes.

        Raises :class:`NotBlank`, saying what was found, for anything else, and
        :class:`FailedPrecondition` for a journal that would have to be replayed and is not.
        """
        replay = replay and not self._devices.read_only(device.devno)
        inspection = await self._inspect(device, volume, log=not replay)
        signature = signature_of(device, inspection, volume)
        if signature and signature.type != fs_type:
            raise NotBlank(
                f"{device.path} holds {signature}, not {fs_type}; it was not touched",
                volume=volume,
                advice="if nobody needs the content, delete the volume and create a new one",
            )
        superblock = inspection.superblock
        if superblock is not None and superblock.finished:
            _require_recognised(device, signature, superblock, volume)
            if superblock.replay and not replay:
                raise FailedPrecondition(
                    f"the journal of the {fs_type} on {device.path} has not been replayed since "
                    "a crash, and this reader cannot do it: it would show old data",
                    volume=volume,
                    advice="use it writable once first",
                )
            return Examination(State.READY, inspection)
        state = _emptiness(device, signature, inspection, mark, volume)
        if content_expected:
            raise NotBlank(
                f"{device.path} is blank, although the volume was made from a source",
                volume=volume,
            )
        _require_size(device, fs_type, inspection.size, size, volume)
        return Examination(state, inspection)

    async def make(
        self,
        device: Device,
        fs_type: str,
        examination: Examination,
        *,
        uuid: str,
        volume: str,
        newest: bool = False,
    ) -> None:
        """Make the file system; the mark with ``uuid`` must be written already.

        ``newest``: with what this ``mkfs`` makes, else with what Linux 5.10 mounts.

        Raises :class:`NotBlank` where the device changed since it was examined,
        :class:`Internal` where ``mkfs`` did not leave what it should.
        """
        if examination.state is State.READY:
            raise Internal("not examined, or not to be formatted", volume=volume)
        log.info(
            "formatting", volume=volume, device=str(device.path), fs_type=fs_type,
            state=examination.state.value,
        )  # fmt: skip
        pinned_xfs = fs_type == "xfs" and not newest
        command = mkfs_arguments(
            fs_type,
            str(device.path),
            uuid=uuid,
            again=examination.state is State.UNFINISHED,
            usage=await self._devices.usage("mkfs.xfs", volume=volume) if pinned_xfs else "",
            newest=newest,
        )
        try:
            await self._devices.run_on(
                device,
                command,
                digest=examination.inspection.digest,
                timeout=_MKFS_TIMEOUT,
                volume=volume,
            )
        except CommandFailed as error:
            raise Internal(
                f"{fs_type} could not be made on {device.path}: "
                f"{error.stderr.strip()[:500] or error.what}",
                volume=volume,
                advice="the next call tries again",
            ) from error
        made = (await self._inspect(device, volume)).superblock
        if made is None or (made.uuid, made.finished) != (uuid, True):
            raise Internal(
                f"mkfs.{fs_type} reported success, but {device.path} holds {made or 'nothing'}",
                volume=volume,
            )

    async def _inspect(self, device: Device, volume: str, *, log: bool = False) -> Inspection:
        try:
            return await self._devices.inspect(device, log=log, volume=volume)
        except CommandFailed as error:
            raise NotBlank(
                f"{device.path} cannot be read, so it is not taken for blank: "
                f"{error.stderr.strip()[:300]}",
                volume=volume,
            ) from error


def signature_of(device: Device, inspection: Inspection, volume: str) -> Signature:
    """What ``blkid`` recognised in what was read.

    Raises :class:`NotBlank` where it cannot tell: more than one thing, or an error.
    """
    result = inspection.blkid
    if result.returncode == _NOTHING_FOUND and not result.stdout.strip():
        return Signature()
    pairs = dict(line.partition("=")[::2] for line in result.stdout.splitlines())
    found = Signature(pairs.get("TYPE", ""), pairs.get("UUID", ""), pairs.get("PTTYPE", ""))
    if result.returncode != 0 or not found:
        raise NotBlank(
            f"blkid cannot tell what is on {device.path} (status {result.returncode}): "
            f"{(result.stderr or result.stdout).strip()[:300] or 'no output'}",
            volume=volume,
        )
    return found


def _require_recognised(
    device: Device, signature: Signature, superblock: Superblock, volume: str
) -> None:
    """Raise :class:`NotBlank` unless ``blkid`` sees the file system that our own read shows."""
    if (signature.uuid or _NO_UUID) != superblock.uuid:
        raise NotBlank(
            f"{device.path} holds a finished {superblock.family} file system, in which blkid sees "
            f"{signature or 'nothing'}; it was not touched",
            volume=volume,
            advice="it may be damaged: look at it with dumpe2fs or xfs_db",
        )


def _emptiness(
    device: Device, signature: Signature, inspection: Inspection, mark: str, volume: str
) -> State:
    """Why it can be formatted as for its content; raises :class:`NotBlank` if it cannot."""
    if not signature and inspection.data is None:
        return State.BLANK
    if mark and _is_half(inspection, signature, mark):
        return State.UNFINISHED
    if inspection.unfinished is not None:
        raise NotBlank(
            f"{device.path} holds an xfs whose mkfs was interrupted, not by this node",
            volume=volume,
            advice="no data can be in it: delete the volume and create a new one",
        )
    raise NotBlank(
        f"{device.path} holds data (at byte {inspection.data}) that no signature explains; "
        "it was not touched",
        volume=volume,
        advice="if nobody needs the content, delete the volume and create a new one",
    )


def _is_half(inspection: Inspection, signature: Signature, mark: str) -> bool:
    """Whether all that is there may come from the interrupted mkfs that the mark is of."""
    if inspection.foreign or not set(inspection.copies) <= {mark}:
        return False
    if inspection.unfinished is not None:
        return inspection.unfinished == mark
    return not signature and (inspection.data or 0) >= _HEAD


def _require_size(device: Device, fs_type: str, found: int, size: int | None, volume: str) -> None:
    if size is None:
        raise NotBlank(
            f"{device.path} is not formatted, because the size it should have is not known",
            volume=volume,
            advice="the PublishContext has no size: was it made by this driver's controller?",
        )
    if found < size:
        raise NotBlank(
            f"{device.path} has {found} bytes instead of {size}; it is not formatted",
            volume=volume,
            advice="the RDS exports something else under this name, or less than was made",
        )
    if fs_type == "xfs" and found < _MINIMUM_XFS:
        raise NotBlank(
            f"xfs needs at least {_MINIMUM_XFS // MIB} MiB, the volume has {found} bytes",
            volume=volume,
            advice="create a larger volume, or use ext4",
        )
