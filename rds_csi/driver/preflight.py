"""Before the driver says "ready": settings that name what this machine does not have.

``config.py`` judges a setting by its text; here files, directories and addresses are looked at.
Only what cannot become right by waiting is refused. An RDS that is away, a socket whose last owner
has not ended yet, a port that the predecessor still has: all that is waited for elsewhere.
"""

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path

from rds_csi.config import (
    ConfigurationError,
    ControllerConfig,
    DriverConfig,
    NodeConfig,
    listen_address,
)
from rds_csi.errors import DriverError


def check(
    shared: DriverConfig, controller: ControllerConfig | None, node: NodeConfig | None
) -> None:
    """Raise :class:`ConfigurationError`, naming the flag, for the first that cannot be used."""
    _check_endpoint(shared.endpoint)
    if shared.metrics_address:
        _check_metrics_address(shared.metrics_address)
    if controller is not None:
        _check_key_file(controller.rds_key_file)
    if node is not None:
        _check_kubelet_dir(node.kubelet_dir)
        _check_state_dir(node.state_dir)
        if node.startup_taint:
            _check_in_cluster()


def _check_endpoint(path: Path) -> None:
    folder = path.parent
    why = ""
    try:
        if not folder.is_dir():
            why = f"{folder} is not a directory" if folder.exists() else f"there is no {folder}"
        elif not os.access(folder, os.W_OK | os.X_OK):
            why = f"{folder} cannot be written"
        elif os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
            why = "it exists and is not a socket"
    except OSError as error:
        why = _said(error)
    if why:
        raise ConfigurationError(f"--endpoint {path} cannot be listened at: {why}")


def _check_metrics_address(text: str) -> None:
    host, port = listen_address("--metrics-address", text)
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            return  # the name server is away, which passes
        raise ConfigurationError(f"--metrics-address {text}: {_said(error)}") from None
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            # No IPv6 on this machine is no fault of ":9808".
            if error.errno == errno.EADDRINUSE or (host is None and error.errno != errno.EACCES):
                continue
            raise ConfigurationError(
                f"--metrics-address {text} cannot be listened at: {_said(error)}"
            ) from None


def _check_key_file(path: Path) -> None:
    from rds_csi.routeros.settings import read_client_key  # noqa: PLC0415 - a node needs no SSH

    try:
        read_client_key(path)
    except DriverError as error:
        raise ConfigurationError(f"--rds-key-file: {error}") from None


def _check_kubelet_dir(path: Path) -> None:
    try:
        wrong = path.exists() and not path.is_dir()
    except OSError as error:
        raise ConfigurationError(f"--kubelet-dir {path}: {_said(error)}") from None
    if wrong:
        raise ConfigurationError(f"--kubelet-dir {path} is not a directory")


def _check_state_dir(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".start-") as file:
            file.write(b"start\n")
            file.flush()
    except OSError as error:
        raise ConfigurationError(
            f"--state-dir {path} cannot be written: {_said(error)}; without it a restarted driver "
            "would not know its volumes"
        ) from None


def _check_in_cluster() -> None:
    from rds_csi.kubernetes.api import in_cluster  # noqa: PLC0415 - only where it is asked

    try:
        in_cluster()
    except DriverError as error:
        raise ConfigurationError(f"--startup-taint: {error}") from None


def _said(error: OSError) -> str:
    return error.strerror or str(error)
