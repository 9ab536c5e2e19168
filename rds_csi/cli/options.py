"""Flags and what becomes of them: each setting is a flag and an environment variable."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from rds_csi.config import (
    DEFAULT_DRIVER_NAME,
    DEFAULT_NQN_PREFIX,
    ConfigurationError,
    ControllerConfig,
    volume_defaults,
)
from rds_csi.errors import NotReady

Command = TypeVar("Command", bound=Callable[..., Any])

HOST_KEY_FILE: Final = "--rds-host-key-file"

EXIT_CONFIGURATION: Final = 2


def option(flag: str, **attributes: Any) -> Callable[[Command], Command]:
    """A flag with the environment variable of the same name; both shown in ``--help``."""
    variable = "RDS_CSI_" + flag.split("/", maxsplit=1)[0].lstrip("-").replace("-", "_").upper()
    attributes.setdefault("show_default", True)
    return click.option(flag, envvar=variable, show_envvar=True, **attributes)


def options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several of them, in the order of the help."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


driver_options = options(
    option(
        "--endpoint",
        type=click.Path(path_type=Path),
        default=Path("/csi/csi.sock"),
        help="Unix socket to serve CSI on.",
    ),
    option(
        "--cluster-id",
        required=True,
        help="Marks this cluster's volumes on the RDS; must never change.",
    ),
    option("--driver-name", default=DEFAULT_DRIVER_NAME, help="CSI driver name."),
    option("--nqn-prefix", default=DEFAULT_NQN_PREFIX, help="NQN prefix of exported volumes."),
    option("--drain-budget", type=float, default=15.0, help="Seconds to finish RPCs at the end."),
    option(
        "--operation-timeout",
        type=float,
        default=110.0,
        help="Seconds for an RPC whose caller set no deadline.",
    ),
    option(
        "--metrics-address",
        default="",
        help="Where Prometheus may ask, like :9808 or 127.0.0.1:9808; empty: nowhere.",
    ),
    option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="What is logged. SIGUSR1 turns debug on, and off again.",
    ),
    option(
        "--log-format",
        type=click.Choice(["json", "console"]),
        default="json",
        help="How it is logged, on standard error.",
    ),
)

data_address = option(
    "--nvme-address",
    default="",
    help="IP address at which nodes reach the volumes; several with commas between them.",
)

address_options = options(
    option("--rds-address", default="", help="Host name or address of the RDS's SSH service."),
    option("--rds-port", type=click.IntRange(1, 65535), default=22, help="Its port."),
    data_address,
    option("--nvme-port", default="4420", help="Its port, at each address."),
)

controller_options = options(
    address_options,
    option("--rds-user", default="csi", help="RouterOS user."),
    option(
        "--rds-key-file",
        type=click.Path(path_type=Path),
        default=Path("/etc/rds-csi/ssh/id_ed25519"),
        help="Private key of that user.",
    ),
    option("--rds-host-key", default="", help="Public host keys of the RDS, one a line."),
    option(
        "--rds-host-key-file",
        type=click.Path(path_type=Path),
        help="File with the RDS's public host keys, one a line.",
    ),
    option(
        "--rds-accept-any-host-key-insecure",
        is_flag=True,
        help="Development only: talk to whoever answers.",
    ),
    option("--rds-channels", type=int, default=8, help="SSH commands at once."),
    option("--volume-path", default="", help="Directory for volumes, like raid10/csi."),
    option("--reserve", type=int, default=1024**3, help="Bytes of the pool that stay free."),
    option("--list-page", type=int, default=500, help="Volumes in one answer of ListVolumes."),
    option(
        "--rename-exports/--keep-export-names",
        default=True,
        help="Name an export anew at each hand-over: the RDS then refuses former holders.",
    ),
    option(
        "--path-layer",
        is_flag=True,
        help="Have nodes put a dm-multipath map over each volume whose I/O is to wait.",
    ),
    option(
        "--growth",
        type=click.Choice(["unpublished", "always"]),
        default="unpublished",
        help="Which volumes grow: those that no node has or has maps of, or those in use too.",
    ),
)

node_options = options(
    option("--node-id", default="", help="Name of this node, unique in the cluster."),
    option(
        "--kubelet-dir",
        type=click.Path(path_type=Path),
        default=Path("/var/lib/kubelet"),
        help="The kubelet's directory; only paths below it are mounted on.",
    ),
    option(
        "--state-dir",
        type=click.Path(path_type=Path),
        default=Path("/var/lib/rds-csi"),
        help="Directory of the host for what a restart must know.",
    ),
    option("--max-volumes", type=int, default=0, help="Volumes this node may have; 0: any."),
    option("--connects", type=int, default=8, help="NVMe connects at once."),
    option("--reap-interval", type=float, default=600.0, help="Seconds between orphan searches."),
    option("--reap-grace", type=float, default=300.0, help="Age at which an orphan is one."),
    option(
        "--startup-taint",
        metavar="KEY",
        default="",
        help="Taint to take off this Kubernetes node once the driver is registered; empty: none.",
    ),
)


def controller_config(flags: dict[str, Any]) -> ControllerConfig:
    """A controller's settings; :class:`ConfigurationError` for flags that cannot be any."""
    keys = host_keys("--rds-host-key", flags["rds_host_key"])
    if flags["rds_host_key_file"] is not None:
        try:
            text = flags["rds_host_key_file"].read_text()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{HOST_KEY_FILE}: {error}") from None
        keys += host_keys(HOST_KEY_FILE, text)
    return ControllerConfig(
        **pick(
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


def host_keys(flag: str, text: str) -> tuple[str, ...]:
    """The lines that hold keys, each of which can be read."""
    from rds_csi.routeros.settings import trusted_keys  # noqa: PLC0415 - a node needs no SSH

    if "PRIVATE KEY" in text:
        raise ConfigurationError(
            f"{flag}: a private key is given, and it is the RDS's public ones that are needed"
        )
    lines = [line.strip() for line in text.splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys and flag == HOST_KEY_FILE:
        raise ConfigurationError(f"{flag}: no public key of the RDS is in it")
    try:
        if keys:
            trusted_keys(keys)
    except NotReady as error:
        raise ConfigurationError(f"{flag}: {error}") from None
    return keys


def pick(flags: dict[str, Any], settings: type, **given: Any) -> dict[str, Any]:
    """The flags that are fields of ``settings``, and ``given``."""
    names = settings.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: value for name, value in flags.items() if name in names} | given


def refuse(text: str) -> NoReturn:
    """End the command: what it was told cannot be done."""
    click.echo(f"rds-csi: {text}", err=True)
    sys.exit(EXIT_CONFIGURATION)
