"""Volumes of the doctor's own on an RDS, and the round trip that every volume makes.

They are made and removed by the driver's own backend, under an owner of their own: no controller
lists, touches or deletes them, and what a doctor that was killed left behind is known by its
record and by the name of its file.

Proven in ``tests/rds/test_doctor_write.py``.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from rds_csi.config import ControllerConfig, DriverConfig
from rds_csi.doctor.check import Checks
from rds_csi.doctor.node.checks import Address, check_nvme
from rds_csi.doctor.rds.initiator import Initiator, TargetError, connected
from rds_csi.errors import DriverError, RouterOSError, VolumeNotFound
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record, owner_tag
from rds_csi.model.volume import MINIMUM_SIZE
from rds_csi.routeros import Disk, Disks, Session
from rds_csi.routeros.inventory import SCRATCH, Inventory
from rds_csi.routeros.trials import Volume

T = TypeVar("T")
HOSTS: Final = (
    "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001",
    "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000002",
)
"""Nobody's host NQNs."""
STALE: Final = 3600
"""Seconds after which a scratch volume belongs to no doctor that still runs."""
_NODE: Final = "doctor"


def scratch_owner(shared: DriverConfig) -> str:
    """Whose the scratch volumes are: nobody's whom a controller knows."""
    return f"{shared.owner}/doctor"


@dataclass(slots=True)
class Bench:
    """Where scratch volumes are made. ``left`` names those that could not be removed.

    ``data_address``: where their exports are connected; the first of the settings, until another
    was seen to answer.
    """

    session: Session
    shared: DriverConfig
    controller: ControllerConfig
    disks: Disks = field(init=False)
    inventory: Inventory = field(init=False)
    data_address: str = field(init=False)
    left: list[str] = field(default_factory=list)
    _under_way: set[asyncio.Future[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """The backend, under the scratch owner."""
        self.data_address = self.controller.defaults.nvme_addresses[0]
        self.inventory = Inventory(self.session)
        self.disks = Disks(
            self.session,
            owner=scratch_owner(self.shared),
            base_path=self.controller.defaults.volume_path,
            reserve=self.controller.reserve,
        )

    def plan(self, slot: str = "") -> Volume:
        """A volume that is not there yet; without a slot, under a new one."""
        slot = slot or f"doctor-{secrets.token_hex(12)}"
        owner, base = scratch_owner(self.shared), self.controller.defaults.volume_path
        # A slot of the Go driver's form names its file alone; see ``fragments.require_own_file``.
        tag = f"-{owner_tag(owner)}" if SCRATCH.fullmatch(slot) else ""
        record = Record(
            owner=owner,
            name="scratch volume of rds-csi doctor",
            created=int(time.time()),
            access="block",
        )
        return Volume(slot, f"{base}/{slot}{tag}.img", self.shared.nqn(slot), record, base)

    @asynccontextmanager
    async def clean(self, volume: Volume) -> AsyncIterator[None]:
        """Whatever happens inside, cancellation too, remove the volume and see that it is gone."""
        try:
            yield
        finally:
            removing = asyncio.ensure_future(self._remove_last(volume.slot))
            try:
                await asyncio.shield(removing)
            finally:
                await asyncio.wait([removing])

    async def run(self, change: Coroutine[Any, Any, T]) -> T:
        """Await a change to its end, also when the caller leaves: what it makes is then removed."""
        task = asyncio.ensure_future(change)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _remove_last(self, slot: str) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self.remove(slot)

    @asynccontextmanager
    async def volume(self, size: int = MINIMUM_SIZE) -> AsyncIterator[Volume]:
        """A scratch volume while the block runs."""
        volume = self.plan()
        async with self.clean(volume):
            await self.create(volume, size)
            yield volume

    async def create(self, volume: Volume, size: int = MINIMUM_SIZE) -> Disk:
        """Make it, not exported."""
        disk, _ = await self.run(
            self.disks.create(
                slot=volume.slot,
                size=size,
                file_path=volume.file_path,
                nqn=volume.nqn,
                port=self.controller.defaults.nvme_port,
                record=volume.record,
            )
        )
        return disk

    async def export(self, volume: Volume, *, exported: bool) -> Disk:
        """Open or close its export, as publishing to a node does, and unpublishing."""
        published = volume.record.with_node(
            Publication(_NODE, AccessMode.SINGLE_NODE_WRITER, readonly=False)
        )
        before, after = (volume.record, published) if exported else (published, volume.record)
        return await self.run(
            self.disks.change(volume.slot, before.encode(), after, exported=exported)
        )

    def connection(
        self, volume: Volume, host: str = HOSTS[0]
    ) -> AbstractAsyncContextManager[Initiator]:
        """A connection to its export, as that host. Raises :class:`TargetError`."""
        port = self.controller.defaults.nvme_port
        return connected(self.data_address, port, volume.nqn, host)

    async def remove(self, slot: str) -> None:
        """Remove disk and file; what stays is noted in ``left``, never raised."""
        try:
            await self._unpublish(slot)
            await self.disks.delete(slot)
        except DriverError as error:
            self.left.append(f"{slot}: {error}")

    async def _unpublish(self, slot: str) -> None:
        try:
            disk = await self.disks.get(slot)
        except VolumeNotFound:
            return
        if disk.record is not None and disk.record.nodes:
            record = disk.record.without_node("")
            await self.disks.change(slot, disk.comment, record, exported=False)

    async def leftovers(self) -> tuple[list[str], bool]:
        """The slots of scratch volumes that are there; whether another doctor may be at work."""
        disks = await self.disks.list()
        slots = {disk.slot for disk in disks}
        slots.update(await self.inventory.scratch_slots(scratch_owner(self.shared)))
        youngest = max((disk.record.created for disk in disks if disk.record), default=0)
        return sorted(slots), time.time() - youngest < STALE


async def round_trip(checks: Checks, bench: Bench, nvme: tuple[Address, ...]) -> None:
    """A volume's life on the RDS: make, export, read back, reach, close, remove, see it gone."""
    name = "export round trip"
    volume = bench.plan()
    step, started = "make it", time.monotonic()
    try:
        async with bench.clean(volume):
            await bench.create(volume)
            step = "export it"
            await bench.export(volume, exported=True)
            step = "read it back"
            _require(await bench.disks.get(volume.slot), volume, exported=True)
            answers = await check_nvme(checks, nvme, exported=True)
            if answers:
                step = "write to it and read that back over NVMe/TCP"
                await _write_and_read(bench, volume, [address for address, _ in answers])
            step = "close the export"
            await bench.export(volume, exported=False)
            _require(await bench.disks.get(volume.slot), volume, exported=False)
            step = "remove it"
            await bench.disks.delete(volume.slot)
            step = "see that it is gone"
            await _require_gone(volume, bench)
    except (DriverError, TargetError) as error:
        what = error.what if isinstance(error, DriverError) else str(error)
        advice = error.advice if isinstance(error, DriverError) else ""
        checks.fail(
            name,
            f"scratch volume {volume.slot}, could not {step}: {what}",
            advice or "send us the report (--report)",
        )
    else:
        seconds = time.monotonic() - started
        data = "wrote and read a block of it, " if answers else ""
        checks.ok(
            name,
            f"made a scratch volume, exported it, {data}closed and removed it in {seconds:.1f} s",
        )


def _require(disk: Disk, volume: Volume, *, exported: bool) -> None:
    shown = (disk.size, disk.file_path, disk.nqn, disk.exported)
    wanted = (MINIMUM_SIZE, volume.file_path, volume.nqn, exported)
    if shown != wanted:
        raise RouterOSError(f"RouterOS shows {shown} instead of {wanted}", volume=volume.slot)


async def _write_and_read(bench: Bench, volume: Volume, addresses: list[str]) -> None:
    """Write at one address and read that back at each: they have to lead to the same volume."""
    content = secrets.token_bytes(64)
    for address in reversed(addresses):
        bench.data_address = address
        async with bench.connection(volume) as host:
            if (await host.size()).bytes != MINIMUM_SIZE:
                raise TargetError(f"the export has {(await host.size()).bytes} bytes")
            if address == addresses[-1]:
                await host.write(0, content)
            if not (await host.read(0)).startswith(content):
                elsewhere = f" at {addresses[-1]}" if address != addresses[-1] else ""
                raise TargetError(
                    f"a block reads otherwise than it was written{elsewhere}"
                    + (f", when read at {address}: are both the same RDS?" if elsewhere else "")
                )


async def _require_gone(volume: Volume, bench: Bench) -> None:
    try:
        await bench.disks.get(volume.slot)
    except VolumeNotFound:
        pass
    else:
        raise RouterOSError("RouterOS still shows its disk", volume=volume.slot)
    if volume.slot in await bench.inventory.scratch_slots(volume.record.owner):
        raise RouterOSError(f"its file {volume.file_path} is still there", volume=volume.slot)
