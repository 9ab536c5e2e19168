"""The whole simulator as one object, for use in tests and by the command line."""

import asyncio
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, Self

import asyncssh

from rds_csi.simulator.console import Console
from rds_csi.simulator.device.configfs import prepare
from rds_csi.simulator.device.device import Device, Settings
from rds_csi.simulator.device.export import Bookkeeper, Exporter, Namespace
from rds_csi.simulator.device.faults import Faults, Quirks
from rds_csi.simulator.device.files import normalise
from rds_csi.simulator.device.nvmet import Nvmet
from rds_csi.simulator.device.store import Disk
from rds_csi.simulator.journal import Exec, Journal
from rds_csi.simulator.language.grammar import Version
from rds_csi.simulator.language.interpreter import PromptSignal
from rds_csi.simulator.language.values import RuntimeFault, from_text, text_of, to_text
from rds_csi.simulator.server import Server

TIB: Final = 1024**4
DEFAULT_POOLS: Final[Mapping[str, int]] = {"raid10": 16 * TIB}


def parse_version(text: str) -> Version:
    """``7.24`` or ``7.24.4`` as numbers that compare. Raises ValueError."""
    match = re.match(r"(\d+)\.(\d+)(\.|\s|$)", text)
    if match is None:
        raise ValueError(f"{text!r} is no RouterOS version; expected like 7.24")
    return int(match[1]), int(match[2])


class CannotListen(OSError):
    """The SSH side has no address to serve at: taken, not this machine's, or no address."""


class Simulator:
    """An RDS: ``async with Simulator(...) as rds`` starts it and takes it down again.

    ``root`` holds the files and the state; without one a temporary folder is used, gone at the
    end. ``pools`` maps names to sizes in bytes. ``host_key`` is a private key, made if missing.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        pools: Mapping[str, int] = DEFAULT_POOLS,
        version: str = "7.24.2",
        address: str = "127.0.0.1",
        port: int = 0,
        export: Literal["none", "nvmet"] | Exporter = "none",
        nvme_address: str = "127.0.0.1",
        nvme_port: int = 0,
        host_key: asyncssh.SSHKey | None = None,
        authorized_keys: Iterable[str | bytes | asyncssh.SSHKey] = (),
        quirks: Quirks | None = None,
        rose_storage: bool = True,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="rds-") if root is None else None
        self.root = Path(self._temporary.name) if self._temporary else Path(root or ".").resolve()
        self.address = address
        self._wanted_port = port
        self.quirks = quirks or Quirks()
        self.faults = Faults()
        self.journal = Journal()
        settings = Settings(
            parse_version(version), _version_text(version), rose_storage=rose_storage
        )
        exporter = self._exporter(export, nvme_address, nvme_port)
        self.device = Device(self.root, settings, self.quirks, self.faults, exporter)
        for name, size in pools.items():
            pool = self.device.store.add_pool(from_text(name), size)
            self.device.files.folder(pool)
        self._key = host_key or asyncssh.generate_private_key("ssh-ed25519")
        self._console = Console(self.device)
        self.server = Server(
            self._console,
            self.journal,
            self.faults,
            self.quirks,
            self._key,
        )
        for key in authorized_keys:
            self.authorize(key)

    def _exporter(
        self, export: Literal["none", "nvmet"] | Exporter, address: str, port: int
    ) -> Exporter:
        if export == "none":
            return Bookkeeper()
        if export == "nvmet":
            prepare()
            return Nvmet(self.root, address, port=port)
        return export

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Boot, then listen. Raises :class:`CannotListen`, with no export left behind."""
        await self.device.boot()
        try:
            await self.server.start(self.address, self._wanted_port)
        except OSError as error:
            await self.device.shut_down()
            raise CannotListen(str(error)) from error

    async def stop(self) -> None:
        """Power off; a temporary root folder goes too."""
        await self.server.stop()
        await self.device.shut_down()
        self.device.store.save()
        if self._temporary:
            self._temporary.cleanup()

    # What a client needs

    @property
    def port(self) -> int:
        """The SSH port."""
        return self.server.port

    @property
    def host_key(self) -> asyncssh.SSHKey:
        """The public host key, to be pinned."""
        return self._key.convert_to_public()

    @property
    def host_key_line(self) -> str:
        """The same as text: ``ssh-ed25519 AAAA…``."""
        return self.host_key.export_public_key().decode().strip()

    def authorize(self, key: str | bytes | asyncssh.SSHKey) -> None:
        """Admit a public key."""
        self.server.authorize(key)

    # What a test looks at

    @property
    def disks(self) -> dict[str, Disk]:
        """The entries of ``/disk`` by slot, pools excepted."""
        return {to_text(disk.slot): disk for disk in self.device.store.disks.values()}

    @property
    def exported(self) -> set[str]:
        """The slots that are exported now."""
        slots = {disk.id: slot for slot, disk in self.disks.items()}
        return {slots[number] for number in self.device.exporter.exports if number in slots}

    @property
    def waiting(self) -> set[str]:
        """The slots whose exports are still to come up after a boot."""
        return {to_text(slot) for slot in self.device.waiting}

    @property
    def namespaces(self) -> dict[str, Namespace]:
        """What connected hosts are told of the exports, by slot."""
        slots = {disk.id: slot for slot, disk in self.disks.items()}
        found = self.device.exporter.namespaces
        return {slots[number]: told for number, told in found.items() if number in slots}

    @property
    def files(self) -> dict[str, int | None]:
        """All files and their sizes in bytes; folders have None."""
        return {to_text(entry.name): entry.size for entry in self.device.files.entries()}

    def path(self, name: str) -> Path:
        """The real path of a RouterOS file name. Raises RuntimeFault if it leads astray."""
        return self.device.files.path(normalise(from_text(name)))

    def free(self, pool: str) -> int:
        """Free bytes of a pool."""
        return self.device.files.free(self.device.store.pool_of(from_text(pool)))

    def make_directory(self, name: str) -> None:
        """A folder on a pool (``raid10/csi``), as an administrator would make it beforehand."""
        self.path(name).mkdir(parents=True, exist_ok=True)

    async def run(self, line: str) -> str:
        """Run a line as if it came over SSH, without the network; what it prints."""
        record = self.journal.begin(line)
        try:
            text = await self._console.run(from_text(line), record, width=self.quirks.width)
        except PromptSignal as signal:
            text = signal.prompt
        finally:
            self.journal.end(record)
        record.output = to_text(text)
        return record.output

    def execs(self, since: int = 0) -> list[Exec]:
        """The journal after the ``since``-th exec."""
        return self.journal.since(since)

    # What happens to a device

    def set_version(self, version: str) -> None:
        """Upgrade or downgrade RouterOS, without the reboot."""
        self.device.settings = Settings(parse_version(version), _version_text(version))

    def fill_pool(self, pool: str, *, free: int = 0) -> None:
        """Let something else take the pool's space, so that ``free`` bytes remain."""
        found = self.device.store.pool_of(from_text(pool))
        if found is None:
            raise RuntimeFault(f"no pool {pool}")
        found.filled = 0
        found.filled = max(0, self.device.files.free(found) - free)

    async def unmount_pool(self, pool: str) -> None:
        """The pool does not come up: its files are out of reach and its exports end."""
        await self._set_mounted(pool, mounted=False)

    async def mount_pool(self, pool: str) -> None:
        """The pool is back."""
        await self._set_mounted(pool, mounted=True)

    async def _set_mounted(self, pool: str, *, mounted: bool) -> None:
        found = self.device.store.pool_of(from_text(pool))
        if found is None:
            raise RuntimeFault(f"no pool {pool}")
        found.mounted = mounted
        self.device.files.recount()
        if mounted:
            await self.device.bring_up_exports()
            return
        for disk in self.device.store.disks.values():
            await self.device.sync_export(disk)

    async def reboot(self, down: float = 0.0) -> None:
        """Connections break, exports vanish; after ``down`` seconds SSH and an export are back.

        The other exports come one by one (quirk ``export-spacing``).
        """
        await self.server.stop()
        await self.device.shut_down()
        self.device.globals.clear()
        await asyncio.sleep(down)
        await self.device.boot()
        await self.server.start(self.address, self._wanted_port)

    def discard(self, slot: str, offset: int, length: int) -> None:
        """Do what the target does when a host discards a part of a disk: punch a hole."""
        disk = self.disks[slot]
        name = normalise(text_of(disk.properties["file-path"]))
        self.device.files.punch(name, offset, length)

    async def exports_up(self) -> None:
        """Return once no export is to come up any more."""
        await self.device.exports_up()

    async def cut(self, slot: str | None = None) -> None:
        """Break the data path of one disk, or of all; SSH goes on."""
        await self.device.exporter.cut(self.disks[slot].id if slot else None)

    async def restore(self, slot: str | None = None) -> None:
        """Mend the data path."""
        await self.device.exporter.restore(self.disks[slot].id if slot else None)


def _version_text(version: str) -> str:
    return version if " " in version else f"{version} (stable)"
