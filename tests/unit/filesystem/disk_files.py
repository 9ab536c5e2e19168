"""A sparse file as a device, what is done with it, and what is asked of it."""

import subprocess

from rds_csi.filesystem import devices as devices_module
from rds_csi.filesystem.format import Examination, Formatter
from rds_csi.model.block_device import Device
from rds_csi.model.volume import MIB

SIZE = 320 * MIB
MARK = "11111111-2222-4333-8444-555555555555"
NQN = "nqn.2000-02.com.mikrotik:pvc-1"
HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-5333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
PROBE = devices_module._PROBE
FILE = (0, 0)
"""A regular file has no device number."""


async def examine(
    formatter: Formatter,
    device: Device,
    fs_type: str = "ext4",
    *,
    size: int | None = SIZE,
    content_expected: bool = False,
    mark: str = "",
    replay: bool = True,
) -> Examination:
    return await formatter.examine(
        device,
        fs_type,
        size=size,
        content_expected=content_expected,
        mark=mark,
        replay=replay,
        volume="pvc-1",
    )


def write(device: Device, offset: int, content: bytes) -> None:
    with device.path.open("r+b") as disk:
        disk.seek(offset)
        disk.write(content)


def touched(device: Device) -> tuple[int, int]:
    """Changes with every write to the file."""
    status = device.path.stat()
    return status.st_mtime_ns, status.st_blocks


def run(*args: str) -> str:
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout
