"""Builds the part of ``/sys`` that the kernel fills for NVMe-oF, in both of its layouts.

The shape is that of Linux 6.1 with ``nvme_core.multipath`` on and off, taken from a live
kernel: what is a link there is a link here.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-5333-8444-555555555555"
HOST_ID = "11111111-2222-5333-8444-555555555555"
OTHER_NQN = "nqn.2014-08.org.nvmexpress:uuid:99999999-2222-5333-8444-555555555555"


@dataclass
class FakeSysfs:
    """A tree under ``root``; ``multipath`` is the layout, ``dev`` where device nodes would be."""

    root: Path
    multipath: bool = True
    transport: bool = True
    _minor: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.dev = self.root / "dev"
        self.dev.mkdir(parents=True)
        for name in ("class/nvme", "class/nvme-subsystem", "class/block", "dev/block"):
            (self.sys / name).mkdir(parents=True)
        if self.transport:
            (self.sys / "module" / "nvme_tcp").mkdir(parents=True)

    @property
    def sys(self) -> Path:
        return self.root / "sys"

    @property
    def _gone(self) -> Path:
        return self.root / "gone"

    def connect(
        self,
        nqn: str,
        *,
        hostnqn: str = HOST_NQN,
        hostid: str = HOST_ID,
        address: str = "192.0.2.1",
        port: int = 4420,
        state: str = "live",
        size: int | None = 64 << 20,
        nsid: int = 1,
        ctrl_loss_tmo: str = "off",
        reconnect_delay: str = "5",
    ) -> str:
        """A new controller, with a namespace of ``size`` bytes unless it is None; its name."""
        number = self._free("nvme", "nvme")
        name = f"nvme{number}"
        directory = self.sys / "devices/virtual/nvme-fabrics/ctl" / name
        directory.mkdir(parents=True)
        attributes = {
            "subsysnqn": nqn,
            "hostnqn": hostnqn,
            "hostid": hostid,
            "address": f"traddr={address},trsvcid={port},src_addr=192.0.2.9",
            "transport": "tcp",
            "state": state,
            "cntlid": str(number + 1),
            "ctrl_loss_tmo": ctrl_loss_tmo,
            "reconnect_delay": reconnect_delay,
            "fast_io_fail_tmo": "off",
            "kato": "5",
            "queue_count": "5",
            "sqsize": "127",
            "model": "Linux".ljust(40),
            "delete_controller": "",
            "rescan_controller": "",
        }
        for key, value in attributes.items():
            (directory / key).write_text(f"{value}\n" if value else "")
        (self.sys / "class/nvme" / name).symlink_to(directory)
        subsystem = self._subsystem(nqn, number)
        (subsystem / name).symlink_to(directory)
        if size is not None:
            self.add_namespace(name, size=size, nsid=nsid)
        return name

    def add_namespace(self, controller: str, *, size: int, nsid: int = 1) -> str:
        """A namespace of the controller; the name of its block device."""
        directory = self.controller(controller)
        number = controller.removeprefix("nvme")
        if not self.multipath:
            name = f"{controller}n{nsid}"
            self._block(directory / name, size=size, nsid=nsid)
            return name
        subsystem = self.subsystem(controller)
        instance = subsystem.name.removeprefix("nvme-subsys")
        name = f"nvme{instance}n{nsid}"
        self._block(directory / f"nvme{instance}c{number}n{nsid}", size=size, nsid=nsid, dev=False)
        if not (subsystem / name).exists():
            self._block(subsystem / name, size=size, nsid=nsid)
        return name

    def add_partition(self, block: str, number: int = 1) -> str:
        """A partition on a block device; its name."""
        name = f"{block}p{number}"
        directory = self.block(block) / name
        self._block(directory, size=1 << 20, nsid=0)
        (directory / "partition").write_text(f"{number}\n")
        return name

    def disconnect(self, controller: str) -> None:
        """What the kernel does when a controller goes."""
        directory = self.controller(controller)
        subsystem = self.subsystem(controller)
        blocks = [entry for entry in directory.iterdir() if entry.is_dir()]
        # The kernel never gives the number of this entry again, as the file system below us may.
        self._gone.mkdir(exist_ok=True)
        link = self.sys / "class/nvme" / controller
        link.rename(self._gone / str(link.lstat().st_ino))
        (subsystem / controller).unlink()
        if not list(subsystem.glob("nvme[0-9]")):
            blocks += [entry for entry in subsystem.iterdir() if entry.is_dir()]
            (self.sys / "class/nvme-subsystem" / subsystem.name).unlink()
            shutil.rmtree(subsystem)
        for block in blocks:
            self._unlink_block(block.name)
            (self.dev / block.name).unlink(missing_ok=True)
        shutil.rmtree(directory)

    def remove_namespaces(self, controller: str) -> None:
        """The target took its namespaces away; the controller stays."""
        directory, subsystem = self.controller(controller), self.subsystem(controller)
        for block in [*directory.iterdir(), *subsystem.iterdir()]:
            if block.is_dir() and not block.is_symlink():
                self._unlink_block(block.name)
                shutil.rmtree(block)

    def controller(self, name: str) -> Path:
        """The directory of a controller."""
        return (self.sys / "class/nvme" / name).resolve(strict=True)

    def subsystem(self, controller: str) -> Path:
        """The directory of a controller's subsystem."""
        for entry in (self.sys / "class/nvme-subsystem").iterdir():
            if (entry / controller).is_symlink():
                return entry.resolve()
        raise KeyError(controller)

    def block(self, name: str) -> Path:
        """The directory of a block device."""
        return (self.sys / "class/block" / name).resolve(strict=True)

    def controllers(self) -> list[str]:
        """The names of all controllers."""
        return sorted(entry.name for entry in (self.sys / "class/nvme").iterdir())

    def set(self, controller: str, attribute: str, value: str) -> None:
        """Change what a controller shows."""
        (self.controller(controller) / attribute).write_text(f"{value}\n")

    def resize(self, block: str, size: int) -> None:
        """The namespace has another size now."""
        (self.block(block) / "size").write_text(f"{size // 512}\n")

    def hold(self, block: str, holder: str = "dm-0") -> None:
        """Something is stacked on the device."""
        (self.block(block) / "holders" / holder).mkdir()

    def devno(self, block: str) -> tuple[int, int]:
        major, _, minor = (self.block(block) / "dev").read_text().strip().partition(":")
        return int(major), int(minor)

    def _subsystem(self, nqn: str, wanted: int) -> Path:
        for entry in (self.sys / "class/nvme-subsystem").iterdir():
            if (entry / "subsysnqn").read_text().strip() == nqn:
                return entry.resolve()
        taken = {entry.name for entry in (self.sys / "class/nvme-subsystem").iterdir()}
        number = wanted
        while f"nvme-subsys{number}" in taken:
            number += 1
        directory = self.sys / f"devices/virtual/nvme-subsystem/nvme-subsys{number}"
        directory.mkdir(parents=True)
        (directory / "subsysnqn").write_text(f"{nqn}\n")
        (directory / "iopolicy").write_text("numa\n")
        (self.sys / "class/nvme-subsystem" / directory.name).symlink_to(directory)
        return directory

    def _block(self, directory: Path, *, size: int, nsid: int, dev: bool = True) -> None:
        directory.mkdir()
        (directory / "holders").mkdir()
        (directory / "size").write_text(f"{size // 512 if dev else 0}\n")
        (directory / "nsid").write_text(f"{nsid}\n")
        (directory / "ro").write_text("0\n")
        (directory / "wwid").write_text("uuid.11111111-2222-4333-8444-555555555555\n")
        (directory / "hidden").write_text(f"{int(not dev)}\n")
        (directory / "stat").write_text("   0 0 0 0 0 0 0 0 0 0 0\n")
        if dev:
            self._minor += 1
            (directory / "dev").write_text(f"259:{self._minor}\n")
            (self.sys / "dev/block" / f"259:{self._minor}").symlink_to(directory)
            (self.dev / directory.name).touch()
        (self.sys / "class/block" / directory.name).symlink_to(directory)

    def _unlink_block(self, name: str) -> None:
        (self.sys / "class/block" / name).unlink(missing_ok=True)
        for link in (self.sys / "dev/block").iterdir():
            if link.readlink().name == name:
                link.unlink()

    def _free(self, kind: str, prefix: str) -> int:
        taken = {entry.name for entry in (self.sys / "class" / kind).iterdir()}
        return next(number for number in range(1000) if f"{prefix}{number}" not in taken)


def namespace_of(
    sys: Path,
    devno: tuple[int, int],
    nqn: str,
    hostnqn: str = HOST_NQN,
    *,
    name: str = "nvme0n1",
    multipath: bool = True,
) -> Path:
    """What ``dev/block/MAJOR:MINOR`` leads to, in a subsystem with one controller.

    The directory of the block device, below its subsystem or its controller.
    """
    number = name.removeprefix("nvme").partition("n")[0]
    parent = sys / "devices" / (f"nvme-subsys{number}" if multipath else f"nvme{number}")
    (parent / name).mkdir(parents=True)
    (parent / name / "dev").write_text(f"{devno[0]}:{devno[1]}\n")
    (parent / "subsysnqn").write_text(f"{nqn}\n")
    controller = parent / f"nvme{number}" if multipath else parent
    controller.mkdir(exist_ok=True)
    (controller / "hostnqn").write_text(f"{hostnqn}\n")
    links = sys / "dev" / "block"
    links.mkdir(parents=True, exist_ok=True)
    (links / f"{devno[0]}:{devno[1]}").symlink_to(parent / name)
    return parent / name
