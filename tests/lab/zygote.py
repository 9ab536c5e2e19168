"""Starts ``rds-csi`` processes by fork, with its modules already imported.

In the lab's emulated processor a fresh Python needs ten seconds to import the driver, and the
kill tests start it over a hundred times. A fork is a process like any other: it has its own
memory, its own sockets, and dies by SIGKILL.

It reads orders from standard input, a JSON object per line, and answers each with a pid.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import Any

from tests.lab import effects


def preload() -> None:
    """Import everything a driver could need."""
    import rds_csi  # noqa: PLC0415

    for module in pkgutil.walk_packages(rds_csi.__path__, "rds_csi."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def child(order: dict[str, Any]) -> int:
    """The forked process: what ``rds-csi ARGUMENTS`` would be. Returns its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, number in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, number)
    effects.watch(Path(order["plan"]), ignore=[order["log"], os.devnull])
    from rds_csi.cli.main import main  # noqa: PLC0415

    try:
        main(args=order["arguments"], prog_name="rds-csi")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def serve() -> None:
    """Fork for each order, until standard input ends."""
    preload()
    # The children are reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = child(order)
            finally:
                os._exit(status)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
