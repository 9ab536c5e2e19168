"""The volumes on the RDS: each operation one line of RouterOS, checked, done and read back there.

Every method takes one exec on an established connection. Reads are repeated when the connection
broke; changes never are: they raise :class:`OutcomeUnknown`, and the caller's next call, which
is idempotent, finds out. A lost answer is never "not found".

Proven in ``tests/rds/test_disks.py``, ``tests/rds/test_disks_changes.py``.
Proven in ``tests/rds/test_disks_outages.py``, ``tests/rds/test_disks_races.py``.
"""

import asyncio
import builtins
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from rds_csi.errors import (
    ConcurrentChange,
    FailedPrecondition,
    InvalidRequest,
    NotOurs,
    NotReady,
    OutcomeUnknown,
    PoolAway,
    ReplyTooLong,
    RouterOSError,
    Unavailable,
)
from rds_csi.model.record import Record, owner_prefixes
from rds_csi.routeros import commands
from rds_csi.routeros.answers import (
    about,
    existing,
    files,
    holders,
    left_open,
    legible,
    shown,
    succeeded,
    with_size,
)
from rds_csi.routeros.disk import Capacity, Disk
from rds_csi.routeros.failures import explain, is_locked, refused
from rds_csi.routeros.quoting import check_file_path, check_slot
from rds_csi.routeros.reply import Reply, as_integer
from rds_csi.routeros.session import Session
from rds_csi.routeros.version import System, read_system
from rds_csi.runtime.retry import RetryPolicy, delays, retrying

log = structlog.get_logger(__name__)

READS: Final = RetryPolicy(attempts=3, initial=0.2)
"""Reads are repeated soon and not often: behind them waits a caller who repeats as well."""

_ORDINARY: Final = 1024**2
"""Bytes of a reply that is about one volume or pool; such replies come several at a time."""

TURNS: Final = RetryPolicy(attempts=8, initial=0.2)
"""A change takes a second or two on a slow RDS: so long others wait for their turn."""

_BREATH: Final = 250
"""Items of a long listing read in one go: 10,000 take a second, and others want to run."""


class Disks:
    """The volumes of one owner on one RDS.

    ``owner`` is what stands in the records, ``base_path`` where the Go driver's files lie, and
    ``reserve`` the bytes of the pool that stay free.
    """

    def __init__(
        self,
        session: Session,
        *,
        owner: str,
        base_path: str,
        reserve: int = 0,
        policy: RetryPolicy = READS,
    ) -> None:
        self._session = session
        self._owner = owner
        self._base_path = check_file_path(base_path.strip("/"))
        self._reserve = reserve
        self._policy = policy
        self._one_listing = asyncio.Lock()
        self._writers: dict[str, tuple[asyncio.Lock, int]] = {}

    async def create(
        self, *, slot: str, size: int, file_path: str, nqn: str, port: int, record: Record
    ) -> tuple[Disk, bool]:
        """Make the disk, not exported; or find it. The bool says whether it existed before.

        One that exists is not touched: whether it is what was asked for is the caller's to see.
        Raises :class:`PoolFull`, :class:`NotReady` (pool or directory missing), :class:`NotOurs`
        (the slot is somebody else's), :class:`FailedPrecondition` (a file is in the way): those
        only where the RDS has shown that the volume is not there, for after a final code the
        provisioner forgets it. Else :class:`OutcomeUnknown`, :class:`PoolAway` (there, but out
        of reach), :class:`ConcurrentChange` (another call was faster).
        """
        if len(check_slot(slot)) > 32:
            raise InvalidRequest(f"slot {slot!r} is longer than 32 characters")
        if record.owner != self._owner:
            raise NotOurs(f"a record of {record.owner!r} is not ours to write", volume=slot)
        command = commands.create(
            slot=slot,
            size=size,
            file_path=file_path,
            nqn=nqn,
            port=port,
            record=record,
            reserve=self._reserve,
        )
        # Raises a final code only where RouterOS refused to run the line at all.
        reply = await self._write(slot, command)
        if reply.error is not None:
            directory = file_path.rpartition("/")[0]
            error = explain(reply.error, volume=slot, file=file_path, directory=directory)
            unchanged = refused(reply.error) and not reply.lines
            raise error if unchanged or reply.lines == ("adding", "undone") else left_open(error)
        try:
            return self._made(reply, slot, size)
        except RouterOSError as error:
            raise left_open(error) from error

    def _made(self, reply: Reply, slot: str, size: int) -> tuple[Disk, bool]:
        """The disk that a create left, and whether it existed before.

        Only a foreign one, that stood there before anything was done, ends in a final code.
        """
        disk = shown(reply, slot)
        if disk is None:
            raise OutcomeUnknown("RouterOS does not show the disk just made", volume=slot)
        if not disk.is_of(self._owner, self._base_path) and (
            reply.lines[0] != "disk" or self._names_us(disk)
        ):
            raise OutcomeUnknown(
                f"RouterOS shows the disk just made with {disk.comment[:200]!r} as its record",
                volume=slot,
            )
        self._ours(disk)
        created = reply.has("created")
        if created and 0 < disk.size < size:
            raise OutcomeUnknown(
                f"RouterOS shows {disk.size} of {size} bytes of the disk just made", volume=slot
            )
        return with_size(disk), not created

    def _names_us(self, disk: Disk) -> bool:
        """Whether the comment, of whatever version and however cut, begins as a record of ours."""
        return disk.comment.partition(" ")[2].startswith(
            owner_prefixes(self._owner)[0].partition(" ")[2]
        )

    async def get(self, slot: str) -> Disk:
        """The disk in the slot.

        Raises :class:`VolumeNotFound` only if the RDS answered and has none, :class:`NotOurs`
        if it is somebody else's.
        """
        reply = await self._read(commands.show(slot), slot)
        return self._ours(existing(reply, slot))

    async def list(self) -> list[Disk]:
        """All disks that are ours or may be adopted, in no particular order.

        One listing at a time: two long replies may not fit into memory.
        """
        async with self._one_listing:
            return await self._list()

    async def _list(self) -> builtins.list[Disk]:
        reply = await self._read(commands.listing(self._owner), largest=None)
        found = []
        for number, item in enumerate(reply.each("disks")):
            if number % _BREATH == 0:
                await asyncio.sleep(0)
            disk = legible(item)
            if disk.is_of(self._owner, self._base_path):
                found.append(disk)
        return found

    async def change(
        self,
        slot: str,
        expected: str,
        record: Record,
        *,
        exported: bool,
        allowed_host: str = "",
        opens: bool = False,
        nqn: str = "",
    ) -> Disk:
        """Write record, export and allowed host at once, if the comment still is ``expected``.

        Fine if they stand there already. Raises :class:`ConcurrentChange`, with the disk as it is
        now, if the comment is another one, or somebody wrote at the same time and later; and
        where that ``opens`` the export, :class:`PoolAway` while the disk shows no size. With
        ``nqn`` the export gets that name; :class:`NotReady` where the RDS refuses it.
        """
        if record.owner != self._owner:
            raise NotOurs(f"a record of {record.owner!r} is not ours to write", volume=slot)
        if expected and not expected.startswith(owner_prefixes(self._owner)):
            raise NotOurs(f"the comment {expected[:200]!r} is not ours to replace", volume=slot)
        command = commands.change(
            slot=slot,
            expected=expected,
            record=record,
            exported=exported,
            allowed_host=allowed_host,
            base_path=self._base_path,
            opens=opens,
            nqn=nqn,
        )
        reply = succeeded(await self._write(slot, command), slot)
        disk = self._ours(existing(reply, slot))
        if disk.comment != record.encode():
            raise ConcurrentChange("its record is another one by now", volume=slot, disk=disk)
        disk.require_export(exported, allowed_host, nqn or disk.nqn)
        return disk

    async def expand(self, slot: str, size: int, *, published: bool = True) -> Disk:
        """Grow the disk to at least ``size`` bytes; one that is large enough is left alone.

        Without ``published`` only while no node has it, or all that have it have maps over it, for
        which it is exported anew: else :class:`VolumeInUse`. Raises
        :class:`FailedPrecondition` if RouterOS took the new size but does not show it,
        :class:`PoolAway` where its pool is not mounted.
        """
        command = commands.expand(
            slot=slot,
            size=size,
            owner=self._owner,
            base_path=self._base_path,
            reserve=self._reserve,
            published=published,
        )
        reply = succeeded(await self._write(slot, command), slot)
        try:
            disk = self._ours(existing(reply, slot))
        except RouterOSError as error:
            raise left_open(error) from error
        if not published:
            disk.require_open_to_holders()
        if with_size(disk).size < size:
            raise FailedPrecondition(
                f"RouterOS did not honour the new size: it still shows {disk.size} bytes, "
                f"{size} were asked for",
                volume=slot,
                advice="see the RouterOS release notes on file-size; the data is untouched",
            )
        return disk

    async def delete(self, slot: str) -> None:
        """Remove disk and file, and see that both are gone; fine if they are already.

        Raises :class:`PoolAway` where the pool is not mounted, for then nobody knows of the file,
        :class:`VolumeInUse` while the record names nodes, :class:`NotOurs`,
        :class:`FailedPrecondition` if the file is used by another disk or is not the only one
        of its name.
        """
        command = commands.delete(slot=slot, owner=self._owner, base_path=self._base_path)
        reply = await self._write(slot, command)
        if reply.error is not None:
            raise explain(reply.error, volume=slot, **holders(reply))
        with about(slot):
            left = files(reply)
        if left:
            log.warning("files of a deleted volume's name are left", volume=slot, files=left)

    async def capacity(self, volume_path: str) -> Capacity:
        """The pool that holds the directory.

        Raises :class:`NotReady` if there is none, :class:`PoolAway` if it is not mounted.
        """
        pool = check_file_path(volume_path.strip("/")).partition("/")[0]
        reply = await self._read(commands.capacity(pool))
        items = [*reply.items("mounted"), *reply.items("slot")]
        if not items:
            raise NotReady(f"the RDS has no disk {pool}", advice="see /disk/print and volumePath")
        # The mount point decides: with a template it is not the slot.
        (promised,) = reply.values("promised") or (0,)
        parsed = (Capacity.parse(pool, item, as_integer(promised)) for item in items)
        found = next(filter(None, parsed), None)
        if found is None:
            raise PoolAway(f"the pool {pool} is not mounted on the RDS", advice="see /disk/print")
        return found

    async def system(self) -> System:
        """Version and board, asked anew."""
        return read_system(await self._read(commands.system()))

    async def _read(
        self, command: str, volume: str = "", *, largest: int | None = _ORDINARY
    ) -> Reply:
        async def attempt() -> Reply:
            try:
                reply = await self._session.execute(command, volume=volume, largest=largest)
                return succeeded(reply, volume)
            except ReplyTooLong:
                raise  # it would be as long again
            except OutcomeUnknown as error:
                # Reading changes nothing, so it may be repeated whatever became of it.
                raise Unavailable(error.what, volume=volume, advice=error.advice) from error

        return await retrying(attempt, what="read from the RDS", policy=self._policy)

    async def _write(self, slot: str, command: str) -> Reply:
        """Run a change; wait for its turn where another controller's is running on the RDS.

        Only that is repeated: it is proven that nothing was done.
        """
        waits = delays(TURNS, limit=1.0)
        async with self._writing(slot):
            for _ in range(TURNS.attempts - 1):
                reply = await self._session.execute(command, volume=slot, largest=_ORDINARY)
                if reply.error is None or reply.lines or not is_locked(reply.error):
                    return reply
                await asyncio.sleep(waits.next())
            return await self._session.execute(command, volume=slot, largest=_ORDINARY)

    @asynccontextmanager
    async def _writing(self, slot: str) -> AsyncIterator[None]:
        """One change of a slot at a time, in the order of the calls."""
        lock, users = self._writers.get(slot, (asyncio.Lock(), 0))
        self._writers[slot] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._writers[slot]
            if users == 1:
                del self._writers[slot]
            else:
                self._writers[slot] = (lock, users - 1)

    def _ours(self, disk: Disk) -> Disk:
        if not disk.is_of(self._owner, self._base_path):
            raise NotOurs(
                f"its disk on the RDS carries no record of ours, but {disk.comment[:200]!r}",
                volume=disk.slot,
                advice=f"ours names owner {self._owner!r}",
            )
        return disk
