"""CSI 1.13.0 as Python: messages, ``...Base`` classes of services, ``...Stub`` classes of clients.

The one door to the generated package, so that nothing else depends on its layout.
"""

from rds_csi.csi.generated.csi.v1 import *  # noqa: F403
from rds_csi.csi.generated.csi.v1 import __all__ as __all__  # noqa: PLC0414
