"""The checks of a node: run where the node service runs, with its settings."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.doctor.check import Checks
from rds_csi.doctor.node.driver_socket import check_socket
from rds_csi.doctor.node.host_nqn import NVME_FILES, check_identity
from rds_csi.doctor.node.prerequisites import (
    check_clock,
    check_kernel,
    check_kubelet_directory,
    check_path_layer,
    check_programs,
    check_state_directory,
    which,
)
from rds_csi.doctor.node.time_sync import ClockState, clock_state
from rds_csi.doctor.reach import NVME, SSH, Answer, Reach, reach
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.host_identity import host_identity
from rds_csi.model.node_id import make_node_id
from rds_csi.nvme.arguments import is_our_nqn
from rds_csi.nvme.dialer import FABRICS
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import Runner

Address = tuple[str, int]
MODULE: Final = Path("/sys/module/nvme_core/parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a node keeps what is looked at; tests have nodes of their own making."""

    sysfs: Sysfs = field(default_factory=Sysfs)
    module: Path = MODULE
    fabrics: Path = FABRICS
    nvme_files: Path = NVME_FILES
    mount_table: Path = Path("/proc/self/mountinfo")
    which: Callable[[str], str | None] = which
    clock: Callable[[], ClockState] = clock_state
    user: Callable[[], int] = os.geteuid


async def examine(
    shared: DriverConfig,
    node: NodeConfig,
    runner: Runner,
    *,
    nvme: tuple[Address, ...] = (),
    ssh: Address | None = None,
    places: Places | None = None,
) -> Checks:
    """Everything that can be seen on a node. ``nvme`` and ``ssh`` are the RDS's addresses."""
    places = places or Places()
    checks = Checks()
    mounts = Mounts(runner, table=places.mount_table)
    if places.user() == 0:
        checks.ok("user", "root")
    else:
        checks.warn("user", f"user {places.user()}, not root", "run it as root, as the driver is")
    several = len(nvme) > 1
    check_kernel(checks, places.sysfs, places.module, places.fabrics, several=several)
    await check_programs(checks, runner, places.which)
    await check_path_layer(checks, runner, places.which)
    host = host_identity(shared.cluster_id, make_node_id(shared.cluster_id, node.node_id))
    check_identity(checks, places.sysfs, host, shared.nqn_prefix, files=places.nvme_files)
    check_kubelet_directory(checks, mounts, node.kubelet_dir)
    check_state_directory(checks, mounts, node.state_dir)
    await check_socket(checks, shared.endpoint, shared.driver_name)
    check_clock(checks, places.clock)
    await check_addresses(checks, nvme or _used(places.sysfs, shared.nqn_prefix), ssh)
    return checks


def _used(sysfs: Sysfs, prefix: str) -> tuple[Address, ...]:
    """The addresses that volumes of the driver are connected to, each once."""
    used = (
        (each.address, each.port)
        for each in sysfs.controllers()
        if is_our_nqn(each.nqn, prefix) and each.address and each.port
    )
    return tuple(dict.fromkeys(used))


async def check_addresses(checks: Checks, nvme: tuple[Address, ...], ssh: Address | None) -> None:
    """Whether the RDS answers from here, at each of its addresses."""
    if not nvme:
        checks.skip("NVMe address", "not known here: no volume is connected", "give --nvme-address")
    await check_nvme(checks, nvme, exported=False)
    if ssh is not None:
        found = await reach(*ssh, SSH)
        if found.answer is Answer.OPEN:
            checks.ok("SSH address", found.found)
        else:
            checks.fail(
                "SSH address", found.found, "is it the RDS, its ssh service on (/ip/service)?"
            )


async def check_nvme(
    checks: Checks, addresses: tuple[Address, ...], *, exported: bool
) -> list[Address]:
    """Those at which a target answers; ``exported``: something is exported now, so one has to.

    Volumes need one of them. Each that does not answer is a failure: the next one would be an
    outage.
    """
    found = await asyncio.gather(*(reach(*address, NVME) for address in addresses))
    for each in found:
        _judge(checks, each, exported=exported)
    return [
        address
        for address, each in zip(addresses, found, strict=True)
        if each.answer is Answer.OPEN
    ]


def _judge(checks: Checks, found: Reach, *, exported: bool) -> None:
    match found.answer:
        case Answer.OPEN:
            checks.ok("NVMe address", found.found)
        case Answer.REFUSED if not exported:
            checks.warn(
                "NVMe address",
                found.found,
                "so it is while the RDS exports nothing; look again when a volume is published",
            )
        case Answer.REFUSED:
            checks.fail(
                "NVMe address", found.found, "is it the RDS's, and the port that of the exports?"
            )
        case _:
            checks.fail(
                "NVMe address",
                found.found,
                "look at routes, firewalls and MTU between here and the RDS's data address",
            )
