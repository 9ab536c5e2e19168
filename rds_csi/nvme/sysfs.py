"""What the kernel says of its NVMe-oF connections: ``/sys``, read only.

sysfs is the truth; nothing here is remembered but which controllers are a stranger's
(:mod:`.names`). Device names are given out again as soon as they are free, so a name is good for
one look and no longer. Entries may vanish between two reads: what vanished is passed over.

Each look walks as little as it can: the NQN comes first, and what is not asked for is not
looked at. With 200 volumes every walk that nests in another is felt by all calls.

Two layouts (kernel: drivers/nvme/host/multipath.c). With native multipath a namespace is
``nvmeXnZ`` below the subsystem, and each controller has a hidden path ``nvmeXcYnZ`` to it.
Without, ``nvmeXnY`` is below its controller.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rds_csi.nvme.names import Names
from rds_csi.runtime.attributes import children, device_number, read

SECTOR: Final = 512
"""``/sys/class/block/*/size`` counts these, whatever the block size of the device."""

_CONTROLLER: Final = re.compile(r"nvme[0-9]+")
_NAMESPACE: Final = re.compile(r"nvme[0-9]+n[0-9]+")
_PATH: Final = re.compile(r"(nvme[0-9]+)c[0-9]+(n[0-9]+)")
_BLOCK: Final = re.compile(r"nvme[0-9]+n[0-9]+(p[0-9]+)?")


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
    """Everything of one NQN. ``activity`` changes whenever its devices carry I/O.

    ``joined``: its connections are paths to one device.
    """

    nqn: str
    controllers: tuple[Controller, ...]
    devices: tuple[BlockDevice, ...]
    activity: str = ""
    joined: bool = False


class Sysfs:
    """Looks into ``root``. Every method is a few small reads; none of them waits for I/O."""

    def __init__(self, root: Path = Path("/sys"), *, dev: Path = Path("/dev")) -> None:
        self._class = root / "class"
        self._dev = dev
        self._known = Names(f"{self._class}/nvme", self._nqn)

    @property
    def places(self) -> tuple[Path, Path]:
        """Where ``/sys`` and ``/dev`` are."""
        return self._class.parent, self._dev

    def path(self, controller: str) -> Path:
        """The directory of a controller."""
        return self._class / "nvme" / controller

    def read(self, controller: str, attribute: str) -> str:
        """An attribute of a controller; empty where the kernel shows none."""
        return read(f"{self._class}/nvme/{controller}/{attribute}")

    def has_transport(self) -> bool:
        """Whether the kernel module for NVMe/TCP is there."""
        return (self._class.parent / "module" / "nvme_tcp").is_dir()

    def controllers(self, nqn: str | None = None) -> list[Controller]:
        """Every controller, or those of one subsystem, in the order of their numbers."""
        return self.controllers_of(lambda found: nqn in (None, found))

    def controllers_of(self, wanted: Callable[[str], bool]) -> list[Controller]:
        """The controllers whose NQN is wanted, in the order of their numbers."""
        subsystems = _Subsystems(f"{self._class}/nvme-subsystem")
        return [
            self._controller(name, nqn, subsystems.of(name))
            for name, nqn in self._known.nqns().items()
            if wanted(nqn) and self._nqn(name) == nqn
        ]

    def namespace(self, nqn: str, hostnqn: str | None = None, nsid: int = 1) -> Namespace | None:
        """The namespace that the host NQN's controllers lead to; any host's where it is None.

        A controller that the kernel is taking down does not count. The namespace is returned
        whatever the state of its controller, also while that reconnects.
        """
        return self.namespace_of(
            [each for each in self.controllers(nqn) if hostnqn in (None, each.hostnqn)], nsid
        )

    def namespace_of(self, controllers: Iterable[Controller], nsid: int = 1) -> Namespace | None:
        """:meth:`namespace`, of controllers that were looked up before."""
        for controller in controllers:
            if controller.leaving:
                continue
            for entry in self._namespaces(controller):
                namespace = self._namespace(entry)
                if namespace is not None and namespace.nsid == nsid:
                    return namespace
        return None

    def joined(self, controllers: Iterable[Controller]) -> bool:
        """Whether the kernel leads the controllers to one device by native multipath."""
        return any(
            _PATH.fullmatch(name)
            for controller in controllers
            for name in children(f"{self._class}/nvme/{controller.name}")
        )

    def identified(self, controllers: Iterable[Controller]) -> bool:
        """Whether their namespaces have identifiers of their own, as the kernel shows them.

        Without UUID, NGUID and EUI-64 its ``wwid`` is made of the controller's serial and model
        (drivers/nvme/host/sysfs.c, ``wwid_show``), and says nothing of the namespace.
        """
        entries = {entry for each in controllers for entry in self._namespaces(each)}
        found = [read(f"{entry}/wwid") for entry in entries]
        return bool(found) and all(wwid.startswith(("uuid.", "eui.")) for wwid in found)

    def devices(self, controllers: Iterable[Controller]) -> list[BlockDevice]:
        """The block devices that the controllers lead to, with their partitions."""
        entries = {
            os.path.basename(entry): entry  # noqa: PTH119 - a Path costs more than the read
            for controller in controllers
            for entry in self._namespaces(controller)
        }
        found = []
        for name, entry in sorted(entries.items()):
            parts = [f"{entry}/{part}" for part in sorted(children(entry)) if _is_part(part, name)]
            found += [_block_device(part) for part in (entry, *parts)]
        return [device for device in found if device is not None]

    def subsystems(self, wanted: Callable[[str], bool] = lambda _nqn: True) -> list[Subsystem]:
        """Every subsystem that has a controller, in the order of NQNs.

        Of those not wanted nothing is read but the NQN: they come without controllers.
        """
        subsystems = _Subsystems(f"{self._class}/nvme-subsystem")
        by_nqn: dict[str, list[Controller]] = {}
        for name, nqn in self._known.nqns().items():
            if not wanted(nqn):
                by_nqn.setdefault(nqn, [])
            elif self._nqn(name) == nqn:
                found = self._controller(name, nqn, subsystems.of(name))
                by_nqn.setdefault(nqn, []).append(found)
        return [
            Subsystem(
                nqn=nqn,
                controllers=tuple(controllers),
                devices=tuple(self.devices(controllers)),
                activity=self._activity(controllers),
                joined=self.joined(controllers),
            )
            for nqn, controllers in sorted(by_nqn.items())
        ]

    def owner(self, devno: tuple[int, int]) -> str:
        """The NQN of the subsystem that a block device or partition is of; empty where none is."""
        return self._owner(f"{self._class.parent}/dev/block/{devno[0]}:{devno[1]}")

    def owner_of_node(self, name: str) -> str:
        """:meth:`owner`, of the block device that has this name now."""
        return self._owner(f"{self._class}/block/{name}") if _BLOCK.fullmatch(name) else ""

    def _owner(self, entry: str) -> str:
        # A namespace lies in its controller or, with native multipath, in its subsystem; a
        # partition in its namespace. Either says its NQN.
        block = os.path.realpath(entry)
        for directory in (os.path.dirname(block), os.path.dirname(os.path.dirname(block))):  # noqa: PTH120 - strings, as above
            if nqn := read(f"{directory}/subsysnqn"):
                return nqn
        return ""

    def _nqn(self, name: str) -> str:
        """What a controller shows now: which one has the name may have changed."""
        return read(f"{self._class}/nvme/{name}/subsysnqn")

    def _controller(self, name: str, nqn: str, subsystem: str) -> Controller:
        entry = f"{self._class}/nvme/{name}"
        address = dict(
            word.split("=", 1) for word in read(f"{entry}/address").split(",") if "=" in word
        )
        port = address.get("trsvcid", "")
        return Controller(
            name=name,
            nqn=nqn,
            hostnqn=read(f"{entry}/hostnqn"),
            hostid=read(f"{entry}/hostid"),
            address=address.get("traddr", ""),
            port=int(port) if port.isascii() and port.isdigit() else 0,
            state=read(f"{entry}/state"),
            subsystem=subsystem,
            transport=read(f"{entry}/transport"),
            cntlid=read(f"{entry}/cntlid"),
            ctrl_loss_tmo=read(f"{entry}/ctrl_loss_tmo"),
            reconnect_delay=read(f"{entry}/reconnect_delay"),
        )

    def _namespaces(self, controller: Controller) -> Iterator[str]:
        """The block device directories that a controller leads to."""
        for name in _names(f"{self._class}/nvme/{controller.name}"):
            if _NAMESPACE.fullmatch(name):
                yield f"{self._class}/nvme/{controller.name}/{name}"
            elif (path := _PATH.fullmatch(name)) and controller.subsystem:
                subsystem = f"{self._class}/nvme-subsystem/{controller.subsystem}"
                head = f"{subsystem}/{''.join(path.groups())}"
                if os.path.exists(head):  # noqa: PTH110 - as above
                    yield head

    def _namespace(self, entry: str) -> Namespace | None:
        devno = device_number(entry)
        size, nsid = read(f"{entry}/size"), read(f"{entry}/nsid")
        if devno is None or not size.isdigit() or not nsid.isdigit():
            return None
        return Namespace(
            device=self._dev / os.path.basename(entry),  # noqa: PTH119 - as above
            size=int(size) * SECTOR,
            devno=devno,
            nsid=int(nsid),
            read_only=read(f"{entry}/ro") == "1",
        )

    def _activity(self, controllers: Iterable[Controller]) -> str:
        # Paths too: before Linux 6.6 a multipath head kept no statistics.
        return " ".join(
            " ".join(read(f"{self._class}/nvme/{controller.name}/{name}/stat").split())
            for controller in controllers
            for name in _names(f"{self._class}/nvme/{controller.name}")
            if _NAMESPACE.fullmatch(name) or _PATH.fullmatch(name)
        )


class _Subsystems:
    """Which of the kernel's subsystems a controller is in: the link leads only the other way.

    A subsystem has the number of its first controller, mostly, so that one is tried first. The
    others are found by listing all subsystems, once.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._listed: dict[str, str] | None = None

    def of(self, controller: str) -> str:
        likely = f"nvme-subsys{controller.removeprefix('nvme')}"
        if os.path.exists(f"{self._directory}/{likely}/{controller}"):  # noqa: PTH110 - as above
            return likely
        if self._listed is None:
            self._listed = {
                name: subsystem
                for subsystem in _names(self._directory)
                for name in _names(f"{self._directory}/{subsystem}", _CONTROLLER)
            }
        return self._listed.get(controller, "")


def _names(directory: str, name: re.Pattern[str] | None = None) -> list[str]:
    """The directory's entries in the order of their numbers; none if there is no directory."""
    found = [entry for entry in children(directory) if name is None or name.fullmatch(entry)]
    # Those of one kind begin alike, so the shorter number is the lower one.
    return sorted(found, key=lambda entry: (len(entry), entry))


def _is_part(name: str, disk: str) -> bool:
    return name.startswith(f"{disk}p") and name[len(disk) + 1 :].isdigit()


def _block_device(entry: str) -> BlockDevice | None:
    devno = device_number(entry)
    if devno is None:
        return None
    name = os.path.basename(entry)  # noqa: PTH119 - as above
    return BlockDevice(name=name, devno=devno, holders=tuple(sorted(children(f"{entry}/holders"))))
