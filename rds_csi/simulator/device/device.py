"""The device: disks over files over pools, exports, and what changes them."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

import structlog

from rds_csi.simulator.device import texts
from rds_csi.simulator.device.export import Export, Exporter
from rds_csi.simulator.device.faults import Faults, Quirks
from rds_csi.simulator.device.files import Files, normalise
from rds_csi.simulator.device.properties import BY_NAME
from rds_csi.simulator.device.store import Disk, Pool, Store
from rds_csi.simulator.language.grammar import Version
from rds_csi.simulator.language.interpreter import Function
from rds_csi.simulator.language.values import Id, RuntimeFault, Value, text_of, to_text

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What kind of device this is."""

    version: Version = (7, 24)
    version_text: str = "7.24.2 (stable)"
    board: str = "RDS2216-2XG-4S+4XS-2XQ"
    rose_storage: bool = True
    """Whether the rose-storage package is there; without it the NVMe/TCP properties are unknown."""


class Device:
    """One RDS. Its methods are what the menus, the faults and the Python interface share."""

    def __init__(
        self, root: Path, settings: Settings, quirks: Quirks, faults: Faults, exporter: Exporter
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.quirks = quirks
        self.faults = faults
        self.exporter = exporter
        self.store = Store(root)
        self.files = Files(root, self.store, quirks, look=self._count_discarded)
        self.globals: dict[str, Value | Function] = {}
        self.hazards: list[str] = []
        """What a real device would have let happen, and no client should ever risk."""
        self._started = 0.0
        self._waiting: list[int] = []
        """The disks whose exports are still to come up, in their order."""
        self._coming: asyncio.Task[None] | None = None

    @property
    def uptime(self) -> int:
        """Seconds since the device booted."""
        return int(asyncio.get_running_loop().time() - self._started)

    async def boot(self) -> None:
        """Come up: count the boot, and begin to export what is set to be exported."""
        self._started = asyncio.get_running_loop().time()
        self.store.boots += 1
        self.store.dirty = True
        self.files.recount()
        await self.exporter.start(self.store.boots)
        for disk in self.store.disks.values():
            self._recognise(disk)
        await self.bring_up_exports()
        self.store.save()

    async def shut_down(self) -> None:
        """Go down: all exports end."""
        await self._leave_exports()
        await self.exporter.stop()
        self._count_discarded()

    async def bring_up_exports(self) -> None:
        """Export what is set to be and is not: the first now, the others one by one.

        How far apart is the quirk ``export-spacing``; :attr:`waiting` says which are to come.
        """
        await self._leave_exports()
        self._waiting = [
            disk.id
            for disk in self.store.disks.values()
            if self._wanted(disk) and disk.id not in self.exporter.exports
        ]
        await self._next_export()
        if self.quirks.export_spacing:
            self._coming = asyncio.create_task(self._later_exports())
        else:
            while await self._next_export():
                pass

    async def exports_up(self) -> None:
        """Return once none is to come any more."""
        if self._coming is not None:
            await asyncio.wait([self._coming])

    @property
    def waiting(self) -> list[str]:
        """The slots whose exports are still to come up."""
        return [self.store.disks[number].slot for number in self._waiting]

    async def _later_exports(self) -> None:
        more = True
        while more:
            await asyncio.sleep(self.quirks.export_spacing)
            more = await self._next_export()

    async def _next_export(self) -> bool:
        """Make the next of the exports that wait; whether there was one."""
        while self._waiting:
            disk = self.store.disks[self._waiting.pop(0)]
            try:
                await self.sync_export(disk)
            except RuntimeFault as fault:
                log.warning("export does not come up", slot=to_text(disk.slot), why=str(fault))
            if disk.id in self.exporter.exports:
                return True
        return False

    async def _leave_exports(self) -> None:
        task, self._coming = self._coming, None
        self._waiting = []
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # Looking up

    def visible(self, disk: Disk) -> bool:
        """Whether listings show it yet."""
        return disk.visible_from <= asyncio.get_running_loop().time()

    def resolve(self, reference: Value) -> Disk | Pool:
        """The disk of an id or a slot name. Raises "no such item"."""
        if isinstance(reference, Id):
            try:
                number = int(reference.text.lstrip("*"), 16)
            except ValueError:
                number = -1
            found = self.store.disks.get(number) or self.store.pools.get(number)
        else:
            found = self.store.by_slot.get(text_of(reference))
        if found is None:
            raise RuntimeFault(texts.NO_SUCH_ITEM)
        return found

    def shown_size(self, disk: Disk) -> int | None:
        """The size that listings show: none, or 0, while the file is out of reach."""
        pool = self.store.pool_of(name := normalise(text_of(disk.properties["file-path"])))
        if self.quirks.size_without_file == "kept" or (
            (pool is None or pool.mounted) and self.files.exists(name)
        ):
            return disk.size
        return 0 if self.quirks.size_without_file == "zero" else None

    # Changing

    async def add_disk(self, given: dict[str, Value]) -> Disk:
        """A new entry of ``/disk``; ``given`` holds checked values."""
        slot = text_of(given.pop("slot", "")) or self._free_slot(text_of(given.get("type")))
        self._check_slot(slot)
        kind = text_of(given.pop("type", "hardware"))
        if kind != "file":
            raise RuntimeFault(texts.bad_enum("type"))
        if "file-path" not in given:
            raise RuntimeFault("missing value(s) of argument(s) file-path")
        self._check_compress(given)
        name = normalise(text_of(given["file-path"]))
        given["file-path"] = "/" + name
        wanted = given.pop("file-size", None)
        if isinstance(wanted, int):
            if self.files.exists(name):
                self._hazard(f"file {to_text(name)} existed already and was taken over as it was")
            self.files.create(name, wanted)
        disk = Disk(self.store.new_id(), kind, slot, self.files.size(name), given)
        disk.visible_from = asyncio.get_running_loop().time() + self.quirks.lag
        self.store.add_disk(disk)
        self._recognise(disk)
        try:
            await self.sync_export(disk)
        except RuntimeFault:
            self.store.remove_disk(disk)
            raise
        return disk

    async def change_disk(self, disk: Disk | Pool, given: dict[str, Value]) -> None:
        """Set properties of an entry; ``given`` holds checked values."""
        if isinstance(disk, Pool):
            if set(given) - {"comment"}:
                raise RuntimeFault(texts.POOL_FIXED)
            disk.comment = text_of(given.get("comment", disk.comment))
            self.store.dirty = True
            return
        if given.get("type", disk.type) != disk.type:
            raise RuntimeFault(texts.TYPE_FIXED)
        self._check_compress(given)
        self._check_name(disk, given)
        if "file-path" in given:
            given["file-path"] = "/" + normalise(text_of(given["file-path"]))
        if "slot" in given:
            slot = text_of(given.pop("slot"))
            if slot != disk.slot:
                self._check_slot(slot)
                self.store.rename(disk, slot)
        size = given.pop("file-size", None)
        if isinstance(size, int):
            await self._resize(disk, size)
        before = dict(disk.properties)
        disk.properties.update(given)
        self.store.dirty = True
        try:
            await self.sync_export(disk)
        except RuntimeFault:
            disk.properties = before
            raise

    async def remove_disk(self, disk: Disk | Pool) -> None:
        """Forget an entry. Its file stays."""
        if isinstance(disk, Pool):
            raise RuntimeFault(texts.POOL_FIXED)
        self._leave(disk)
        await self.exporter.unexport(disk.id)
        self._count_discarded()
        self.store.remove_disk(disk)

    def file_system(self, disk: Disk) -> str:
        """What ``fs`` shows: the file system that the device found when it looked last."""
        if self.quirks.recognise == "always":
            self._recognise(disk)
        return disk.fs

    def mounted(self, disk: Disk) -> bool:
        """Whether the device itself has mounted the file system in it."""
        return bool(self.file_system(disk)) and self.property(disk, "mount-filesystem") is True

    def _recognise(self, disk: Disk) -> None:
        disk.fs = self.files.file_system(normalise(text_of(disk.properties["file-path"])))

    async def _resize(self, disk: Disk, size: int) -> None:
        match self.quirks.resize:
            case "ignored":
                return
            case "needs-unexport" if disk.properties.get("nvme-tcp-export") is True:
                raise RuntimeFault(texts.RESIZE_EXPORTED)
        if size < disk.size:
            self._hazard(f"disk {to_text(disk.slot)} was shrunk from {disk.size} to {size} bytes")
        self.files.resize(normalise(text_of(disk.properties["file-path"])), size)
        disk.size = size
        if self.quirks.growth == "announced":
            await self.exporter.announce(disk.id)

    def _count_discarded(self) -> None:
        """Note what hosts discarded: it is a hole in the file by now."""
        for disk in self.store.disks.values():
            if count := self.exporter.discarded(disk.id):
                self.files.punched(normalise(text_of(disk.properties["file-path"])), count)

    def _check_name(self, disk: Disk, given: dict[str, Value]) -> None:
        """Refuse another NQN, or forget that it was asked for, where the device does that."""
        before = text_of(self.property(disk, "nvme-tcp-server-nqn"))
        if text_of(given.get("nvme-tcp-server-nqn", before)) == before:
            return
        match self.quirks.rename:
            case "ignored":
                del given["nvme-tcp-server-nqn"]
            case "refused":
                raise RuntimeFault(texts.RENAME_EXPORTED)
            case "closed" if disk.id in self.exporter.exports:
                raise RuntimeFault(texts.RENAME_EXPORTED)

    def _check_slot(self, slot: str) -> None:
        if self.quirks.slot_limit and len(slot) > self.quirks.slot_limit:
            raise RuntimeFault(texts.SLOT_TOO_LONG)
        if slot in self.store.by_slot:
            raise RuntimeFault(texts.ALREADY_EXISTS)

    def _free_slot(self, kind: str) -> str:
        number = 1
        while f"{kind}{number}" in self.store.by_slot:
            number += 1
        return f"{kind}{number}"

    @staticmethod
    def _check_compress(given: dict[str, Value]) -> None:
        if given.get("compress") is True:
            raise RuntimeFault(texts.COMPRESS)

    def _hazard(self, what: str) -> None:
        if what not in self.hazards:
            log.warning("hazard", what=what)
            self.hazards.append(what)

    # Exports

    def property(self, disk: Disk, name: str) -> Value:
        """A settable property's value, or its default."""
        return disk.properties.get(name, BY_NAME[name].default)

    def _wanted(self, disk: Disk) -> bool:
        """Whether it is set to be exported."""
        on, off = (self.property(disk, name) is True for name in ("nvme-tcp-export", "disabled"))
        return on and not off

    def _leave(self, disk: Disk) -> None:
        """It waits no longer for its export to come up."""
        if disk.id in self._waiting:
            self._waiting.remove(disk.id)

    async def sync_export(self, disk: Disk) -> None:
        """Make the export what the properties say, or leave it to its turn after a boot."""
        if not self._wanted(disk):
            self._leave(disk)
            ended = disk.id in self.exporter.exports
            await self.exporter.unexport(disk.id)
            if ended:
                self._recognise(disk)
            return
        if disk.id in self._waiting:
            return
        name = normalise(text_of(disk.properties["file-path"]))
        pool = self.store.pool_of(name)
        if not self.files.exists(name) or (pool and not pool.mounted):
            await self.exporter.unexport(disk.id)
            return
        if self.property(disk, "mount-filesystem") is True:
            self._hazard(f"disk {to_text(disk.slot)} is exported with mount-filesystem=yes")
        export = self._export(disk, name)
        old = self.exporter.exports.get(disk.id)
        await self.exporter.export(export)
        if self.quirks.allow_list_cuts and old and old.hosts != export.hosts:
            await self.exporter.sever(disk.id)

    def _export(self, disk: Disk, name: str) -> Export:
        hosts = to_text(text_of(self.property(disk, "nvme-tcp-server-allow-host-name")))
        return Export(
            disk=disk.id,
            nqn=to_text(text_of(self.property(disk, "nvme-tcp-server-nqn")) or disk.slot),
            path=self.files.path(name),
            port=int(text_of(self.property(disk, "nvme-tcp-server-port"))),
            hosts=tuple(host for host in hosts.split(",") if host),
            seed=self.store.serial if self.quirks.stable_identifiers else "",
        )
