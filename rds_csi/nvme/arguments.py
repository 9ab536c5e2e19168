"""What ``nvme connect`` is told, and which names are ours.

Every setting is an option, and nothing is told by file where that can be helped: nvme-cli from
2.11 on takes *all* settings from the file of ``-J`` and none from the options (with ``-J none``
it connects nothing and says 0), and 3 has another format. But for ``fast_io_fail_tmo`` 2.3
(Debian 12) has no option. So the option is tried first; where it is not known, a file says it,
and all the rest as well. What came of it, :mod:`.live_settings` proves.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rds_csi.errors import CommandFailed
from rds_csi.model.contexts import Endpoint
from rds_csi.model.host_identity import HostIdentity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.model.volume import read_nqn
from rds_csi.nvme.cli_errors import says_unknown_option
from rds_csi.runtime.process import Runner

TRANSPORT: Final = "tcp"
VERBOSE: Final = "-v"
"""Without it, nvme-cli from 2.11 on keeps the kernel's errno to itself."""
_INT: Final = 2**31


async def run_connect(
    runner: Runner,
    endpoint: Endpoint,
    config: ConnectionConfig,
    host: HostIdentity,
    *,
    timeout: float,  # noqa: ASYNC109 - the deadline ends a program, not a coroutine
    volume: str,
) -> None:
    """Run ``nvme connect`` in the way that the installed nvme-cli understands.

    Raises what the runner raises. An option that is not known is refused before anything is done.
    """
    args = ["nvme", *connect_arguments(endpoint, config, host), VERBOSE]
    if config.fast_io_fail_tmo is None:
        await runner.run(args, timeout=timeout, volume=volume)
        return
    fast = ["-F", str(kernel_fast_io_fail_tmo(config))]
    try:
        await runner.run([*args, *fast], timeout=timeout, volume=volume)
    except CommandFailed as error:
        if not says_unknown_option(error, "-F"):
            raise
        with connect_file(endpoint, config, host) as file:
            await runner.run([*args, *file], timeout=timeout, volume=volume)


def connect_arguments(
    endpoint: Endpoint, config: ConnectionConfig, host: HostIdentity | None
) -> list[str]:
    """The arguments of ``nvme``, beginning with ``connect``; ``fast_io_fail_tmo`` is not in them.

    A timer at the value that means "the kernel's own" is left out: 0 for ``ctrl_loss_tmo`` and
    ``keep_alive_tmo``. -1 for ``ctrl_loss_tmo`` never gives up. Host NQN and host id go
    together: the kernel refuses one host id under two host NQNs.
    """
    arguments = ["connect", "-t", TRANSPORT, "-a", endpoint.address, "-s", str(endpoint.port)]
    arguments += ["-n", endpoint.nqn]
    if config.ctrl_loss_tmo != 0:
        arguments += ["-l", str(kernel_ctrl_loss_tmo(config))]
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


def kernel_ctrl_loss_tmo(config: ConnectionConfig) -> int:
    """The number that the kernel is told, which is less only where it would count wrongly.

    It rounds up to attempts in ``int``, and so near 2**31 gets a negative number of them: a
    connection that gives up at the first outage (seen with 2147483647 and a delay of 5).
    """
    return min(config.ctrl_loss_tmo, _INT - max(config.reconnect_delay, 1))


def kernel_fast_io_fail_tmo(config: ConnectionConfig) -> int:
    """The number that the kernel is told, where there is one: no nvme-cli hands on a 0."""
    return max(config.fast_io_fail_tmo or 0, 1)


def connect_json(endpoint: Endpoint, config: ConnectionConfig, host: HostIdentity) -> str:
    """All settings as ``-J`` of nvme-cli 2 reads them."""
    settings = {
        "ctrl_loss_tmo": kernel_ctrl_loss_tmo(config),
        "reconnect_delay": config.reconnect_delay,
        "keep_alive_tmo": config.keep_alive_tmo,
        "nr_io_queues": config.nr_io_queues,
        "queue_size": config.queue_size,
    }
    port = {
        "transport": TRANSPORT,
        "traddr": endpoint.address,
        "trsvcid": str(endpoint.port),
        **{name: value for name, value in settings.items() if value != 0},
    }
    if config.fast_io_fail_tmo is not None:
        port["fast_io_fail_tmo"] = kernel_fast_io_fail_tmo(config)
    subsystem = {"nqn": endpoint.nqn, "ports": [port]}
    return json.dumps([{"hostnqn": host.nqn, "hostid": host.hostid, "subsystems": [subsystem]}])


@contextmanager
def connect_file(
    endpoint: Endpoint, config: ConnectionConfig, host: HostIdentity
) -> Iterator[list[str]]:
    """The arguments that name a file of :func:`connect_json`, while the block runs.

    The file is in memory: nothing is left behind, and a read-only root does not matter.
    """
    descriptor = os.memfd_create("nvme-connect")
    try:
        os.write(descriptor, connect_json(endpoint, config, host).encode())
        yield ["-J", f"/proc/{os.getpid()}/fd/{descriptor}"]
    finally:
        os.close(descriptor)


def is_our_nqn(nqn: str, prefix: str) -> bool:
    """Whether we make such NQNs: the configured prefix, a colon, a volume id, its generation.

    A host may boot from NVMe-oF under any other name, even under the same prefix: only what
    passes here is ever disconnected.
    """
    return read_nqn(nqn, prefix) is not None
