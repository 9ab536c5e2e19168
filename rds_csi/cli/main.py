"""The command line: each setting is a flag and an environment variable.

Only the daemon's own needs are imported at the top; what prints tables or boots machines is
imported by the command that does it.
"""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from rds_csi import __version__
from rds_csi.config import (
    DEFAULT_DRIVER_NAME,
    DEFAULT_NQN_PREFIX,
    ConfigurationError,
    ControllerConfig,
    DriverConfig,
    NodeConfig,
    check_host,
    volume_defaults,
)
from rds_csi.errors import NotReady
from rds_csi.telemetry.sink import occupy_standard_descriptors

Command = TypeVar("Command", bound=Callable[..., Any])
_HOST_KEY_FILE: Final = "--rds-host-key-file"
_EXIT_FAILED: Final = 1
_EXIT_CONFIGURATION: Final = 2


def _option(flag: str, **attributes: Any) -> Callable[[Command], Command]:
    """A flag with the environment variable of the same name; both shown in ``--help``."""
    variable = "RDS_CSI_" + flag.split("/", maxsplit=1)[0].lstrip("-").replace("-", "_").upper()
    attributes.setdefault("show_default", True)
    return click.option(flag, envvar=variable, show_envvar=True, **attributes)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_driver_options = _options(
    _option(
        "--endpoint",
        type=click.Path(path_type=Path),
        default=Path("/csi/csi.sock"),
        help="Unix socket to serve CSI on.",
    ),
    _option(
        "--cluster-id",
        required=True,
        help="Marks this cluster's volumes on the RDS; must never change.",
    ),
    _option("--driver-name", default=DEFAULT_DRIVER_NAME, help="CSI driver name."),
    _option("--nqn-prefix", default=DEFAULT_NQN_PREFIX, help="NQN prefix of exported volumes."),
    _option("--drain-budget", type=float, default=15.0, help="Seconds to finish RPCs at the end."),
    _option(
        "--operation-timeout",
        type=float,
        default=110.0,
        help="Seconds for an RPC whose caller set no deadline.",
    ),
    _option(
        "--metrics-address",
        default="",
        help="Where Prometheus may ask, like :9808 or 127.0.0.1:9808; empty: nowhere.",
    ),
    _option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="What is logged. SIGUSR1 turns debug on, and off again.",
    ),
    _option(
        "--log-format",
        type=click.Choice(["json", "console"]),
        default="json",
        help="How it is logged, on standard error.",
    ),
)

_address_options = _options(
    _option("--rds-address", default="", help="Host name or address of the RDS's SSH service."),
    _option("--rds-port", type=click.IntRange(1, 65535), default=22, help="Its port."),
    _option("--nvme-address", default="", help="IP address at which nodes reach the volumes."),
    _option("--nvme-port", default="4420", help="Its port."),
)

_controller_options = _options(
    _address_options,
    _option("--rds-user", default="csi", help="RouterOS user."),
    _option(
        "--rds-key-file",
        type=click.Path(path_type=Path),
        default=Path("/etc/rds-csi/ssh/id_ed25519"),
        help="Private key of that user.",
    ),
    _option("--rds-host-key", default="", help="Public host keys of the RDS, one a line."),
    _option(
        "--rds-host-key-file",
        type=click.Path(path_type=Path),
        help="File with the RDS's public host keys, one a line.",
    ),
    _option(
        "--rds-accept-any-host-key-insecure",
        is_flag=True,
        help="Development only: talk to whoever answers.",
    ),
    _option("--rds-channels", type=int, default=4, help="SSH commands at once."),
    _option("--volume-path", default="", help="Directory for volumes, like raid10/csi."),
    _option("--reserve", type=int, default=1024**3, help="Bytes of the pool that stay free."),
    _option("--list-page", type=int, default=500, help="Volumes in one answer of ListVolumes."),
)

_node_options = _options(
    _option("--node-id", default="", help="Name of this node, unique in the cluster."),
    _option(
        "--kubelet-dir",
        type=click.Path(path_type=Path),
        default=Path("/var/lib/kubelet"),
        help="The kubelet's directory; only paths below it are mounted on.",
    ),
    _option(
        "--state-dir",
        type=click.Path(path_type=Path),
        default=Path("/var/lib/rds-csi"),
        help="Directory of the host for what a restart must know.",
    ),
    _option("--max-volumes", type=int, default=0, help="Volumes this node may have; 0: any."),
    _option("--connects", type=int, default=8, help="NVMe connects at once."),
    _option("--reap-interval", type=float, default=600.0, help="Seconds between orphan searches."),
    _option("--reap-grace", type=float, default=300.0, help="Age at which an orphan is one."),
    _option(
        "--startup-taint",
        metavar="KEY",
        default="",
        help="Taint to take off this Kubernetes node once the driver is registered; empty: none.",
    ),
)


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
@_driver_options
@_controller_options
def controller(**flags: Any) -> None:
    """Serve Identity and Controller: volumes on the RDS."""
    _serve(flags, with_controller=True, with_node=False)


@main.command()
@_driver_options
@_node_options
def node(**flags: Any) -> None:
    """Serve Identity and Node: connect, format and mount on this host."""
    _serve(flags, with_controller=False, with_node=True)


@main.command("all")
@_driver_options
@_controller_options
@_node_options
def everything(**flags: Any) -> None:
    """Serve all three services on one socket: for trying and testing."""
    _serve(flags, with_controller=True, with_node=True)


@main.command()
@_option("--cluster-id", required=True, help="As the driver has it.")
@_option("--node-id", required=True, help="As the driver has it.")
@_option("--nqn-prefix", default=DEFAULT_NQN_PREFIX, help="As the driver has it.")
@_option("--endpoint", type=click.Path(path_type=Path), default=Path("/csi/csi.sock"), help="Same.")
@_option(
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
        shared = DriverConfig(**_pick(flags, DriverConfig))
        node_config = NodeConfig(**_pick(flags, NodeConfig))
        work = command.reap(shared, node_config, dry_run=dry_run, settle=settle, give_up=give_up)
        findings = threads.run(work)
    except ConfigurationError as error:
        _refuse(str(error))
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
        _refuse(f"the demo cannot run here: this machine lacks {lacks}")
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


_doctor_options = _options(
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
@_doctor_options
@_address_options
@_driver_options
@_node_options
def doctor_node(*, as_json: bool, **flags: Any) -> None:
    """Look at this node: kernel, programs, identity, mounts, driver, and the way to the RDS."""
    from rds_csi.doctor import command  # noqa: PLC0415 - no daemon is a doctor
    from rds_csi.telemetry import logs  # noqa: PLC0415

    logs.configure(level="error", style="console")
    try:
        given = volume_defaults(
            {"nvmeAddress": flags["nvme_address"], "nvmePort": flags["nvme_port"]}
        )
        nvme = (given.nvme_address, given.nvme_port) if given.nvme_address else None
        if flags["rds_address"]:
            check_host("--rds-address", flags["rds_address"])
        ssh = (flags["rds_address"], flags["rds_port"]) if flags["rds_address"] else None
        shared = DriverConfig(**_pick(flags, DriverConfig))
        of_node = NodeConfig(**_pick(flags, NodeConfig))
    except ConfigurationError as error:
        _refuse(str(error))
    sys.exit(command.doctor_node(shared, of_node, nvme=nvme, ssh=ssh, for_programs=as_json))


@doctor.command("rds")
@_doctor_options
@_driver_options
@_controller_options
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
        shared = DriverConfig(**_pick(flags, DriverConfig))
        status = command.doctor_rds(
            shared,
            _controller_config(flags),
            write=write,
            report=report,
            addresses=report_addresses,
            for_programs=as_json,
        )
    except ConfigurationError as error:
        _refuse(str(error))
    sys.exit(status)


def _serve(flags: dict[str, Any], *, with_controller: bool, with_node: bool) -> None:
    try:
        shared = DriverConfig(
            **_pick(flags, DriverConfig, endpoint=flags["endpoint"], cluster_id=flags["cluster_id"])
        )
        of_controller = _controller_config(flags) if with_controller else None
        of_node = NodeConfig(**_pick(flags, NodeConfig)) if with_node else None
    except ConfigurationError as error:
        _refuse(str(error))
    from rds_csi.driver import (  # noqa: PLC0415 - the help and a refusal need no gRPC
        lifecycle as driver,
    )
    from rds_csi.telemetry import logs  # noqa: PLC0415

    logs.configure(level=flags["log_level"], style=flags["log_format"])
    try:
        status = driver.run(shared, of_controller, of_node)
    except ConfigurationError as error:
        _refuse(str(error))
    sys.exit(status)


def _controller_config(flags: dict[str, Any]) -> ControllerConfig:
    keys = _host_keys("--rds-host-key", flags["rds_host_key"])
    if flags["rds_host_key_file"] is not None:
        try:
            text = flags["rds_host_key_file"].read_text()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{_HOST_KEY_FILE}: {error}") from None
        keys += _host_keys(_HOST_KEY_FILE, text)
    return ControllerConfig(
        **_pick(
            flags,
            ControllerConfig,
            rds_host_keys=keys,
            rds_accept_any_host_key=flags["rds_accept_any_host_key_insecure"],
            defaults=volume_defaults(
                {
                    "nvmeAddress": flags["nvme_address"],
                    "nvmePort": flags["nvme_port"],
                    "volumePath": flags["volume_path"],
                }
            ),
        )
    )


def _host_keys(flag: str, text: str) -> tuple[str, ...]:
    """The lines that hold keys, each of which can be read."""
    from rds_csi.routeros.settings import trusted_keys  # noqa: PLC0415 - a node needs no SSH

    if "PRIVATE KEY" in text:
        raise ConfigurationError(
            f"{flag}: a private key is given, and it is the RDS's public ones that are needed"
        )
    lines = [line.strip() for line in text.splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys and flag == _HOST_KEY_FILE:
        raise ConfigurationError(f"{flag}: no public key of the RDS is in it")
    try:
        if keys:
            trusted_keys(keys)
    except NotReady as error:
        raise ConfigurationError(f"{flag}: {error}") from None
    return keys


def _pick(flags: dict[str, Any], settings: type, **given: Any) -> dict[str, Any]:
    """The flags that are fields of ``settings``, and ``given``."""
    names = settings.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: value for name, value in flags.items() if name in names} | given


def _refuse(text: str) -> NoReturn:
    click.echo(f"rds-csi: {text}", err=True)
    sys.exit(_EXIT_CONFIGURATION)


if __name__ == "__main__":
    main()
