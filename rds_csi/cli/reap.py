"""``rds-csi reap``: what the orphan reaper thinks of this host's connections, and why.

The same judge as in the daemon. A daemon that serves keeps locks that another process cannot
see, so beside one this command only looks.
"""

import asyncio
import json
import math
import socket
from collections.abc import Callable
from pathlib import Path

from rds_csi.config import ConfigurationError, DriverConfig, NodeConfig
from rds_csi.driver.connections import Host, build_connections
from rds_csi.errors import DriverError
from rds_csi.model.host_identity import host_identity
from rds_csi.model.node_id import make_node_id
from rds_csi.model.volume import is_volume_id
from rds_csi.node.connected import belongs
from rds_csi.nvme.arguments import is_our_nqn
from rds_csi.nvme.child import Prover
from rds_csi.nvme.readiness import Timings
from rds_csi.nvme.reaper import Finding, Verdict
from rds_csi.nvme.removal import Remover
from rds_csi.nvme.sysfs import Controller, Sysfs
from rds_csi.runtime.process import SubprocessRunner


def serves(endpoint: Path) -> bool:
    """Whether a driver answers on the socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(endpoint))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True  # something is there; what, is not ours to guess
    return True


async def reap(
    config: DriverConfig,
    node: NodeConfig,
    *,
    dry_run: bool,
    settle: float,
    give_up: str | None = None,
    sysfs: Sysfs | None = None,
) -> list[Finding]:
    """Judge every subsystem after two looks ``settle`` seconds apart, or give a volume up.

    Unless ``dry_run``, what both looks prove useless is disconnected. Raises
    :class:`ConfigurationError` where that is asked for beside a driver that serves, and for a
    ``settle`` that is no time.
    """
    if give_up is not None:
        return await give_volume_up(config, node, give_up, dry_run=dry_run, sysfs=sysfs)
    if not 0 <= settle < math.inf:
        raise ConfigurationError(f"--settle must be seconds, 0 or more, not {settle:g}")
    if not dry_run and serves(config.endpoint):
        raise ConfigurationError(
            f"a driver serves on {config.endpoint} and reaps by itself: only --dry-run is possible"
        )
    host = Host.of(config, node, make_node_id(config.cluster_id, node.node_id), sysfs)
    _, reaper = build_connections(
        config, node, host, locked=lambda _volume: False, grace=settle, dry_run=dry_run
    )
    try:
        await reaper.once()
        await asyncio.sleep(settle)
        return await reaper.once()
    finally:
        await host.runner.close()


async def give_volume_up(
    config: DriverConfig,
    node: NodeConfig,
    volume: str,
    *,
    dry_run: bool,
    sysfs: Sysfs | None = None,
) -> list[Finding]:
    """End the waiting of a volume whose RDS will not come back, in use or not.

    Beside a driver that serves, too: its own programs may be what waits. The kernel does the same
    when ``ctrlLossTmo`` is over. Raises :class:`ConfigurationError` where the volume is not
    connected under the node's name, or has its RDS.
    """
    if not is_volume_id(volume):
        raise ConfigurationError(f"--give-up takes a volume's id like pvc-…, not {volume[:128]!r}")
    sysfs = sysfs or Sysfs()
    host = host_identity(config.cluster_id, make_node_id(config.cluster_id, node.node_id))
    found = sysfs.controllers_of(
        lambda nqn: is_our_nqn(nqn, config.nqn_prefix) and belongs(nqn, volume)
    )
    own: dict[str, list[Controller]] = {}
    for controller in found:
        if controller.hostnqn == host.nqn:
            own.setdefault(controller.nqn, []).append(controller)
    if not own:
        raise ConfigurationError(f"{volume} is not connected on this host as {host.nqn}")
    if live := [each.name for controllers in own.values() for each in controllers if each.live]:
        raise ConfigurationError(
            f"{volume} has its RDS ({', '.join(live)} is live): stop its pods instead"
        )
    verdict = Verdict(True, "what was written and the RDS has not acknowledged is lost")
    if dry_run:
        return [Finding(nqn, verdict) for nqn in own]
    runner = SubprocessRunner()
    remover = Remover(
        Prover(runner, sysfs, host),
        sysfs,
        host,
        in_use=lambda _devno: True,  # nothing is to be removed, only to be given up
        timings=Timings(),
    )
    findings = []
    try:
        # The program that does it proves one name; each generation has its own.
        for nqn, controllers in own.items():
            error = ""
            try:
                await remover.give_up(controllers, volume=volume)
            except DriverError as problem:
                error = str(problem)
            findings.append(Finding(nqn, verdict, error))
    finally:
        await runner.close()
    return findings


def as_json(findings: list[Finding]) -> str:
    """The findings for programs."""
    return json.dumps(
        [
            {
                "nqn": each.nqn,
                "disconnect": each.verdict.disconnect,
                "reason": each.verdict.reason,
                "error": each.error,
            }
            for each in findings
        ],
        indent=2,
    )


def show(findings: list[Finding], *, dry_run: bool, write: Callable[[str], None]) -> None:
    """The findings for people."""
    if not findings:
        write("No NVMe subsystem is connected on this host.")
    for each in findings:
        act = "would be disconnected" if dry_run else "disconnected"
        if each.error:
            act = f"not disconnected ({each.error})"
        write(
            f"{each.nqn}\n    {act if each.verdict.disconnect else 'kept'}: {each.verdict.reason}"
        )
