"""The driver's settings: frozen, checked once, in words a person understands.

Every setting is a command-line flag and an environment variable (``--rds-address`` and
``RDS_CSI_RDS_ADDRESS``); ``cli/options.py`` makes both. What the settings mean to a room is that
room's own dataclass; this module holds what the user says and checks it as a whole.
"""

import ipaddress
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rds_csi.errors import InvalidParameter, InvalidRequest
from rds_csi.model.node_id import check_node_id
from rds_csi.model.parameters import VolumeParameters
from rds_csi.model.volume import LARGEST_GENERATION, check_nqn, export_nqn

DEFAULT_DRIVER_NAME: Final = "csi.rds-csi.io"
DEFAULT_NQN_PREFIX: Final = "nqn.2000-02.com.mikrotik"
MAXIMUM_DRIVER_NAME: Final = 63
"""Characters; CSI spec, GetPluginInfoResponse."""
_LISTEN: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]*):([0-9]{1,5})")
_SUBDOMAIN: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_NODE_NAME: Final = re.compile(_SUBDOMAIN)
_TAINT_KEY: Final = re.compile(rf"({_SUBDOMAIN}/)?[A-Za-z0-9]([A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?")
"""Kubernetes: names are DNS subdomains, taint keys are written like keys of labels."""
_CLUSTER_ID: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)"
    r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?"
)
_USER: Final = re.compile(r"[A-Za-z0-9*_.@-]{1,64}")
MAXIMUM_SOCKET_PATH: Final = 107
"""Bytes; Linux ``sockaddr_un.sun_path``."""
MAXIMUM_RESERVE: Final = 2**50
"""Bytes: 1 PiB is more than any RDS has, and far from where RouterOS's integers end."""
MAXIMUM_VOLUMES: Final = 2**31 - 1
"""Kubernetes counts them with 32 bits."""


class ConfigurationError(Exception):
    """A setting is missing or wrong; the text names it and says what is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """What both services share.

    ``cluster_id`` tells this cluster's volumes from another's on the same RDS: it is part of
    every ownership record and must never change. ``drain_budget`` is in seconds and must leave
    room inside the pod's grace period of 30 s. ``metrics_address``, where Prometheus may ask, is
    ``host:port``, ``:port`` for every address of the machine, or empty for nowhere.
    """

    endpoint: Path
    cluster_id: str
    driver_name: str = DEFAULT_DRIVER_NAME
    nqn_prefix: str = DEFAULT_NQN_PREFIX
    drain_budget: float = 15.0
    operation_timeout: float = 110.0
    metrics_address: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without touching anything."""
        if len(self.driver_name) > MAXIMUM_DRIVER_NAME or not _NODE_NAME.fullmatch(
            self.driver_name
        ):
            raise ConfigurationError(
                f"--driver-name {self.driver_name!r} is not a domain name of at most 63 characters"
            )
        if not _CLUSTER_ID.fullmatch(self.cluster_id):
            raise ConfigurationError(
                "--cluster-id must be 1 to 64 letters, digits, '.', '_' or '-': it marks this "
                "cluster's volumes on the RDS and must never change"
            )
        try:
            check_nqn(export_nqn(self.nqn_prefix, f"pvc-{'0' * 28}", LARGEST_GENERATION))
        except InvalidRequest as error:
            raise ConfigurationError(f"--nqn-prefix {self.nqn_prefix!r}: {error}") from None
        if not self.endpoint.is_absolute() or self.endpoint.suffix != ".sock":
            raise ConfigurationError(
                f"--endpoint {str(self.endpoint)!r} is not the absolute path of a .sock file"
            )
        if len(str(self.endpoint).encode()) > MAXIMUM_SOCKET_PATH:
            raise ConfigurationError(
                f"--endpoint is longer than the {MAXIMUM_SOCKET_PATH} bytes a socket may have"
            )
        _positive("--drain-budget", self.drain_budget)
        _positive("--operation-timeout", self.operation_timeout)
        if self.metrics_address:
            listen_address("--metrics-address", self.metrics_address)

    @property
    def owner(self) -> str:
        """Who owns the volumes: what stands in each ownership record."""
        return f"{self.driver_name}/{self.cluster_id}"

    @property
    def topology(self) -> dict[str, str]:
        """The one segment that all nodes are in: every one of them reaches the RDS.

        Without any, csi-provisioner (to 6.4.0) takes each CSIStorageCapacity for somebody else's
        and removes it again. The kubelet labels the node with it and refuses another value later,
        so it must never change.
        """
        return {f"{self.driver_name}/topology": "all-nodes"}

    def nqn(self, volume_id: str) -> str:
        """The NQN of an export that no node has had yet."""
        return export_nqn(self.nqn_prefix, volume_id, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """What the controller service needs: how to reach the RDS and where volumes go.

    ``rds_host_keys`` are OpenSSH public keys, one pinned per key the RDS may show.
    ``reserve`` bytes of the pool stay free. Key and host keys come from files or values; their
    contents never show in a ``repr``. ``rename_exports``: each hand-over gives the export a name of
    its own, so that the RDS itself refuses former holders. ``path_layer``: nodes are to keep
    volumes that the kernel gives up. ``growth`` says which volumes may grow: those that no node has
    (``unpublished``) or that have maps everywhere, or ``always`` all.
    """

    rds_address: str
    rds_user: str
    rds_key_file: Path
    rds_port: int = 22
    rds_host_keys: tuple[str, ...] = field(default=(), repr=False)
    rds_accept_any_host_key: bool = False
    rds_channels: int = 8
    defaults: VolumeParameters = field(default_factory=VolumeParameters)
    reserve: int = 1024**3
    list_page: int = 500
    rename_exports: bool = True
    path_layer: bool = False
    growth: str = "unpublished"

    @property
    def grows_in_use(self) -> bool:
        """Whether volumes that nodes have can grow: all, or those with maps that healers know."""
        return self.growth == "always" or (self.path_layer and self.rename_exports)

    def __post_init__(self) -> None:
        """Check what can be checked without touching anything."""
        if not self.rds_address:
            raise ConfigurationError("--rds-address is missing: the address of the RDS's SSH")
        check_host("--rds-address", self.rds_address)
        if not self.rds_user:
            raise ConfigurationError("--rds-user is missing: the RouterOS user")
        if not _USER.fullmatch(self.rds_user):
            raise ConfigurationError(
                f"--rds-user {self.rds_user[:64]!r} is no RouterOS user: letters, digits and any "
                "of * _ . @ - are expected"
            )
        if not self.rds_host_keys and not self.rds_accept_any_host_key:
            raise ConfigurationError(
                "--rds-host-key or --rds-host-key-file is missing: without the RDS's public key "
                "anybody on the network could pose as the RDS (on the RDS: /ip/ssh/print)"
            )
        if not self.defaults.nvme_addresses:
            raise ConfigurationError(
                "--nvme-address is missing: the IP address at which nodes reach the volumes"
            )
        if not self.defaults.volume_path:
            raise ConfigurationError(
                "--volume-path is missing: the directory for volumes, like raid10/csi"
            )
        if not 1 <= self.rds_channels <= 20:
            raise ConfigurationError("--rds-channels must be from 1 to 20")
        if not 0 <= self.reserve <= MAXIMUM_RESERVE:
            raise ConfigurationError(f"--reserve must be from 0 to {MAXIMUM_RESERVE} bytes")
        if not 1 <= self.list_page <= 1000:
            raise ConfigurationError(
                "--list-page must be from 1 to 1000: larger answers pass the clients' 4 MiB limit"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What the node service needs.

    ``state_dir`` is a directory of the host that outlives the pod. ``max_volumes`` 0 leaves the
    scheduler unlimited. ``startup_taint`` is the key of a taint that is removed from the
    Kubernetes node of the name ``node_id`` once the driver is registered; empty: none.
    ``nvme_address``: where the RDS is now, for volumes whose class names no address; empty: where
    each was staged.
    """

    node_id: str
    kubelet_dir: Path = Path("/var/lib/kubelet")
    state_dir: Path = Path("/var/lib/rds-csi")
    max_volumes: int = 0
    connects: int = 8
    reap_interval: float = 600.0
    reap_grace: float = 300.0
    startup_taint: str = ""
    nvme_address: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without touching anything."""
        try:
            check_node_id(self.node_id)
        except InvalidRequest as error:
            raise ConfigurationError(f"--node-id: {error}") from None
        if re.search(r"\s", self.node_id):
            raise ConfigurationError(f"--node-id {self.node_id!r} has a blank in it")
        for flag, path in (("--kubelet-dir", self.kubelet_dir), ("--state-dir", self.state_dir)):
            if not path.is_absolute() or ".." in path.parts:
                raise ConfigurationError(f"{flag} {str(path)!r} is not an absolute path")
        if not 0 <= self.max_volumes <= MAXIMUM_VOLUMES:
            raise ConfigurationError(f"--max-volumes must be from 0 to {MAXIMUM_VOLUMES}")
        if not 1 <= self.connects <= 64:
            raise ConfigurationError("--connects must be from 1 to 64")
        _positive("--reap-interval", self.reap_interval)
        _positive("--reap-grace", self.reap_grace)
        if self.startup_taint:
            self._check_startup_taint()
        volume_defaults({"nvmeAddress": self.nvme_address})

    def _check_startup_taint(self) -> None:
        if len(self.startup_taint) > 253 or not _TAINT_KEY.fullmatch(self.startup_taint):
            raise ConfigurationError(
                f"--startup-taint {self.startup_taint!r} is not the key of a taint, like "
                f"{DEFAULT_DRIVER_NAME}/agent-not-ready; its value and effect do not belong to it"
            )
        if not _NODE_NAME.fullmatch(self.node_id):
            raise ConfigurationError(
                f"--startup-taint needs the name of the Kubernetes node as --node-id, and "
                f"{self.node_id!r} cannot be one"
            )


def volume_defaults(values: dict[str, str]) -> VolumeParameters:
    """The defaults of the StorageClass parameters, from their texts; absent ones are empty.

    Raises :class:`ConfigurationError` naming the flag.
    """
    parsed = VolumeParameters()
    for key, value in values.items():
        try:
            parsed = VolumeParameters.parse({key: value} if value else {}, parsed)
        except InvalidParameter as error:
            flag = re.sub(r"[A-Z]", lambda letter: f"-{letter[0].lower()}", key)
            raise ConfigurationError(f"--{flag}: {error}") from None
    return parsed


def check_host(flag: str, text: str) -> None:
    """Raise :class:`ConfigurationError` for what is neither a host name nor an IP address.

    A name whose last part is a number is none: it is an address that was mistyped.
    """
    last = text.rstrip(".").rpartition(".")[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if not _HOST_NAME.fullmatch(text) or last.isdigit():
            raise ConfigurationError(
                f"{flag} {text[:256]!r} is neither a host name nor an IP address; a port has a "
                "flag of its own, and brackets, prefixes and schemes do not belong here"
            ) from None
    else:
        if address.is_unspecified or address.is_multicast:
            raise ConfigurationError(f"{flag} {text} is no address that a machine can have")


def listen_address(flag: str, text: str) -> tuple[str | None, int]:
    """Host and port of ``host:port``, ``[address]:port`` or ``:port`` (host None: any address).

    Raises :class:`ConfigurationError` naming the flag.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        raise ConfigurationError(f"{flag} {text!r} is not like 127.0.0.1:9808, [::1]:9808 or :9808")
    return match[1].strip("[]") or None, int(match[2])


def _positive(flag: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigurationError(f"{flag} must be positive, not {value:g}")
