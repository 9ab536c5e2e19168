"""A block device of a volume on a node, and what proves that it is the volume's."""

from dataclasses import dataclass
from pathlib import Path

DeviceNumber = tuple[int, int]
"""Major and minor."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device node, the number it must have, and whose it must be.

    Names and numbers are given anew, in the same instant, to another volume. What stays is the
    subsystem's NQN and the host NQN of a controller that leads to it: they are proven.

    ``map`` is the dm UUID where it is a map over the NVMe device (:mod:`rds_csi.pathlayer.maps`):
    then that is proven, and of each device that it leads to what else would be proven of it.
    """

    path: Path
    devno: DeviceNumber
    nqn: str
    host_nqn: str
    map: str = ""

    @property
    def number(self) -> str:
        """The number as the kernel writes it."""
        return f"{self.devno[0]}:{self.devno[1]}"
