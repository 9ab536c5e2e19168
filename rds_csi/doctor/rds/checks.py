"""The checks of an RDS: run where the controller runs, with its settings.

Proven in ``tests/rds/test_doctor.py``.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from rds_csi.config import ControllerConfig, DriverConfig
from rds_csi.doctor.check import Checks
from rds_csi.doctor.node.checks import check_nvme
from rds_csi.doctor.rds.login import connect
from rds_csi.doctor.rds.scratch import Bench, round_trip
from rds_csi.doctor.rds.unknowns import Finding, findings
from rds_csi.model.volume import GIB, MINIMUM_SIZE
from rds_csi.routeros import Capacity, Disks, Session, System, problems
from rds_csi.routeros.inventory import Entry, Inventory

POLICIES: Final = frozenset({"ssh", "read", "write", "test"})
"""What the RouterOS user's group has to grant, and all that it should."""
CLOCKS_APART: Final = 5.0
"""Seconds; below that a difference may be the way of the answer."""

_SCARCE: Final = 0.1
_SHOWN: Final = 5


@dataclass(slots=True)
class Examination:
    """What an RDS was found to be."""

    checks: Checks = field(default_factory=Checks)
    system: System | None = None
    pool: Capacity | None = None
    unknowns: list[Finding] = field(default_factory=list)


async def examine(
    shared: DriverConfig, controller: ControllerConfig, *, write: bool
) -> Examination:
    """Everything that can be seen of an RDS; with ``write`` also what scratch volumes tell."""
    found = Examination()
    session = await connect(found.checks, controller)
    if session is None:
        return found
    found.system = session.system
    try:
        exported = await _look(found, session, shared, controller)
        bench = Bench(session, shared, controller)
        await _check_leftovers(found.checks, bench, write=write)
        defaults = controller.defaults
        nvme = tuple((address, defaults.nvme_port) for address in defaults.nvme_addresses)
        if write:
            await round_trip(found.checks, bench, nvme)
        else:
            await check_nvme(found.checks, nvme, exported=exported)
        found.unknowns = await findings(bench, write=write)
        if bench.left:
            found.checks.fail(
                "scratch volumes",
                f"could not be removed: {'; '.join(bench.left)}",
                "run it again with --write: it removes what an earlier run left",
            )
    finally:
        await session.close()
    return found


# What can be read.


async def _look(
    found: Examination, session: Session, shared: DriverConfig, controller: ControllerConfig
) -> bool:
    """The checks that read; whether anything is exported at the driver's port."""
    checks, inventory = found.checks, Inventory(session)
    path = controller.defaults.volume_path
    disks = Disks(session, owner=shared.owner, base_path=path)
    await _check_storage(checks, inventory)
    await _check_policies(checks, inventory, controller.rds_user)
    await _check_pool(found, disks, controller)
    with checks.failing("volume directory", "see /file/print on the RDS"):
        if await inventory.has_directory(path):
            checks.ok("volume directory", path)
        else:
            checks.fail(
                "volume directory",
                f"the RDS has no directory {path}",
                f'/file/add type=directory name="{path}"',
            )
    await _check_clock(checks, inventory)
    exported = False
    with checks.failing("entries", "see /disk/print on the RDS"):
        entries = await inventory.entries()
        port = controller.defaults.nvme_port
        exported = any(each.disk.exported and each.disk.port == port for each in entries)
        _check_entries(checks, entries, shared.owner, path)
    return exported


async def _check_storage(checks: Checks, inventory: Inventory) -> None:
    name = "storage"
    with checks.failing(name, "is the rose-storage package installed, RouterOS 7.21 or newer?"):
        await inventory.require_exports()
        version = (await inventory.packages()).get("rose-storage")
        listed = f"package rose-storage {version}" if version else "no package rose-storage listed"
        checks.ok(name, f"{listed}; RouterOS knows all properties that are set")


async def _check_policies(checks: Checks, inventory: Inventory, user: str) -> None:
    name = "policies"
    advice = f"/user/group/set GROUP policy={','.join(sorted(POLICIES))}"
    with checks.failing(name, advice):
        group = await inventory.group(user)
        if group is None:
            checks.skip(name, f"RouterOS lists no user {user}; does it come by RADIUS?", advice)
            return
        advice = advice.replace("GROUP", group.name)
        missing, more = POLICIES - group.policies, group.policies - POLICIES
        if missing:
            checks.fail(name, f"group {group.name} lacks {', '.join(sorted(missing))}", advice)
        elif more:
            checks.warn(
                name,
                f"group {group.name} allows more than is needed: {', '.join(sorted(more))}",
                advice + "".join(f",!{policy}" for policy in sorted(more)),
            )
        else:
            checks.ok(name, f"group {group.name} has {', '.join(sorted(POLICIES))} and no more")


async def _check_pool(found: Examination, disks: Disks, controller: ControllerConfig) -> None:
    checks, name = found.checks, "pool"
    with checks.failing(name, "see /disk/print on the RDS"):
        pool = found.pool = await disks.capacity(controller.defaults.volume_path)
        text = (
            f"{pool.pool}: {pool.file_system or 'unknown file system'}, "
            f"{pool.room / GIB:.1f} of {pool.size / GIB:.1f} GiB free"
        )
        if pool.room < pool.free:
            text += f" and promised to no volume ({pool.free / GIB:.1f} GiB free by now)"
        if pool.room - controller.reserve < MINIMUM_SIZE:
            checks.fail(
                name,
                f"{text}, {controller.reserve / GIB:.1f} GiB of it kept in reserve: full",
                "delete what nobody needs, or enlarge the pool",
            )
        elif pool.room < pool.size * _SCARCE:
            checks.warn(name, text, "plan for more room; what is full cannot grow")
        else:
            checks.ok(name, text)


async def _check_clock(checks: Checks, inventory: Inventory) -> None:
    name = "clock"
    with checks.failing(name, "see /system/clock/print on the RDS"):
        before = time.time()
        there = (await inventory.clock()).timestamp()
        after = time.time()
        # It tells whole seconds: up to one less than it is.
        apart = there - after if there > after else min(0.0, there + 1 - before)
        if abs(apart) > CLOCKS_APART:
            word = "ahead of" if apart > 0 else "behind"
            checks.warn(
                name,
                f"the RDS is {abs(apart):.0f} s {word} this machine",
                "/system/ntp/client/set enabled=yes on the RDS, and a time service here",
            )
        else:
            checks.ok(name, f"within {CLOCKS_APART:.0f} s of this machine's")


def _check_entries(checks: Checks, entries: list[Entry], owner: str, path: str) -> None:
    name = "entries"
    disks = [entry.disk for entry in entries]
    ours = [entry for entry in entries if entry.disk.is_of(owner, path)]
    exported = sum(disk.exported for disk in disks)
    mine = sum(entry.disk.exported for entry in ours)
    checks.ok(
        name,
        f"{len(ours)} volumes of ours, {mine} of them exported; "
        f"{len(disks) - len(ours)} other disks over files, {exported - mine} of them exported",
    )
    names = Counter(disk.nqn for disk in disks if disk.exported and disk.nqn)
    for nqn, count in names.items():
        if count > 1:
            checks.fail(
                name,
                f"{count} disks are exported as {nqn}: a node gets either",
                "close all but one of these exports (nvme-tcp-export=no)",
            )
    mountable = [entry.disk.slot for entry in ours if entry.mountable]
    if mountable:
        checks.fail(
            name,
            f"RouterOS mounts what it finds in {_some(mountable)}, beside the node that uses it",
            f"unpublish, then /disk/set {mountable[0]} mount-filesystem=no",
        )
    sick = [(entry.disk.slot, each) for entry in ours for each in problems(entry.disk)]
    for slot, problem in sick[:_SHOWN]:
        checks.warn(name, f"{slot}: {problem.message}", f"{problem.reason} in docs/operations.md")
    if len(sick) > _SHOWN:
        checks.warn(name, f"{len(sick) - _SHOWN} more volumes are not well", "mend these first")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


async def _check_leftovers(checks: Checks, bench: Bench, *, write: bool) -> None:
    """Scratch volumes of a run that was killed; removed, if no other may be at work."""
    name = "scratch volumes"
    with checks.failing(name, "see /disk/print and /file/print on the RDS"):
        slots, busy = await bench.leftovers()
        if not slots:
            checks.ok(name, "none left by an earlier run")
        elif busy:
            checks.warn(
                name,
                f"{_some(slots)}: made within the last hour",
                "does another doctor run? If not, run this again later with --write",
            )
        elif not write:
            checks.warn(name, f"left by an earlier run: {_some(slots)}", "run it with --write")
        else:
            for slot in slots:
                await bench.remove(slot)
            checks.ok(name, f"removed what an earlier run left: {_some(slots)}")
