"""The ownership records on the RDS: adopted, changed by compare-and-set, never guessed.

What is remembered here of a volume is only the RDS's last answer. It saves the read before a
compare-and-set; the RDS decides whether it still holds.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from rds_csi.errors import (
    ConcurrentChange,
    MadeForOther,
    NotOurs,
    RecordFull,
    VolumeInUse,
    VolumeMismatch,
)
from rds_csi.model.host_identity import host_identity
from rds_csi.model.record import Record
from rds_csi.model.volume import export_nqn, is_legacy_id, read_nqn
from rds_csi.routeros import Disk, Disks
from rds_csi.runtime.clock import Clock

log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 5
"""How often a compare-and-set is repeated when somebody else was faster."""
_REMEMBERED: Final = 4096


class Records:
    """The records of our volumes, over a ``Disks`` backend."""

    def __init__(
        self, disks: Disks, owner: str, cluster_id: str, clock: Clock, *, nqn_prefix: str = ""
    ) -> None:
        """``nqn_prefix`` begins the names that exports get; empty: they keep those they have."""
        self._disks = disks
        self._owner = owner
        self._cluster_id = cluster_id
        self._clock = clock
        self._nqn_prefix = nqn_prefix
        self._known: OrderedDict[str, Disk] = OrderedDict()

    def remember(self, disk: Disk) -> None:
        """Keep the RDS's answer for the next change."""
        self._known[disk.slot] = disk
        self._known.move_to_end(disk.slot)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def forget(self, slot: str) -> None:
        """Drop what was remembered: the volume is about to go."""
        self._known.pop(slot, None)

    async def change(self, slot: str, change: Callable[[Record], Record]) -> Disk:
        """Write ``change`` of the record back, and open or close the export accordingly.

        A refusal by ``change``, and that there is nothing to change, is only believed of a state
        just read: what is remembered may be outdated. What is written anyway tells as well which
        file system the RDS shows in the volume.

        Raises what ``change`` raises, :class:`NotOurs`, :class:`VolumeNotFound`, and
        :class:`ConcurrentChange` when others were faster every time.
        """
        disk = self._known.get(slot)
        fresh = disk is None
        if disk is None:
            disk = await self._disks.get(slot)
        for _ in range(_ATTEMPTS):
            try:
                record = self._as_named(disk, change(self._record(disk)))
            except (MadeForOther, NotOurs, RecordFull, VolumeInUse, VolumeMismatch):
                if fresh:
                    raise
                disk, fresh = await self._disks.get(slot), True
                continue
            if self._stands(disk, record):
                if fresh:
                    self.remember(disk)
                    return disk
                disk, fresh = await self._disks.get(slot), True
                continue
            try:
                return await self._write(disk, record.seen(disk.file_system))
            except ConcurrentChange as conflict:
                if not isinstance(conflict.disk, Disk):
                    raise
                disk, fresh = conflict.disk, True
        raise ConcurrentChange(
            f"its record changed under each of {_ATTEMPTS} attempts to write it",
            volume=slot,
            advice="does another controller run for this cluster id?",
        )

    def _stands(self, disk: Disk, record: Record) -> bool:
        """Whether there is nothing to write."""
        return (
            disk.comment == record.encode()
            and disk.exported == bool(record.nodes)
            and disk.allowed_host == self._allowed_host(record)
            and not (disk.exported and disk.mountable)
        )

    async def _write(self, disk: Disk, record: Record) -> Disk:
        # Forgotten first: should this be cut off, nobody knows what stands there now.
        self.forget(disk.slot)
        nqn = self._new_name(disk, record)
        if nqn:
            log.info("the export gets a new name", volume=disk.slot, nqn=nqn, before=disk.nqn)
        changed = await self._disks.change(
            disk.slot,
            disk.comment,
            record,
            exported=bool(record.nodes),
            allowed_host=self._allowed_host(record),
            opens=bool(record.nodes) and not disk.exported,
            nqn=nqn,
        )
        self.remember(changed)
        return changed

    def _record(self, disk: Disk) -> Record:
        """The volume's record; one made new for a volume of the Go driver, which has none."""
        if disk.record is not None and disk.record.owner == self._owner:
            return disk.record
        if disk.record is None and not disk.comment and is_legacy_id(disk.slot):
            log.info("adopting a volume of the Go driver", volume=disk.slot)
            adopted = Record(
                owner=self._owner, name=disk.slot, created=int(self._clock.now()), access=""
            )
            return adopted.seen(disk.file_system)
        raise NotOurs(
            f"its record on the RDS is not ours: {disk.comment[:200]!r}",
            volume=disk.slot,
            advice=f"ours begins with owner {self._owner!r}; see --cluster-id",
        )

    def _as_named(self, disk: Disk, record: Record) -> Record:
        """The record, mapped only where healers will know the export again by its name."""
        name = read_nqn(self._new_name(disk, record) or disk.nqn)
        known = name is not None and 0 < name.generation == record.generation
        return record if known else replace(record, mapped=False)

    def _new_name(self, disk: Disk, record: Record) -> str:
        """The name by which the volume is handed over; empty where the export keeps its own.

        Only the first holder after there was none is told a new name. Whoever has the volume
        knows the one it has, plain from before exports had generations or not, and so may nodes
        of the Go driver, which leaves no record and every export open.
        """
        before = disk.record.generation if disk.record is not None else 0
        if not self._nqn_prefix or record.generation == before:
            return ""
        if disk.record is None and disk.exported:
            return ""
        return export_nqn(self._nqn_prefix, disk.slot, record.generation)

    def _allowed_host(self, record: Record) -> str:
        """Whom the export is restricted to; RouterOS documents no way to name several hosts."""
        if not record.fencing or len(record.nodes) != 1:
            return ""
        return host_identity(self._cluster_id, record.nodes[0].node).nqn
