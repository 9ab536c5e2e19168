"""A stand-in for the kernel's NVMe target in configfs, with the rules that matter.

Folders have the attribute files and default groups of the real ones; what the kernel refuses
(removing what is linked, allowing any host while a list stands) is refused.
"""

import errno
import shutil
from pathlib import Path

from rds_csi.simulator.device.configfs import ConfigFs

ATTRIBUTES = {
    "subsystems": ("attr_allow_any_host", "attr_serial", "attr_model", "attr_cntlid_min"),
    "namespaces": ("device_path", "device_uuid", "buffered_io", "enable", "revalidate_size"),
    "ports": ("addr_trtype", "addr_adrfam", "addr_traddr", "addr_trsvcid"),
    "hosts": (),
}
GROUPS = {"subsystems": ("namespaces", "allowed_hosts"), "ports": ("subsystems", "referrals")}


class FakeConfigFs(ConfigFs):
    """The same operations on an ordinary folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        for name in ("subsystems", "ports", "hosts"):
            (root / name).mkdir(parents=True)
        self.failing: set[str] = set()
        """Attribute names whose writing fails, once."""
        self.log: list[str] = []

    def make(self, path: Path) -> None:
        super().make(path)
        self.log.append(f"make {path.relative_to(self.root)}")
        for attribute in ATTRIBUTES[path.parent.name]:
            (path / attribute).write_text("")
        for group in GROUPS.get(path.parent.name, ()):
            (path / group).mkdir()

    def remove(self, path: Path) -> None:
        if not path.exists():
            return
        for group in GROUPS.get(path.parent.name, ()):
            if any((path / group).iterdir()):
                raise OSError(errno.EBUSY, "Device or resource busy")
        if path.parent.name in ("subsystems", "hosts") and self._linked(path):
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.log.append(f"remove {path.relative_to(self.root)}")
        shutil.rmtree(path)

    def _linked(self, target: Path) -> bool:
        return any(
            link.is_symlink() and link.readlink() == target
            for pattern in ("ports/*/subsystems/*", "subsystems/*/allowed_hosts/*")
            for link in self.root.glob(pattern)
        )

    def write(self, path: Path, value: str) -> None:
        if path.name in self.failing:
            self.failing.discard(path.name)
            raise OSError(errno.EINVAL, "Invalid argument")
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such attribute", str(path))
        listed = path.parent / "allowed_hosts"
        if path.name == "attr_allow_any_host" and value == "1" and any(listed.iterdir()):
            raise OSError(errno.EINVAL, "Invalid argument")
        self.log.append(f"write {path.relative_to(self.root)} {value}")
        super().write(path, value)

    def link(self, path: Path, target: Path) -> None:
        any_host = path.parent.parent / "attr_allow_any_host"
        if path.parent.name == "allowed_hosts" and self.read(any_host) == "1":
            raise OSError(errno.EINVAL, "Invalid argument")
        self.log.append(f"link {path.relative_to(self.root)}")
        super().link(path, target)

    def unlink(self, path: Path) -> None:
        if path.is_symlink():
            self.log.append(f"unlink {path.relative_to(self.root)}")
        super().unlink(path)

    def tree(self) -> dict[str, list[str]]:
        """What there is: subsystems, ports with what is linked to them, hosts."""
        found = {kind: self.names(self.root / kind) for kind in ("subsystems", "hosts")}
        for port in self.names(self.root / "ports"):
            found[f"port {port}"] = self.names(self.root / "ports" / port / "subsystems")
        return found
