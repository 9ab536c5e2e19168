"""The lab: a virtual machine in which real NVMe/TCP runs, on any Debian machine.

Few kernels of build machines and containers have ``nvme-tcp`` and ``nvmet``; Debian's has both.
The lab boots it over the host's own file system, read-only: same virtual environment, same
programs, no image to build. The kernel tests, csi-sanity and ``rds-csi demo`` run in it.
"""

from rds_csi.lab.host import LabUnavailable, install_programs
from rds_csi.lab.machine import Lab, LabFailed

__all__ = ["Lab", "LabFailed", "LabUnavailable", "install_programs"]
