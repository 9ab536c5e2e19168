"""What the kernel says of its NVMe-oF connections: ``/sys``, read only.

sysfs is the truth; nothing here is remembered. Device names are given out again as soon as
they are free, so a name is good for one look and no longer. Entries may vanish between two
reads: what vanished is passed over.

Two layouts (kernel: drivers/nvme/host/multipath.c). With native multipath a namespace is
``nvmeXnZ`` below the subsystem, and each controller has a hidden path ``nvmeXcYnZ`` to it.
Without, ``nvmeXnY`` is below its controller.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECTOR: Final = 512
"""``/sys/class/block/*/size`` counts these, whatever the block size of the device."""

_CONTROLLER: Final = re.compile(r"nvme[0-9]+")
_NAMESPACE: Final = re.compile(r"nvme[0-9]+n[0-9]+")
_PATH: Final = re.compile(r"(nvme[0-9]+)c[0-9]+(n[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """One connection. ``state`` is the kernel's word: live, connecting, deleting and so on.

    ``subsystem`` is the name of the kernel's subsystem (``nvme-subsysN``), empty when unknown.
    Timers read ``off`` where they are unlimited; empty where the kernel does not show them.
    """

    name: str
    nqn: str
    hostnqn: str = ""
    hostid: str = ""
    address: str = ""
    port: int = 0
    state: str = ""
    subsystem: str = ""
    transport: str = ""
    cntlid: str = ""
    ctrl_loss_tmo: str = ""
    reconnect_delay: str = ""

    @property
    def live(self) -> bool:
        """Whether it carries I/O now."""
        return self.state == "live"

    @property
    def leaving(self) -> bool:
        """Whether the kernel is taking it down for good."""
        return self.state.startswith("deleting") or self.state == "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A block device: its node, its size in bytes, its device number."""

    device: Path
    size: int
    devno: tuple[int, int]
    nsid: int
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """One device number behind a connection: a namespace, or a partition on it.

    ``holders``: what is stacked on it (device mapper, MD).
    """

    name: str
    devno: tuple[int, int]
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsystem:
    """Everything of one NQN. ``activity`` changes whenever its devices carry I/O."""

    nqn: str
    controllers: tuple[Controller, ...]
    devices: tuple[BlockDevice, ...]
    activity: str = ""


class Sysfs:
    """Looks into ``root``. Every method is a few small reads; none of them waits for I/O."""

    def __init__(self, root: Path = Path("/sys"), *, dev: Path = Path("/dev")) -> None:
        self._class = root / "class"
        self._dev = dev

    def path(self, controller: str) -> Path:
        """The directory of a controller."""
        return self._class / "nvme" / controller

    def has_transport(self) -> bool:
        """Whether the kernel module for NVMe/TCP is there."""
        return (self._class.parent / "module" / "nvme_tcp").is_dir()

    def controllers(self, nqn: str | None = None) -> list[Controller]:
        """Every controller, or those of one subsystem, in the order of their numbers."""
        found = (
            self._controller(entry)
            for entry in _entries(self._class / "nvme", _CONTROLLER)
            if nqn is None or _read(entry / "subsysnqn") == nqn
        )
        return [controller for controller in found if controller is not None]

    def namespace(self, nqn: str, hostnqn: str | None = None, nsid: int = 1) -> Namespace | None:
        """The namespace that the host NQN's controllers lead to; any host's where it is None.

        A controller that the kernel is taking down does not count. The namespace is returned
        whatever the state of its controller, also while that reconnects.
        """
        for controller in self.controllers(nqn):
            if controller.leaving or hostnqn not in (None, controller.hostnqn):
                continue
            for entry in self._namespaces(controller):
                namespace = self._namespace(entry)
                if namespace is not None and namespace.nsid == nsid:
                    return namespace
        return None

    def devices(self, controllers: list[Controller]) -> list[BlockDevice]:
        """The block devices that the controllers lead to, with their partitions."""
        entries = {
            entry.name: entry
            for controller in controllers
            for entry in self._namespaces(controller)
        }
        found = []
        for _, entry in sorted(entries.items()):
            parts = [part for part in _children(entry) if (part / "partition").exists()]
            found += [_block_device(part) for part in (entry, *parts)]
        return [device for device in found if device is not None]

    def subsystems(self) -> list[Subsystem]:
        """Every subsystem that has a controller, in the order of NQNs."""
        by_nqn: dict[str, list[Controller]] = {}
        for controller in self.controllers():
            by_nqn.setdefault(controller.nqn, []).append(controller)
        return [
            Subsystem(
                nqn=nqn,
                controllers=tuple(controllers),
                devices=tuple(self.devices(controllers)),
                activity=self._activity(controllers),
            )
            for nqn, controllers in sorted(by_nqn.items())
        ]

    def _controller(self, entry: Path) -> Controller | None:
        nqn = _read(entry / "subsysnqn")
        if not nqn:
            return None
        address = dict(
            word.split("=", 1) for word in _read(entry / "address").split(",") if "=" in word
        )
        port = address.get("trsvcid", "")
        return Controller(
            name=entry.name,
            nqn=nqn,
            hostnqn=_read(entry / "hostnqn"),
            hostid=_read(entry / "hostid"),
            address=address.get("traddr", ""),
            port=int(port) if port.isascii() and port.isdigit() else 0,
            state=_read(entry / "state"),
            subsystem=self._subsystem(entry.name),
            transport=_read(entry / "transport"),
            cntlid=_read(entry / "cntlid"),
            ctrl_loss_tmo=_read(entry / "ctrl_loss_tmo"),
            reconnect_delay=_read(entry / "reconnect_delay"),
        )

    def _subsystem(self, controller: str) -> str:
        for entry in _entries(self._class / "nvme-subsystem"):
            if (entry / controller).exists():
                return entry.name
        return ""

    def _namespaces(self, controller: Controller) -> Iterator[Path]:
        """The block device directories that a controller leads to."""
        for entry in _entries(self.path(controller.name)):
            if _NAMESPACE.fullmatch(entry.name):
                yield entry
            elif (path := _PATH.fullmatch(entry.name)) and controller.subsystem:
                head = (
                    self._class / "nvme-subsystem" / controller.subsystem / "".join(path.groups())
                )
                if head.exists():
                    yield head

    def _namespace(self, entry: Path) -> Namespace | None:
        devno = _devno(entry)
        size, nsid = _read(entry / "size"), _read(entry / "nsid")
        if devno is None or not size.isdigit() or not nsid.isdigit():
            return None
        return Namespace(
            device=self._dev / entry.name,
            size=int(size) * SECTOR,
            devno=devno,
            nsid=int(nsid),
            read_only=_read(entry / "ro") == "1",
        )

    def _activity(self, controllers: list[Controller]) -> str:
        # Paths too: before Linux 6.6 a multipath head kept no statistics.
        return " ".join(
            " ".join(_read(entry / "stat").split())
            for controller in controllers
            for entry in _entries(self.path(controller.name))
            if _NAMESPACE.fullmatch(entry.name) or _PATH.fullmatch(entry.name)
        )


def _entries(directory: Path, name: re.Pattern[str] | None = None) -> list[Path]:
    """The directory's entries in the order of their numbers; none if there is no directory."""
    found = [entry for entry in _children(directory) if name is None or name.fullmatch(entry.name)]
    return sorted(found, key=lambda entry: [int(word) for word in re.findall("[0-9]+", entry.name)])


def _children(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _read(file: Path) -> str:
    """The file's text without its newline; empty where it cannot be read."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _devno(entry: Path) -> tuple[int, int] | None:
    major, colon, minor = _read(entry / "dev").partition(":")
    if not colon or not (major.isdigit() and minor.isdigit()):
        return None
    return int(major), int(minor)


def _block_device(entry: Path) -> BlockDevice | None:
    devno = _devno(entry)
    if devno is None:
        return None
    holders = sorted(holder.name for holder in _children(entry / "holders"))
    return BlockDevice(name=entry.name, devno=devno, holders=tuple(holders))
