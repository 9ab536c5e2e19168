"""An RDS anyone can run: RouterOS over SSH, real files, and real NVMe/TCP exports where Linux can.

It imitates the parts of RouterOS 7 that a storage driver meets: the script language, ``/disk``,
``/file``, ``/system``; their quirks, and the faults of a machine at the far end of a network.
What is imitated on which evidence stands in ``docs/fidelity.md``. It shares no code with the
driver, so that no misunderstanding can be shared either.
"""

from rds_csi.simulator.device.faults import Fault, Quirks
from rds_csi.simulator.simulator import Simulator

__all__ = ["Fault", "Quirks", "Simulator"]
