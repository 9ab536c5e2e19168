"""What tells that something about maps has changed, and the status of all of them at once.

A path that fails shows nowhere in sysfs. The kernel counts events of device mapper instead (a path
failed, a table was swapped), and a descriptor of its control device becomes readable when the
count has risen since it was last armed (kernel: ``drivers/md/dm-ioctl.c``, ``dm_poll`` and
``dev_arm_poll``). So hundreds of healthy maps cost one system call a look.
"""

import fcntl
import os
import select
import struct
from pathlib import Path
from typing import Final

from rds_csi.pathlayer.table import Status, UnknownMap
from rds_csi.runtime.process import Runner

CONTROL: Final = Path("/dev/mapper/control")
_TIMEOUT: Final = 30.0
_SIZE: Final = 312
"""Bytes of ``struct dm_ioctl`` (``linux/dm-ioctl.h``), which begins with the interface's version,
the size of all, and where data begin."""
_REQUEST: Final = struct.pack("=5I", 4, 37, 0, _SIZE, _SIZE).ljust(_SIZE, b"\0")
_ARM_POLL: Final = (3 << 30) | (_SIZE << 16) | (0xFD << 8) | 16
"""``DM_DEV_ARM_POLL``, in every kernel since 4.14."""


class Events:
    """The kernel's events of device mapper. Opens its control device when first asked."""

    def __init__(self, control: Path = CONTROL) -> None:
        self._control = control
        self._descriptor = -1

    def changed(self) -> bool | None:
        """Whether anything happened since this was asked last; None where it cannot be told."""
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._control, os.O_RDWR | os.O_CLOEXEC)
                self._arm()
                return True
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            if not poll.poll(0):
                return False
            self._arm()
        except OSError:
            self.close()
            return None
        return True

    def _arm(self) -> None:
        # Before anybody looks, so that what happens while they look is told the next time.
        fcntl.ioctl(self._descriptor, _ARM_POLL, _REQUEST)

    def close(self) -> None:
        """Give the descriptor back; the next question opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def statuses(runner: Runner) -> dict[str, Status]:
    """The status of every multipath map of this node by the map's name, in one program.

    What is not as this driver makes it is left out, whoever made it. Raises what the runner raises.
    """
    result = await runner.run(["dmsetup", "status", "--target", "multipath"], timeout=_TIMEOUT)
    found: dict[str, Status] = {}
    for line in result.stdout.splitlines():
        name, _, text = line.partition(": ")
        try:
            found[name] = Status.parse(text)
        except UnknownMap:
            continue  # also of "No devices found", and of a map without a table
    return found
