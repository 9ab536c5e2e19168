"""What ``nvme connect`` is told, and which names are ours.

The options are those that nvme-cli 2.3 (Debian 12) and 2.13 (Debian 13) both know. One setting
has no option in 2.3: ``fast_io_fail_tmo``. Both versions read it from a JSON file (``-J``,
see ``nvme-connect(1)`` and the configuration schema of libnvme), so it goes that way.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rds_csi.nvme.host import HostIdentity
from rds_csi.parameters import ConnectionConfig, Target
from rds_csi.volume import is_volume_id

TRANSPORT: Final = "tcp"


def connect_arguments(
    target: Target, config: ConnectionConfig, host: HostIdentity | None
) -> list[str]:
    """The arguments of ``nvme``, beginning with ``connect``.

    A timer at the value that means "the kernel's own" is left out: 0 for ``ctrl_loss_tmo`` and
    ``keep_alive_tmo``. -1 for ``ctrl_loss_tmo`` never gives up. Host NQN and host id go
    together: the kernel refuses one host id under two host NQNs.
    """
    arguments = ["connect", "-t", TRANSPORT, "-a", target.address, "-s", str(target.port)]
    arguments += ["-n", target.nqn]
    if config.ctrl_loss_tmo != 0:
        arguments += ["-l", str(config.ctrl_loss_tmo)]
    if config.reconnect_delay > 0:
        arguments += ["-c", str(config.reconnect_delay)]
    if config.keep_alive_tmo > 0:
        arguments += ["-k", str(config.keep_alive_tmo)]
    if host is not None and host.nqn:
        arguments += ["-q", host.nqn, "-I", host.hostid]
    if config.nr_io_queues > 0:
        arguments += ["--nr-io-queues", str(config.nr_io_queues)]
    if config.queue_size > 0:
        arguments += ["--queue-size", str(config.queue_size)]
    return arguments


def connect_json(target: Target, config: ConnectionConfig, host: HostIdentity) -> str:
    """The settings for which there is no option, as ``-J`` reads them; empty if there are none."""
    if config.fast_io_fail_tmo is None:
        return ""
    port = {
        "transport": TRANSPORT,
        "traddr": target.address,
        "trsvcid": str(target.port),
        "fast_io_fail_tmo": config.fast_io_fail_tmo,
    }
    subsystem = {"nqn": target.nqn, "ports": [port]}
    return json.dumps([{"hostnqn": host.nqn, "hostid": host.hostid, "subsystems": [subsystem]}])


@contextmanager
def connect_file(
    target: Target, config: ConnectionConfig, host: HostIdentity
) -> Iterator[list[str]]:
    """The arguments that name a file of :func:`connect_json`, while the block runs.

    The file is in memory: nothing is left behind, and a read-only root does not matter.
    """
    text = connect_json(target, config, host)
    if not text:
        yield []
        return
    descriptor = os.memfd_create("nvme-connect")
    try:
        os.write(descriptor, text.encode())
        yield ["-J", f"/proc/{os.getpid()}/fd/{descriptor}"]
    finally:
        os.close(descriptor)


def is_our_nqn(nqn: str, prefix: str) -> bool:
    """Whether we make such NQNs: the configured prefix, a colon, and a volume id.

    A host may boot from NVMe-oF under any other name, even under the same prefix: only what
    passes here is ever disconnected.
    """
    head, colon, slot = nqn.rpartition(":")
    return bool(colon) and head == prefix and is_volume_id(slot)
