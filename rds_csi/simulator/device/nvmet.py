"""Real exports through the Linux kernel's NVMe target, so that any Linux host can connect.

One subsystem per exported disk with namespace 1, all on shared ports, as on a device: the kernel
opens a port with the first export, and refuses hosts of those that are not there yet. Only what was
made here is ever changed or removed; what a killed simulator left behind is recognised by its
backing device: the kernel was told a link to it that lies in our root folder.
"""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from rds_csi.simulator.device.configfs import ConfigFs, find_port, free_port_name
from rds_csi.simulator.device.export import Export, Namespace, namespace, same_but_hosts
from rds_csi.simulator.device.loops import Loops
from rds_csi.simulator.device.texts import EXPORT_FAILED, NQN_IN_USE
from rds_csi.simulator.language.values import RuntimeFault

log = structlog.get_logger(__name__)

_CONTROLLERS: Final = 64
"""How many controller ids a boot has to itself, so that a reboot changes them."""
_BOOTS: Final = 1000
_DEVICES: Final = ".exports"
"""The folder in our root with a link to the block device of each export."""


class Nvmet:
    """Exports by item id. One change at a time, each in a thread: the kernel may wait."""

    def __init__(
        self,
        root: Path,
        address: str,
        *,
        port: int = 0,
        configfs: ConfigFs | None = None,
        loops: Loops | None = None,
    ) -> None:
        """``port`` overrides the TCP port the disks name, unless it is 0."""
        self.exports: dict[int, Export] = {}
        self.namespaces: dict[int, Namespace] = {}
        self._root = root
        self._address = address
        self._port_override = port
        self._configfs = configfs or ConfigFs()
        self._loops = loops or Loops()
        self._devices: dict[int, Path] = {}
        """The loop devices of the exports."""
        self._counted: dict[int, int] = {}
        """How much was ever discarded on them when it was last looked at."""
        self._discarded = Counter[int]()
        """What was discarded since it was last asked for."""
        self._lock = asyncio.Lock()
        self._boot = 0
        self._cut: set[int] = set()
        self._all_cut = False
        """Whether exports that are made from now on are cut off, too."""
        self._ports: dict[int, Path] = {}
        self._made: set[Path] = set()
        """The ports and hosts that were made here."""

    async def _locked(self, change: Callable[[], None]) -> None:
        """Run a change to its end, even if the caller is cancelled meanwhile."""
        async with self._lock:
            task = asyncio.ensure_future(asyncio.to_thread(change))
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.wait([task])
                raise

    # The exporter

    async def start(self, boot: int) -> None:
        """Come up for the ``boot``-th time; leftovers of a killed run are removed."""
        self._boot = boot
        await self._locked(self._remove_leftovers)

    async def stop(self) -> None:
        """End all exports and remove the ports made here."""
        await self._locked(self._stop)

    async def export(self, export: Export) -> None:
        """Export a disk, or change how it is exported."""
        await self._locked(lambda: self._export(export))

    async def unexport(self, disk: int) -> None:
        """End an export."""
        await self._locked(lambda: self._unexport(disk))

    async def announce(self, disk: int) -> None:
        """Let the kernel look at the size again; connected hosts are told."""
        await self._locked(lambda: self._announce(disk))

    async def sever(self, disk: int) -> None:
        """End the connections of an export; hosts that are allowed may come back at once."""
        await self._locked(lambda: self._sever(disk))

    def discarded(self, disk: int) -> int:
        """Bytes that hosts discarded since this was asked last."""
        self._count(disk)
        return self._discarded.pop(disk, 0)

    async def cut(self, disk: int | None) -> None:
        """Take exports off their port: connections break, and attempts are refused."""
        chosen = set(self.exports) if disk is None else {disk}
        self._all_cut |= disk is None
        self._cut |= chosen
        await self._locked(lambda: self._unlink(chosen))

    async def restore(self, disk: int | None) -> None:
        """Put them back."""
        chosen = set(self._cut) if disk is None else {disk}
        self._all_cut = False
        self._cut -= chosen
        await self._locked(lambda: self._link(chosen))

    # What runs in the thread

    def _subsystem(self, nqn: str) -> Path:
        return self._configfs.root / "subsystems" / nqn

    def _export(self, export: Export) -> None:
        old = self.exports.get(export.disk)
        if old == export:
            return
        if old and same_but_hosts(old, export):
            self._allow(export, old.hosts)
            self.exports[export.disk] = export
            return
        if (old is None or old.nqn != export.nqn) and self._subsystem(export.nqn).exists():
            # Another disk's, or somebody else's on this machine.
            raise RuntimeFault(NQN_IN_USE)
        if old:
            self._unexport(export.disk)
        elif self._all_cut:
            self._cut.add(export.disk)
        self.exports[export.disk] = export
        try:
            self._make_subsystem(export)
            if export.disk not in self._cut:
                self._link({export.disk})
        except OSError as error:
            log.exception("export failed", nqn=export.nqn)
            self._unexport(export.disk)
            raise RuntimeFault(f"{EXPORT_FAILED}: {error.strerror}") from error

    def _make_subsystem(self, export: Export) -> None:
        subsystem = self._subsystem(export.nqn)
        self._configfs.make(subsystem)
        told = self.namespaces[export.disk] = namespace(export)
        self._configfs.write_if_known(subsystem / "attr_serial", told.serial)
        first = self._boot % _BOOTS * _CONTROLLERS + 1
        self._configfs.write_if_known(subsystem / "attr_cntlid_min", str(first))
        self._configfs.write_if_known(subsystem / "attr_cntlid_max", str(first + _CONTROLLERS - 1))
        self._allow(export, ())
        first_namespace = subsystem / "namespaces" / "1"
        self._configfs.make(first_namespace)
        with self._loops.attached(export.path, direct=_direct_io(export.path)) as device:
            self._devices[export.disk] = device
            self._counted[export.disk] = self._loops.discarded(device)
            link = self._link_to_device(export.disk)
            link.unlink(missing_ok=True)
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(device)
            self._configfs.write(first_namespace / "device_path", str(link))
            self._configfs.write(first_namespace / "device_uuid", told.uuid)
            self._configfs.write(first_namespace / "enable", "1")

    def _allow(self, export: Export, old: tuple[str, ...]) -> None:
        """Say which hosts may connect. The kernel wants "any" and a list never at once."""
        subsystem = self._subsystem(export.nqn)
        allowed = subsystem / "allowed_hosts"
        if export.hosts:
            self._configfs.write(subsystem / "attr_allow_any_host", "0")
        for nqn in export.hosts:
            host = self._configfs.root / "hosts" / nqn
            if not host.exists():
                self._configfs.make(host)
                self._made.add(host)
            self._configfs.link(allowed / nqn, host)
        for nqn in set(old) - set(export.hosts):
            self._configfs.unlink(allowed / nqn)
        if not export.hosts:
            self._configfs.write(subsystem / "attr_allow_any_host", "1")

    def _unexport(self, disk: int) -> None:
        export = self.exports.pop(disk, None)
        if export is None:
            return
        self._count(disk)
        self._remove_subsystem(self._subsystem(export.nqn))
        self.namespaces.pop(disk, None)
        self._devices.pop(disk, None)
        self._link_to_device(disk).unlink(missing_ok=True)

    def _link_to_device(self, disk: int) -> Path:
        return self._root / _DEVICES / str(disk)

    def _count(self, disk: int) -> None:
        device = self._devices.get(disk)
        if device is not None:
            now = self._loops.discarded(device)
            self._discarded[disk] += now - self._counted[disk]
            self._counted[disk] = now

    def _announce(self, disk: int) -> None:
        if disk in self.exports:
            export = self.exports[disk]
            self._loops.look_again(self._devices[disk])
            path = self._subsystem(export.nqn) / "namespaces/1/revalidate_size"
            self._configfs.write(path, "1")
            size = namespace(export).size
            self.namespaces[disk] = replace(self.namespaces[disk], size=size)

    def _sever(self, disk: int) -> None:
        self._unlink({disk})
        if disk not in self._cut:
            self._link({disk})

    def _remove_subsystem(self, subsystem: Path) -> None:
        for port in self._configfs.names(self._configfs.root / "ports"):
            link = self._configfs.root / "ports" / port / "subsystems" / subsystem.name
            self._configfs.unlink(link)
        for nqn in self._configfs.names(subsystem / "allowed_hosts"):
            self._configfs.unlink(subsystem / "allowed_hosts" / nqn)
        namespace = subsystem / "namespaces" / "1"
        if namespace.exists():
            self._configfs.write(namespace / "enable", "0")
            self._configfs.remove(namespace)
        self._configfs.remove(subsystem)

    def _link(self, disks: set[int]) -> None:
        for disk in disks & set(self.exports):
            export = self.exports[disk]
            port = self._port(self._port_override or export.port)
            subsystem = self._subsystem(export.nqn)
            self._configfs.link(port / "subsystems" / export.nqn, subsystem)

    def _unlink(self, disks: set[int]) -> None:
        for disk in disks & set(self.exports):
            export = self.exports[disk]
            port = self._ports.get(self._port_override or export.port)
            if port:
                self._configfs.unlink(port / "subsystems" / export.nqn)

    def _port(self, number: int) -> Path:
        """The port object of a TCP port: an existing one at our address, or a new one."""
        if number in self._ports:
            return self._ports[number]
        wanted = {
            "addr_trtype": "tcp",
            "addr_adrfam": "ipv6" if ":" in self._address else "ipv4",
            "addr_traddr": self._address,
            "addr_trsvcid": str(number),
        }
        ports = self._configfs.root / "ports"
        name = find_port(self._configfs, wanted)
        port = ports / (name or free_port_name(self._configfs))
        if not name:
            self._configfs.make(port)
            for attribute, value in wanted.items():
                self._configfs.write(port / attribute, value)
        if not self._configfs.names(port / "subsystems"):
            # New, or left empty by a killed run of ours.
            self._made.add(port)
        self._ports[number] = port
        return port

    def _stop(self) -> None:
        # Connections first: a machine that goes down refuses nobody while it does.
        self._unlink(set(self.exports))
        for disk in list(self.exports):
            self._unexport(disk)
        for path in sorted(self._made):
            # Somebody else may use a port or host of ours by now: then it stays.
            with suppress(OSError):
                self._configfs.remove(path)
        self._made.clear()
        self._ports.clear()
        self._cut.clear()
        self._all_cut = False

    def _remove_leftovers(self) -> None:
        """Remove subsystems whose device is linked to in our root and that we do not know."""
        known = {export.nqn for export in self.exports.values()}
        subsystems = self._configfs.root / "subsystems"
        for nqn in set(self._configfs.names(subsystems)) - known:
            device = self._configfs.read(subsystems / nqn / "namespaces/1/device_path")
            if device and Path(device).is_relative_to(self._root):
                log.info("removing the export of an earlier run", nqn=nqn)
                self._remove_subsystem(subsystems / nqn)


def _direct_io(path: Path) -> bool:
    """Whether the file system can do without the page cache; tmpfs cannot."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    os.close(descriptor)
    return True
