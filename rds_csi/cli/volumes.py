"""``rds-csi volumes``: the volumes on the RDS for a person, and what nobody owns there.

It reads and changes nothing, neither on the RDS nor in the cluster. Of what looks like an orphan
it prints the lines that would mend it, for a person who knows what it holds.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rds_csi.cli.orphans import Orphan, find, made_for
from rds_csi.config import ConfigurationError, ControllerConfig, DriverConfig
from rds_csi.errors import InvalidRequest
from rds_csi.kubernetes.objects import Cluster
from rds_csi.model.node_id import node_name
from rds_csi.model.volume import GIB, MIB
from rds_csi.routeros import Disk, Disks, Session, SessionSettings, disk_health
from rds_csi.routeros.inventory import Inventory

_LARGEST: Final = 64 * MIB
"""Bytes of a file with the cluster's objects; 10,000 PersistentVolumes have some 20 MB."""

_WIDTH: Final = 160
"""Columns in which a row has room with its holders and its claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A volume as it stands on the RDS.

    ``claim`` is the one it is bound to, where the cluster was told, or else the one that it was
    made for, as its record says.
    """

    volume: str
    size: int
    file: str
    access: str
    generation: int
    nodes: tuple[str, ...]
    exported: bool
    nqn: str
    claim: str
    problems: tuple[str, ...]

    @classmethod
    def of(cls, disk: Disk, cluster: Cluster | None) -> "Row":
        """The row of a disk. One of the Go driver that nobody touched yet has no record."""
        record = disk.record
        persistent = cluster.volumes.get(disk.slot) if cluster else None
        return cls(
            volume=disk.slot,
            size=disk.size,
            file=disk.file_path,
            access=record.access if record else "",
            generation=record.generation if record else 0,
            nodes=tuple(node_name(each.node) for each in record.nodes) if record else (),
            exported=disk.exported,
            nqn=disk.nqn,
            claim=persistent.claim if persistent else made_for(record),
            problems=tuple(f"{each.reason}: {each.message}" for each in disk_health.problems(disk)),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The volumes in the order of their ids, and the orphans where they were asked for."""

    rows: list[Row]
    orphans: list[Orphan] | None = None


async def look(
    shared: DriverConfig,
    controller: ControllerConfig,
    *,
    orphans: bool,
    cluster: Cluster | None,
) -> Report:
    """Read the volumes, and hold them against the cluster where ``orphans`` are asked for.

    Raises :class:`DriverError` where the RDS does not answer, or not to this user.
    """
    session = Session(SessionSettings.of(controller))
    disks = Disks(
        session,
        owner=shared.owner,
        base_path=controller.defaults.volume_path,
        reserve=controller.reserve,
    )
    try:
        listed = sorted(await disks.list(), key=lambda disk: disk.slot)
        found = None
        if orphans:
            inventory = Inventory(session)
            files = await inventory.owned_files(shared.owner)
            used = {entry.disk.file_path for entry in await inventory.entries()}
            left = [file for file in files if file not in used]
            found = find(listed, left, shared.cluster_id, cluster)
        return Report([Row.of(disk, cluster) for disk in listed], found)
    finally:
        await session.close()


def read_cluster(file: Path, driver: str) -> Cluster:
    """The cluster's objects in a file; :class:`ConfigurationError` where it holds none."""
    try:
        if file.stat().st_size > _LARGEST:
            raise ConfigurationError(f"--pv-file {file} is larger than {_LARGEST // MIB} MiB")
        return Cluster.parse(file.read_text(), driver)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"--pv-file {file}: {why}") from None
    except InvalidRequest as error:
        raise ConfigurationError(f"--pv-file {file}: {error}") from None


def as_json(report: Report) -> str:
    """The report for programs."""
    whole: dict[str, Any] = {"volumes": [asdict(row) for row in report.rows]}
    if report.orphans is not None:
        whole["orphans"] = [asdict(orphan) for orphan in report.orphans]
    return json.dumps(whole, indent=2)


def show(report: Report, console: Console, write: Callable[[str], None]) -> None:
    """The report for people; ids are whole however narrow the terminal is."""
    if not report.rows:
        write("No volume of this cluster is on the RDS.")
    else:
        # Never cut: a terminal breaks a long line, and a pipe has no width at all.
        console.width = max(console.width, _WIDTH)
        console.print(_table(report.rows))
        total = sum(row.size for row in report.rows)
        write(f"{len(report.rows)} volume{'s' * (len(report.rows) != 1)}, {_size(total)}")
    for row in report.rows:
        for problem in row.problems:
            write(f"{row.volume}: {problem}")
    for orphan in report.orphans or ():
        write(f"\n{orphan.what}: {orphan.why}")
        for line in orphan.mend:
            write(f"    {line}")
    if report.orphans is not None and not report.orphans:
        write("Nothing without an owner was found.")


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("VOLUME", no_wrap=True)
    table.add_column("SIZE", justify="right", no_wrap=True)
    table.add_column("AS", no_wrap=True)
    table.add_column("GEN", justify="right", no_wrap=True)
    table.add_column("EXPORTED", no_wrap=True)
    table.add_column("NODES", overflow="fold")
    table.add_column("HEALTH", no_wrap=True)
    claims = any(row.claim for row in rows)
    if claims:
        table.add_column("CLAIM", overflow="fold")
    for row in rows:
        cells = [
            row.volume,
            _size(row.size) if row.size > 0 else "?",
            row.access or "-",
            str(row.generation),
            "yes" if row.exported else "no",
            ", ".join(row.nodes) or "-",
            "problem" if row.problems else "ok",
            *([row.claim or "-"] if claims else []),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
