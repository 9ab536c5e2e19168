"""Who this node is to the RDS, and whether anybody else on it says to be the same.

A host NQN belongs to one node. Where two share one (an image cloned with its ``/etc/nvme``, for
one), a target cannot tell them apart: fencing admits both, and both write. Ours is made of
cluster id and node name, so what can go wrong is that something else uses it as well. The kernel
refuses one host id under two host NQNs.
"""

from pathlib import Path
from typing import Final

from rds_csi.doctor.check import Checks
from rds_csi.model.host_identity import HostIdentity
from rds_csi.nvme.arguments import is_our_nqn
from rds_csi.nvme.sysfs import Controller, Sysfs

NVME_FILES: Final = Path("/etc/nvme")


def check_identity(
    checks: Checks, sysfs: Sysfs, host: HostIdentity, prefix: str, *, files: Path = NVME_FILES
) -> None:
    """The host NQN, the files that other tools take theirs from, and every connection."""
    checks.ok("host NQN", host.nqn)
    _check_files(checks, host, files)
    _check_connections(checks, sysfs.controllers(), host, prefix)


def _check_files(checks: Checks, host: HostIdentity, files: Path) -> None:
    name = "host NQN files"
    nqn, hostid = _read(files / "hostnqn"), _read(files / "hostid")
    if nqn == host.nqn or hostid.lower() == host.hostid:
        checks.fail(
            name,
            f"{files} holds the driver's own identity: whatever connects by default is taken for "
            "the driver, and a node cloned from this one for this node",
            f"give this host another one: nvme gen-hostnqn > {files}/hostnqn; rm {files}/hostid",
        )
    elif nqn:
        checks.ok(name, f"{files}/hostnqn is another identity, as it should be: {nqn}")
    else:
        checks.ok(name, f"{files} holds none; the driver needs none")


def _check_connections(
    checks: Checks, controllers: list[Controller], host: HostIdentity, prefix: str
) -> None:
    name = "connections"
    fabrics = [each for each in controllers if each.hostnqn]  # the machine's own disks have none
    ours = [each for each in fabrics if is_our_nqn(each.nqn, prefix)]
    for each in fabrics:
        mine = each.hostnqn == host.nqn
        if each in ours and not mine:
            checks.fail(
                name,
                f"{each.name} has a volume of the driver ({each.nqn}) under another host NQN: "
                f"{each.hostnqn}",
                "is --cluster-id or --node-id another one than before? Else disconnect it with "
                "what connected it, after unmounting: a second identity is a second writer",
            )
        elif each not in ours and mine:
            checks.warn(
                name,
                f"{each.name} ({each.nqn}) is no volume of the driver, but uses its host NQN",
                "connect it with a host NQN of its own (nvme connect --hostnqn)",
            )
        elif (each.hostid.lower() == host.hostid) != mine and each.hostid:
            checks.fail(
                name,
                f"{each.name} ({each.nqn}) has host id {each.hostid} with host NQN {each.hostnqn}: "
                "the kernel refuses the driver's connects, whose pair is another one",
                "connect it with a host NQN and host id of its own",
            )
    if not any(check.name == name for check in checks):
        live = sum(each.live for each in ours)
        checks.ok(
            name,
            f"{len(fabrics)} over NVMe-oF, {len(ours)} of them to our volumes, {live} live",
        )


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
