"""What nvme-cli says when a connect fails, and what it means.

The texts are those of nvme-cli 2.3, 2.13, 2.16 and 3.1 on Linux 6.1, as seen (`nox -s kernel` sees
them again); the kernel's errno is in the first line, libnvme's reading of it in the second.
Several causes share EIO: the reason then stands in the kernel log alone.
"""

from rds_csi.errors import CommandFailed, ConnectFailed, ConnectRejected, DriverError, NotReady
from rds_csi.model.contexts import Endpoint
from rds_csi.runtime.retry import PERMANENT_TEXTS

_NO_MODULE = ("failed to scan topology", "failed to open /dev/nvme-fabrics: no such")
MODPROBE = "run `modprobe nvme-tcp` on the node and have it loaded at boot"


def says_already_connected(error: CommandFailed) -> bool:
    """Whether the kernel or nvme-cli found such a connection: somebody was faster.

    nvme-cli 3 says so on its standard output alone, and ends with 1.
    """
    text = error.stderr.lower()
    known = ("already connected", "operation already in progress")
    return any(words in text for words in known) or (not text.strip() and error.returncode == 1)


def says_unknown_option(error: CommandFailed, option: str) -> bool:
    """Whether nvme-cli is too old for the option; it has done nothing then."""
    return f"unrecognized option '{option}'" in error.stderr


def connect_error(
    error: CommandFailed, endpoint: Endpoint, *, transport: bool, volume: str
) -> DriverError:
    """The error to raise for a failed ``nvme connect``.

    ``transport``: whether the module for NVMe/TCP is loaded; without it the kernel says "Invalid
    argument", as it does for settings it does not take.
    """
    text = " ".join(error.stderr.split()) or error.what
    lowered = text.lower()
    if any(words in lowered for words in _NO_MODULE) or (
        not transport and "invalid argument" in lowered
    ):
        return NotReady("the kernel has no NVMe/TCP", volume=volume, advice=MODPROBE)
    what = f"connecting to {endpoint.address}:{endpoint.port} failed: {text[:500]}"
    if "input/output error" in lowered:
        return ConnectFailed(
            what,
            volume=volume,
            advice=f"the target answered and refused: it does not export {endpoint.nqn}, or not to "
            "this host; the kernel log of the node says which",
        )
    if any(permanent in lowered for permanent in (*PERMANENT_TEXTS, "unrecognized option")):
        return ConnectRejected(what, volume=volume)
    return ConnectFailed(what, volume=volume)
