"""What the kernel of this machine knows: mounts, NVMe controllers."""

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rds_csi.nvme.sysfs import Sysfs

_NVME: Final = Path("/sys/class/nvme")


@dataclass(frozen=True, slots=True)
class Controller:
    """One NVMe controller as sysfs shows it."""

    name: str
    nqn: str
    state: str


def controllers(prefix: str = "") -> list[Controller]:
    """All controllers whose NQN begins with ``prefix``."""
    found = []
    for path in sorted(_NVME.iterdir() if _NVME.exists() else []):
        try:
            nqn = (path / "subsysnqn").read_text().strip()
            state = (path / "state").read_text().strip()
        except OSError:
            continue  # went away while we looked: ENOENT, or ENODEV if it was open by then
        if nqn.startswith(prefix):
            found.append(Controller(path.name, nqn, state))
    return found


def owned_devices() -> int:
    """How many NVMe-oF block devices there are, each proven to tell whose it is.

    The driver takes that from where sysfs has the device; the connections say the same.
    """
    sysfs = Sysfs()
    count = 0
    for subsystem in sysfs.subsystems():
        for device in subsystem.devices:
            owners = {sysfs.owner(device.devno), sysfs.owner_of_node(device.name)}
            assert owners == {subsystem.nqn}, f"{device} of {subsystem.nqn} is of {owners}"
            count += 1
    return count


def maps() -> dict[str, str]:
    """The driver's maps: their dm UUIDs, by the names of their devices."""
    found = {}
    for entry in sorted(Path("/sys/block").glob("dm-*")):
        with contextlib.suppress(OSError):
            found[entry.name] = (entry / "dm/uuid").read_text().strip()
    return {name: uuid for name, uuid in found.items() if uuid.startswith("RDSCSI-")}


def dmsetup(*words: str) -> str:
    """What ``dmsetup`` prints; it has to succeed."""
    done = subprocess.run(
        ["dmsetup", *words], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"dmsetup {words}: {done.stderr}"
    return done.stdout


def size_of(nqn: str) -> int:
    """The bytes of a subsystem's one block device, as the kernel has them."""
    (found,) = [each for each in Sysfs().subsystems() if each.nqn == nqn]
    (device,) = found.devices
    return int(Path("/sys/class/block", device.name, "size").read_text()) * 512


def mounts(below: Path) -> list[str]:
    """The lines of mountinfo of all mounts below a directory, mount ids included."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split(" ")[4].startswith(f"{below}/")]


def clean(below: Path, prefix: str) -> None:
    """Take down by force whatever a failed test left, so that the next one starts clean."""
    for line in reversed(mounts(below)):
        subprocess.run(["umount", "--lazy", line.split(" ")[4]], check=False)
    for uuid in maps().values():
        for words in (("message", uuid, "0", "fail_if_no_path"), ("remove", "--force", uuid)):
            subprocess.run(["dmsetup", *words], check=False, capture_output=True, timeout=60)
    for nqn in {controller.nqn for controller in controllers(prefix)}:
        subprocess.run(
            ["nvme", "disconnect", "-n", nqn], check=False, capture_output=True, timeout=60
        )
