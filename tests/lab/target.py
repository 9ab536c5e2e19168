"""A bare NVMe/TCP target from the kernel's nvmet, through configfs; no RDS around it."""

import uuid
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/kernel/config/nvmet")


class Target:
    """One file or block device exported as namespace 1 of one subsystem, on one port of this host.

    ``address`` 0.0.0.0: at each of its addresses, as an RDS does.
    """

    def __init__(
        self,
        nqn: str,
        file: Path,
        *,
        port: int,
        address: str = "127.0.0.1",
        block: bool = False,
    ) -> None:
        self.nqn = nqn
        self._address = address
        self._subsystem = _ROOT / "subsystems" / nqn
        self._namespace = self._subsystem / "namespaces" / "1"
        self._port = _ROOT / "ports" / str(port)
        self._link = self._port / "subsystems" / nqn
        self._file = file
        self._number = port
        self._block = block

    def start(self) -> None:
        self._subsystem.mkdir()
        (self._subsystem / "attr_allow_any_host").write_text("1")
        self._namespace.mkdir()
        (self._namespace / "device_path").write_text(str(self._file))
        # A file on tmpfs cannot be opened with O_DIRECT; a block device so would be one more file.
        (self._namespace / "buffered_io").write_text("0" if self._block else "1")
        self.enable()
        self._port.mkdir()
        for name, value in {
            "addr_trtype": "tcp",
            "addr_adrfam": "ipv4",
            "addr_traddr": self._address,
            "addr_trsvcid": str(self._number),
        }.items():
            (self._port / name).write_text(value)
        self.restore()

    def cut(self) -> None:
        """The target is gone from one moment to the next, as after a power failure."""
        self._link.unlink()

    def restore(self) -> None:
        self._link.symlink_to(self._subsystem)

    def enable(self) -> None:
        """Open the file or device: what it is now."""
        (self._namespace / "enable").write_text("1")

    def disable(self) -> None:
        """Let go of it."""
        (self._namespace / "enable").write_text("0")

    def grow(self, size: int) -> None:
        with self._file.open("r+b") as file:
            file.truncate(size)
        (self._namespace / "revalidate_size").write_text("1")

    def admit_nobody(self) -> None:
        """Only hosts on the list are let in from now on, and it is empty."""
        (self._subsystem / "attr_allow_any_host").write_text("0")

    def admit_all(self) -> None:
        """Any host is let in, as at the start."""
        (self._subsystem / "attr_allow_any_host").write_text("1")

    def change_uuid(self) -> None:
        """The namespace is made anew, with another UUID, as after a reboot of an old kernel."""
        self.disable()
        (self._namespace / "device_uuid").write_text(str(uuid.uuid4()))
        self.enable()

    def remake(self, size: int) -> None:
        """It is exported anew with another size and UUID, as a target does that sees no growth."""
        (self._namespace / "enable").write_text("0")
        with self._file.open("r+b") as file:
            file.truncate(size)
        (self._namespace / "device_uuid").write_text(str(uuid.uuid4()))
        (self._namespace / "enable").write_text("1")

    def stop(self) -> None:
        self._link.unlink(missing_ok=True)
        self._port.rmdir()
        self.disable()
        self._namespace.rmdir()
        self._subsystem.rmdir()
