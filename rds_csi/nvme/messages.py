"""What nvme-cli says when a connect fails, and what it means.

The texts are those of nvme-cli 2.3 on Linux 6.1, as seen; the kernel's errno is in the first
line, libnvme's reading of it in the second. Several causes share EIO: the reason then stands in
the kernel log alone.
"""

from rds_csi.errors import CommandFailed, ConnectFailed, ConnectRejected, DriverError, NotReady
from rds_csi.parameters import Target
from rds_csi.retry import PERMANENT_TEXTS

MODPROBE = "run `modprobe nvme-tcp` on the node and have it loaded at boot"


def says_already_connected(error: CommandFailed) -> bool:
    """Whether the kernel or nvme-cli found such a connection: somebody was faster."""
    text = error.stderr.lower()
    return "already connected" in text or "operation already in progress" in text


def connect_error(
    error: CommandFailed, target: Target, *, transport: bool, volume: str
) -> DriverError:
    """The error to raise for a failed ``nvme connect``.

    ``transport``: whether the module for NVMe/TCP is loaded; without it the kernel says "Invalid
    argument", as it does for settings it does not take.
    """
    text = " ".join(error.stderr.split())
    lowered = text.lower()
    if "failed to scan topology" in lowered or (not transport and "invalid argument" in lowered):
        return NotReady("the kernel has no NVMe/TCP", volume=volume, advice=MODPROBE)
    what = f"connecting to {target.address}:{target.port} failed: {text[:500]}"
    if "input/output error" in lowered:
        return ConnectFailed(
            what,
            volume=volume,
            advice=f"the target answered and refused: it does not export {target.nqn}, or not to "
            "this host; the kernel log of the node says which",
        )
    if any(permanent in lowered for permanent in (*PERMANENT_TEXTS, "unrecognized option")):
        return ConnectRejected(what, volume=volume)
    return ConnectFailed(what, volume=volume)
