"""A Kubernetes CSI driver for MikroTik ROSE Data Server: files exported over NVMe/TCP."""

import sys

__version__ = "0.1.0"


def _import_structlog() -> None:
    """Import structlog as if rich were not installed; only our commands that print use rich.

    structlog.dev imports rich wherever it finds it, for tracebacks that we never print that way:
    a fifth of the driver's start and 5 MiB of every node.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # lets the import fail
    try:
        import structlog  # noqa: F401, PLC0415
    finally:
        del sys.modules["rich"]


_import_structlog()
