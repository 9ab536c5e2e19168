"""The command line: each setting is a flag and an environment variable.

Only the daemon's own needs are imported at the top; what prints tables or boots machines is
imported by the command that does it.
"""

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from rds_csi import __version__
from rds_csi.cli.options import (
    address_options,
    controller_config,
    controller_options,
    data_address,
    driver_options,
    node_options,
    option,
    options,
    pick,
    refuse,
)
from rds_csi.config import (
    DEFAULT_NQN_PREFIX,
    ConfigurationError,
    DriverConfig,
    NodeConfig,
    check_host,
    volume_defaults,
)
from rds_csi.errors import DriverError
from rds_csi.telemetry.sink import occupy_standard_descriptors

_EXIT_FAILED: Final = 1

_STANDARD_ERROR: Final = 2


class _Commands(click.Group):
    """The commands, with what any of them may meet outside: bad streams, a full disk."""

    def main(self, *words: Any, **settings: Any) -> Any:
        """Run one; what the system refuses is a sentence and status 1, never a traceback."""
        _open_streams()
        try:
            return super().main(*words, **settings)
        except OSError as error:
            with suppress(OSError):
                click.echo(f"rds-csi: {error}", err=True)
            # What is still to be written to a full disk must not be tried again at exit.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_EXIT_FAILED)


def _open_streams() -> None:
    """Make the standard streams usable, whatever they were started with.

    A closed one would give its number to the next file or socket, and what is printed would go
    there. A terminal that cannot show a letter gets ``?``.
    """
    for number, mode in enumerate("rww"):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one; programs may inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            # Not standard error: the log counts what it cannot show, and click prints nothing.
            if number < _STANDARD_ERROR:
                stream = open(number, mode, closefd=False)  # noqa: SIM115 - for good
                setattr(sys, ("stdin", "stdout")[number], stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="rds-csi")
def main() -> None:
    """Kubernetes CSI driver for MikroTik ROSE Data Server."""
    occupy_standard_descriptors()


@main.command()
@driver_options
@controller_options
def controller(**flags: Any) -> None:
    """Serve Identity and Controller: volumes on the RDS."""
    _serve(flags, with_controller=True, with_node=False)


@main.command()
@driver_options
@node_options
@data_address
def node(**flags: Any) -> None:
    """Serve Identity and Node: connect, format and mount on this host."""
    _serve(flags, with_controller=False, with_node=True)


@main.command("all")
@driver_options
@controller_options
@node_options
def everything(**flags: Any) -> None:
    """Serve all three services on one socket: for trying and testing."""
    _serve(flags, with_controller=True, with_node=True)


@main.command()
@option("--cluster-id", required=True, help="As the driver has it.")
@option("--node-id", required=True, help="As the driver has it.")
@option("--nqn-prefix", default=DEFAULT_NQN_PREFIX, help="As the driver has it.")
@option("--endpoint", type=click.Path(path_type=Path), default=Path("/csi/csi.sock"), help="Same.")
@option(
    "--state-dir", type=click.Path(path_type=Path), default=Path("/var/lib/rds-csi"), help="Same."
)
@click.option("--dry-run", is_flag=True, help="Look and say why; touch nothing.")
@click.option("--settle", default=10.0, show_default=True, help="Seconds between the two looks.")
@click.option("--give-up", metavar="VOLUME", help="End the waiting for an RDS that is gone.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def reap(*, dry_run: bool, settle: float, as_json: bool, give_up: str | None, **flags: Any) -> None:
    """Say of each NVMe connection of this host why it is kept; take down proven orphans."""
    from rds_csi.cli import reap as command  # noqa: PLC0415 - not needed to print the help
    from rds_csi.runtime import threads  # noqa: PLC0415
    from rds_csi.telemetry import logs  # noqa: PLC0415

    logs.configure(level="warning", style="console")
    try:
        shared = DriverConfig(**pick(flags, DriverConfig))
        node_config = NodeConfig(**pick(flags, NodeConfig))
        work = command.reap(shared, node_config, dry_run=dry_run, settle=settle, give_up=give_up)
        findings = threads.run(work)
    except ConfigurationError as error:
        refuse(str(error))
    if as_json:
        click.echo(command.as_json(findings))
    else:
        command.show(findings, dry_run=dry_run, write=click.echo)


@main.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Run a simulated RDS.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulate(arguments: tuple[str, ...]) -> None:
    """Run a simulated RDS; ``rds-csi simulate --help`` lists its options."""
    from rds_csi.simulator.command import simulate as command  # noqa: PLC0415 - not for a daemon

    command.main(args=list(arguments), prog_name="rds-csi simulate")


@main.command()
@click.option("--here", is_flag=True, help="On this machine's own kernel, or not at all.")
@click.option("--lab", is_flag=True, help="In a virtual machine, even if this kernel could.")
def demo(*, here: bool, lab: bool) -> None:
    """Walk one volume of each kind through its life and an outage, for real."""
    from rds_csi.demo import command  # noqa: PLC0415 - no daemon shows demos

    lacks = "nothing, but --lab was given" if lab else command.kernel_lacks()
    if lacks and here:
        refuse(f"the demo cannot run here: this machine lacks {lacks}")
    sys.exit(command.demo_in_lab(lacks) if lacks else command.demo_here())


@main.group()
def doctor() -> None:
    """Look whether a node, or the RDS, is as the driver needs it, and say what to do if not.

    Exit status: 0 all is well (warnings included), 1 something has to be done, 2 wrong settings.
    """


def _settings_of(context: click.Context, _: click.Parameter, process: int | None) -> None:
    """Make the flags of a running driver the defaults of this command's."""
    if process is None:
        return
    try:
        content = Path(f"/proc/{process}/cmdline").read_bytes().rstrip(b"\0")
    except OSError as error:
        raise click.BadParameter(f"process {process}: {error.strerror}") from None
    words = [os.fsdecode(word) for word in content.split(b"\0")]
    role = next((word for word in words[1:] if word in ("controller", "node", "all")), None)
    if role is None:
        raise click.BadParameter(f"process {process} is no driver: {' '.join(words)[:200]}")
    flags = words[words.index(role) + 1 :]
    context.default_map = main.commands[role].make_context(role, flags).params


_settings_options = options(
    click.option(
        "--settings-of",
        type=click.IntRange(1),
        is_eager=True,
        expose_value=False,
        callback=_settings_of,
        metavar="PID",
        help="Take the settings from this running driver; in its container it is process 1.",
    ),
    click.option("--json", "as_json", is_flag=True, help="For programs."),
)


@doctor.command("node")
@_settings_options
@address_options
@driver_options
@node_options
def doctor_node(*, as_json: bool, **flags: Any) -> None:
    """Look at this node: kernel, programs, identity, mounts, driver, and the way to the RDS."""
    from rds_csi.doctor import command  # noqa: PLC0415 - no daemon is a doctor
    from rds_csi.telemetry import logs  # noqa: PLC0415

    logs.configure(level="error", style="console")
    try:
        given = volume_defaults(
            {"nvmeAddress": flags["nvme_address"], "nvmePort": flags["nvme_port"]}
        )
        nvme = tuple((address, given.nvme_port) for address in given.nvme_addresses)
        if flags["rds_address"]:
            check_host("--rds-address", flags["rds_address"])
        ssh = (flags["rds_address"], flags["rds_port"]) if flags["rds_address"] else None
        shared = DriverConfig(**pick(flags, DriverConfig))
        of_node = NodeConfig(**pick(flags, NodeConfig))
    except ConfigurationError as error:
        refuse(str(error))
    sys.exit(command.doctor_node(shared, of_node, nvme=nvme, ssh=ssh, for_programs=as_json))


@doctor.command("rds")
@_settings_options
@driver_options
@controller_options
@click.option("--write", is_flag=True, help="Also make, export and remove scratch volumes.")
@click.option("--report", type=click.Path(path_type=Path), help="Write a report to send to us.")
@click.option("--report-addresses", is_flag=True, help="With addresses and names in it.")
def doctor_rds(
    *, as_json: bool, write: bool, report: Path | None, report_addresses: bool, **flags: Any
) -> None:
    """Look at the RDS: keys, version, policies, pool, entries; changes nothing without --write."""
    from rds_csi.doctor import command  # noqa: PLC0415 - no daemon is a doctor
    from rds_csi.telemetry import logs  # noqa: PLC0415

    # What the driver would log of a failure is what the table says.
    logs.configure(level="error", style="console")
    try:
        shared = DriverConfig(**pick(flags, DriverConfig))
        status = command.doctor_rds(
            shared,
            controller_config(flags),
            write=write,
            report=report,
            addresses=report_addresses,
            for_programs=as_json,
        )
    except ConfigurationError as error:
        refuse(str(error))
    sys.exit(status)


@main.command()
@_settings_options
@driver_options
@node_options
@click.option("--yes", is_flag=True, help="Do it; without this it says what would be done.")
@click.argument("volume")
def release(*, as_json: bool, yes: bool, volume: str, **flags: Any) -> None:
    """End the waiting of VOLUME's I/O with errors: its RDS will never have it again."""
    from rds_csi.cli import release as command  # noqa: PLC0415 - no daemon releases
    from rds_csi.runtime import threads  # noqa: PLC0415
    from rds_csi.telemetry import logs  # noqa: PLC0415

    logs.configure(level="error", style="console")
    try:
        shared = DriverConfig(**pick(flags, DriverConfig))
        of_node = NodeConfig(**pick(flags, NodeConfig))
        released = threads.run(command.release(shared, of_node, volume, really=yes))
    except ConfigurationError as error:
        refuse(str(error))
    except DriverError as error:
        click.echo(f"rds-csi: {error}", err=True)
        sys.exit(_EXIT_FAILED)
    if as_json:
        click.echo(command.as_json(released))
    else:
        command.show(released, really=yes, write=click.echo)
    if any(each.error for each in released):
        sys.exit(_EXIT_FAILED)


@main.command()
@_settings_options
@driver_options
@controller_options
@click.option("--orphans", is_flag=True, help="Also what has no owner; nothing is removed.")
@click.option(
    "--pv-file",
    type=click.Path(path_type=Path),
    help="What `kubectl get pv,csinodes -o json` printed: names the claims, finds orphans.",
)
def volumes(*, as_json: bool, orphans: bool, pv_file: Path | None, **flags: Any) -> None:
    """List the volumes on the RDS: size, holders, export, health; changes nothing."""
    from rich.console import Console  # noqa: PLC0415 - no daemon prints tables

    from rds_csi.cli import volumes as command  # noqa: PLC0415
    from rds_csi.runtime import threads  # noqa: PLC0415
    from rds_csi.telemetry import logs  # noqa: PLC0415

    logs.configure(level="error", style="console")
    try:
        shared = DriverConfig(**pick(flags, DriverConfig))
        cluster = command.read_cluster(pv_file, shared.driver_name) if pv_file else None
        work = command.look(shared, controller_config(flags), orphans=orphans, cluster=cluster)
        report = threads.run(work)
    except ConfigurationError as error:
        refuse(str(error))
    except DriverError as error:
        click.echo(f"rds-csi: {error}", err=True)
        sys.exit(_EXIT_FAILED)
    if as_json:
        click.echo(command.as_json(report))
    else:
        command.show(report, Console(highlight=False), click.echo)


def _serve(flags: dict[str, Any], *, with_controller: bool, with_node: bool) -> None:
    try:
        shared = DriverConfig(
            **pick(flags, DriverConfig, endpoint=flags["endpoint"], cluster_id=flags["cluster_id"])
        )
        of_controller = controller_config(flags) if with_controller else None
        of_node = NodeConfig(**pick(flags, NodeConfig)) if with_node else None
    except ConfigurationError as error:
        refuse(str(error))
    from rds_csi.driver import (  # noqa: PLC0415 - the help and a refusal need no gRPC
        lifecycle as driver,
    )
    from rds_csi.telemetry import logs  # noqa: PLC0415

    logs.configure(level=flags["log_level"], style=flags["log_format"])
    try:
        status = driver.run(shared, of_controller, of_node)
    except ConfigurationError as error:
        refuse(str(error))
    sys.exit(status)


if __name__ == "__main__":
    main()
