"""``rds-csi doctor node`` and ``rds-csi doctor rds``: look, show, and say by the exit status."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from rds_csi.config import ConfigurationError, ControllerConfig, DriverConfig, NodeConfig
from rds_csi.doctor.check import Checks
from rds_csi.doctor.node import checks as node_checks
from rds_csi.doctor.node.checks import Address
from rds_csi.doctor.rds import checks as rds_checks
from rds_csi.doctor.rds.unknowns import Finding
from rds_csi.doctor.report import markdown
from rds_csi.doctor.show import as_json, show, unknowns_as_json
from rds_csi.runtime import threads
from rds_csi.runtime.process import SubprocessRunner


def doctor_node(
    shared: DriverConfig,
    node: NodeConfig,
    *,
    nvme: tuple[Address, ...],
    ssh: Address | None,
    for_programs: bool,
) -> int:
    """Examine this node and print what was found; the exit status."""

    async def look() -> Checks:
        runner = SubprocessRunner()
        try:
            return await node_checks.examine(shared, node, runner, nvme=nvme, ssh=ssh)
        finally:
            await runner.close()

    checks = threads.run(look())
    _print(checks, (), for_programs=for_programs)
    return int(checks.failed)


def doctor_rds(
    shared: DriverConfig,
    controller: ControllerConfig,
    *,
    write: bool,
    report: Path | None,
    addresses: bool,
    for_programs: bool,
) -> int:
    """Examine the RDS and print what was found; the exit status.

    Raises :class:`ConfigurationError` where the report cannot be written, before anything else.
    """
    if report is not None:
        _write(report, "")
    found = threads.run(rds_checks.examine(shared, controller, write=write))
    if report is not None:
        _write(report, markdown(found, shared, controller, addresses=addresses, write=write))
    _print(found.checks, found.unknowns, for_programs=for_programs)
    return int(found.checks.failed)


def _write(report: Path, text: str) -> None:
    try:
        # The user's own eyes first: it may be sent on, or not.
        descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"--report {report}: {error.strerror}") from None


def _print(checks: Checks, unknowns: Sequence[Finding], *, for_programs: bool) -> None:
    if for_programs:
        more = {"unknowns": unknowns_as_json(unknowns)} if unknowns else {}
        click.echo(as_json(checks, **more))
    else:
        show(Console(highlight=False), checks, unknowns)
