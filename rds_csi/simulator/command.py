"""``rds-csi simulate``: an RDS in the foreground until SIGTERM or Ctrl-C."""

import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import asyncssh
import click

from rds_csi.simulator.control import ControlServer
from rds_csi.simulator.device.faults import Quirks
from rds_csi.simulator.language.values import RuntimeFault
from rds_csi.simulator.simulator import CannotListen, Simulator, parse_version

_MISTAKES: Final = (ValueError, OSError, RuntimeFault, asyncssh.Error)
_SIZE_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    root: Path
    listen: str
    port: int
    pools: dict[str, int]
    version: str
    export: Literal["none", "nvmet"]
    nvme_address: str
    nvme_port: int
    host_key: Path | None
    authorized_keys: Path | None
    quirks: Sequence[str]
    directories: Sequence[str]
    control: Path | None
    ready_file: Path | None


def parse_size(text: str) -> int:
    """``16T`` as bytes; the suffixes are binary. Raises ValueError."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in _SIZE_UNITS or not number.isdigit():
        raise ValueError(f"{text!r} is no size; expected like 500G or 16T")
    return int(number) * _SIZE_UNITS[unit]


def parse_pool(text: str) -> tuple[str, int]:
    """``raid10:16T`` as name and bytes. Raises ValueError."""
    name, colon, size = text.partition(":")
    if not name or not colon:
        raise ValueError(f"{text!r} is no pool; expected name:size, like raid10:16T")
    return name, parse_size(size)


def parse_quirk(text: str, quirks: Quirks | None = None) -> None:
    """Set ``lag=2`` or ``interleave`` among the quirks, or only check it. Raises ValueError."""
    name, _, value = text.partition("=")
    (quirks or Quirks()).set(name, value or "yes")


def checked(check: Callable[[str], object]) -> Callable[[Any, click.Parameter, Any], Any]:
    """An option's callback: what ``check`` refuses with a ValueError, click refuses by name."""

    def callback(context: click.Context, option: click.Parameter, value: Any) -> Any:
        try:
            for text in value if option.multiple else [value]:
                check(text)
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from None
        return value

    return callback


def load_host_key(path: Path) -> asyncssh.SSHKey:
    """The private key in the file; a missing file gets a new ed25519 key, mode 0600."""
    try:
        return asyncssh.read_private_key(path)
    except FileNotFoundError:
        key = asyncssh.generate_private_key("ssh-ed25519")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.export_private_key())
        return key


@contextlib.contextmanager
def _blamed_on(flag: str, errors: tuple[type[Exception], ...] = _MISTAKES) -> Iterator[None]:
    """Let an error say which flag it comes from."""
    try:
        yield
    except errors as error:
        raise click.ClickException(f"{flag}: {error}") from error


class RootInUse(click.ClickException):
    """Two simulators on the same files would undo each other's acknowledged changes."""

    exit_code = 2


@contextlib.contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Have the folder, made if missing, to oneself while the context lasts.

    The kernel ends the claim with the process, however that ends. Raises :class:`RootInUse`.
    """
    with _blamed_on("--root"):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RootInUse(
                f"--root {root}: another simulator is running on it; end that one first, or "
                "choose another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


def build(options: Options) -> Simulator:
    """The simulator the options describe. Raises ValueError, OSError or RuntimeError."""
    quirks = Quirks()
    for text in options.quirks:
        parse_quirk(text, quirks)
    keys: Sequence[asyncssh.SSHKey] = ()
    if options.authorized_keys:
        with _blamed_on("--authorized-keys"):
            keys = asyncssh.read_public_key_list(options.authorized_keys)
            if not keys:
                raise ValueError(f"no public key is in {options.authorized_keys}")
    # Kept with the state, so that a restarted simulator is the same RDS to its clients.
    with _blamed_on("--host-key" if options.host_key else "--root"):
        host_key = load_host_key(options.host_key or options.root / "ssh_host_key")
    simulator = Simulator(
        options.root,
        pools=options.pools,
        version=options.version,
        address=options.listen,
        port=options.port,
        export=options.export,
        nvme_address=options.nvme_address,
        nvme_port=options.nvme_port,
        host_key=host_key,
        authorized_keys=keys,
        quirks=quirks,
    )
    for name in options.directories:
        with _blamed_on("--directory"):
            simulator.make_directory(name)
    return simulator


async def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT; then end all exports."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(claimed(options.root))
        simulator = build(options)
        with _blamed_on(f"--listen {options.listen} --port {options.port}", (CannotListen,)):
            await stack.enter_async_context(simulator)
        if options.control:
            control = ControlServer(simulator, options.control)
            with _blamed_on("--control"):
                await control.start()
            stack.push_async_callback(control.stop)
        with _blamed_on("--ready-file"):
            _announce(simulator, options)
        await stop.wait()


def _announce(simulator: Simulator, options: Options) -> None:
    """Say that all is up, as one JSON line on stdout and in the ready file."""
    ready: dict[str, Any] = {
        "address": simulator.address,
        "port": simulator.port,
        "host_key": simulator.host_key_line,
        "version": options.version,
        "export": options.export,
        "control": str(options.control) if options.control else "",
    }
    click.echo(json.dumps(ready))
    if options.ready_file:
        temporary = options.ready_file.with_suffix(".new")
        temporary.write_text(json.dumps(ready) + "\n")
        temporary.replace(options.ready_file)


_PATH: Final = click.Path(path_type=Path)


@click.command()
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address of the SSH side.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=2222,
    show_default=True,
    help="Its TCP port; 0 picks a free one.",
)
@click.option("--root", type=_PATH, default=Path("rds"), show_default=True, help="Files and state.")
@click.option(
    "--pool",
    "pools",
    callback=checked(parse_pool),
    multiple=True,
    default=["raid10:16T"],
    show_default=True,
    help="name:size; repeatable.",
)
@click.option(
    "--version",
    callback=checked(parse_version),
    default="7.24.2",
    show_default=True,
    help="RouterOS version.",
)
@click.option(
    "--export",
    type=click.Choice(["none", "nvmet"]),
    default="none",
    show_default=True,
    help="nvmet: really, through the kernel; needs root.",
)
@click.option(
    "--nvme-address",
    callback=checked(ipaddress.ip_address),
    default="127.0.0.1",
    show_default=True,
    help="IP address at which the exports listen.",
)
@click.option(
    "--nvme-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Overrides the port the disks name; 0 does not.",
)
@click.option("--host-key", type=_PATH, help="Private key; made if missing. Default: in the root.")
@click.option("--authorized-keys", type=_PATH, help="File of public keys that may log in.")
@click.option(
    "--quirk",
    "quirks",
    callback=checked(parse_quirk),
    multiple=True,
    help="name or name=value; repeatable.",
)
@click.option("--directory", "directories", multiple=True, help="Folder to make: raid10/csi.")
@click.option("--control", type=_PATH, help="Unix socket for faults, quirks and the journal.")
@click.option("--ready-file", type=_PATH, help="Written when all is up.")
def simulate(pools: Sequence[str], **given: Any) -> None:
    """Run a simulated RDS: RouterOS over SSH, files, and NVMe/TCP exports."""
    try:
        asyncio.run(serve(Options(pools=dict(parse_pool(pool) for pool in pools), **given)))
    except (*_MISTAKES, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
