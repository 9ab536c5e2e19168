"""StorageClass parameters, and the connection settings among them.

The keys are the Go driver's where it has the same thing, so that its StorageClasses and
PersistentVolumes go on working. Each key stands once, in :data:`KEYS`, with its rule.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from rds_csi.errors import InvalidParameter
from rds_csi.model.data_addresses import read_addresses

MKFS_KEY: Final = "mkfsFeatures"
LINUX_5_10: Final = "linux-5.10"
NEWEST: Final = "newest"

MAXIMUM_TIMER: Final = 2**31 - 1
"""The kernel parses these numbers as ``int``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """How the kernel keeps a connection: what ``nvme connect`` is told. Times in seconds.

    ``ctrl_loss_tmo``: how long the kernel tries to reconnect; -1 for ever, 0 the kernel's own
    default. ``reconnect_delay``: the pause between its attempts. ``keep_alive_tmo``: 0 the
    kernel's own default. ``fast_io_fail_tmo``: how long I/O waits during an outage before it
    fails; ``None`` for as long as the outage. ``nr_io_queues`` and ``queue_size``: 0 the
    kernel's own choice.
    """

    ctrl_loss_tmo: int = -1
    reconnect_delay: int = 5
    keep_alive_tmo: int = 0
    fast_io_fail_tmo: int | None = None
    nr_io_queues: int = 0
    queue_size: int = 0

    @property
    def waits(self) -> bool:
        """Whether I/O is to wait for as long as an outage lasts; else errors were asked for."""
        return self.ctrl_loss_tmo == -1 and self.fast_io_fail_tmo is None

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """The settings in StorageClass parameters or a VolumeContext; defaults where absent.

        Raises :class:`InvalidParameter` for a value outside its range.
        """
        values = {
            rule.name: rule.read(key, parameters[key])
            for key, rule in KEYS.items()
            if rule.connection and key in parameters
        }
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeParameters:
    """Everything a StorageClass can say. Defaults come from the driver's configuration.

    ``volume_path``: the directory on the RDS for the backing files, without a leading slash.
    ``fencing``: restrict the export to the publishing node's host NQN.
    ``newest_features``: file systems are made as the node's ``mkfs`` does by itself.
    """

    nvme_addresses: tuple[str, ...] = ()
    nvme_port: int = 4420
    volume_path: str = ""
    fencing: bool = False
    newest_features: bool = False
    connection: ConnectionConfig = field(default_factory=ConnectionConfig)

    @classmethod
    def parse(
        cls, parameters: Mapping[str, str], defaults: "VolumeParameters | None" = None
    ) -> "VolumeParameters":
        """The parameters of a StorageClass, over ``defaults``.

        Raises :class:`InvalidParameter` for a key nobody knows, naming those that are known, and
        for a value outside its range. Keys of Kubernetes itself (``csi.storage.k8s.io/...``,
        which the provisioner adds) are passed over.
        """
        result = defaults if defaults is not None else cls()
        for key, value in sorted(parameters.items()):
            if key.startswith("csi.storage.k8s.io/"):
                continue
            setter = KEYS.get(key)
            if setter is None:
                known = f"known parameters: {', '.join(sorted(KEYS))}"
                raise InvalidParameter(
                    f"unknown StorageClass parameter {key[:128]!r}",
                    advice=NOT_OFFERED.get(key, known),
                )
            result = setter.apply(result, key, value)
        return result


def claim_of(parameters: Mapping[str, str]) -> tuple[str, str]:
    """Namespace and name of the claim, as external-provisioner's ``--extra-create-metadata`` tells.

    Empty where it does not.
    """
    told = "csi.storage.k8s.io/pvc/"
    return parameters.get(f"{told}namespace", ""), parameters.get(f"{told}name", "")


@dataclass(frozen=True, slots=True)
class Key:
    """One StorageClass parameter: what it accepts, what it does, and where its value goes.

    ``effect``: what an application notices of it.
    """

    accepts: str
    meaning: str
    effect: str
    read: Callable[[str, str], Any]
    name: str
    connection: bool = False

    def apply(self, parameters: VolumeParameters, key: str, value: str) -> VolumeParameters:
        """``parameters`` with this one set from its text."""
        change = {self.name: self.read(key, value)}
        if self.connection:
            change = {"connection": replace(parameters.connection, **change)}
        return replace(parameters, **change)


def read_integer(key: str, value: str, low: int, high: int) -> int:
    """The number in the text; :class:`InvalidParameter` unless it lies in the range."""
    if not re.fullmatch(r"-?[0-9]{1,10}", value):
        raise InvalidParameter(f"invalid {key}: {value[:64]!r} is not an integer")
    number = int(value)
    if not low <= number <= high:
        raise InvalidParameter(f"{key} must be from {low} to {high}, not {number}")
    return number


def _bounded(low: int, high: int) -> Callable[[str, str], int]:
    return lambda key, value: read_integer(key, value, low, high)


def _ctrl_loss_tmo(key: str, value: str) -> int:
    number = read_integer(key, value, -MAXIMUM_TIMER, MAXIMUM_TIMER)
    if number < -1:
        raise InvalidParameter(
            f"{key} must be -1 (never give up), 0 (the kernel's default) or positive, not {number}"
        )
    return number


def _reconnect_delay(key: str, value: str) -> int:
    number = read_integer(key, value, -MAXIMUM_TIMER, MAXIMUM_TIMER)
    if number < 1:
        raise InvalidParameter(f"{key} must be positive, not {number}")
    return number


def _keep_alive_tmo(key: str, value: str) -> int:
    number = read_integer(key, value, -MAXIMUM_TIMER, MAXIMUM_TIMER)
    if number < 0:
        raise InvalidParameter(f"{key} must be non-negative, not {number}")
    return number


def check_volume_path(key: str, value: str) -> str:
    """A directory on the RDS as ``/file`` spells it: relative, below a pool, no tricks."""
    path = value.strip("/")
    parts = path.split("/")
    if (
        not re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", path)
        or any(part in ("", ".", "..") for part in parts)
        or len(parts) < 2
    ):
        raise InvalidParameter(
            f"{key}: {value[:256]!r} is not a directory below a pool",
            advice="expected like raid10/csi, of letters, digits, '.', '_' and '-'",
        )
    return path


def _fencing(key: str, value: str) -> bool:
    if value not in ("none", "hostNqn"):
        raise InvalidParameter(f"{key} must be none or hostNqn, not {value[:64]!r}")
    return value == "hostNqn"


def _mkfs_features(key: str, value: str) -> bool:
    if value not in (LINUX_5_10, NEWEST):
        raise InvalidParameter(f"{key} must be linux-5.10 or newest, not {value[:64]!r}")
    return value == NEWEST


KEYS: Final[Mapping[str, Key]] = {
    "nvmeAddress": Key(
        "IP addresses, like 10.0.1.5 or 10.0.1.5,10.0.2.5",
        "where the RDS exports volumes to the nodes",
        "Their networks carry the data. Each has a connection, and one is enough; where a node's "
        "kernel joins no paths, one is used. A volume keeps what is given here; where nothing is, "
        "each attach takes the driver's own setting, so the RDS can move.",
        read_addresses,
        "nvme_addresses",
    ),
    "nvmePort": Key(
        "1 to 65535", "the port of the export", "None.", _bounded(1, 65535), "nvme_port"
    ),
    "volumePath": Key(
        "a directory below a pool, like raid10/csi",
        "where on the RDS the files lie",
        "Speed, safety and space are those of that pool.",
        check_volume_path,
        "volume_path",
    ),
    "fencing": Key(
        "none or hostNqn",
        "hostNqn restricts the export to the host NQN of the publishing node",
        "With hostNqn the RDS itself refuses every other node, also one that lost its cluster.",
        _fencing,
        "fencing",
    ),
    MKFS_KEY: Key(
        f"{LINUX_5_10} or {NEWEST}",
        "which features a new ext4 or xfs gets",
        "With linux-5.10 every kernel from that on mounts it, also after its pod has moved to an "
        "older node. With newest it gets what the programs of the node's image make by themselves, "
        "and an older kernel may refuse to mount it.",
        _mkfs_features,
        "newest_features",
    ),
    "ctrlLossTmo": Key(
        f"-1 to {MAXIMUM_TIMER}",
        "seconds the kernel tries to reconnect; -1 for ever, 0 its own default",
        "Reads and writes wait so long. Then the kernel takes the device away: I/O fails, the "
        "file system is lost to the pod, and the pod has to be started anew. With -1 I/O waits "
        "for as long as the outage lasts, and nothing fails; but what a "
        "target that lost power meanwhile had not flushed is lost without an error.",
        _ctrl_loss_tmo,
        "ctrl_loss_tmo",
        connection=True,
    ),
    "reconnectDelay": Key(
        f"1 to {MAXIMUM_TIMER}",
        "seconds between the kernel's attempts to reconnect",
        "When the target is back, I/O goes on after at most this time and a moment. Shorter "
        "pauses mean more attempts, of every volume of every node, against a target that starts.",
        _reconnect_delay,
        "reconnect_delay",
        connection=True,
    ),
    "keepAliveTmo": Key(
        f"0 to {MAXIMUM_TIMER}",
        "seconds without an answer until the connection counts as lost; 0 the kernel's default",
        "So late is a target noticed that vanished without a word. Too short, and a target that "
        "is merely busy is taken for lost: a pause of I/O, no error.",
        _keep_alive_tmo,
        "keep_alive_tmo",
        connection=True,
    ),
    "fastIoFailTmo": Key(
        f"0 to {MAXIMUM_TIMER}",
        "seconds of outage after which waiting I/O fails (0 is as 1); absent: as long as it takes",
        "The application gets errors instead of waiting, while the kernel goes on reconnecting. "
        "A file system that met one stays read-only or shut down until the pod is started anew. "
        "For applications that have another copy to turn to; not beyond ctrlLossTmo.",
        _bounded(0, MAXIMUM_TIMER),
        "fast_io_fail_tmo",
        connection=True,
    ),
    "nrIoQueues": Key(
        "1 to 1024",
        "I/O queues of a connection; absent: one per CPU, which is also the most there are",
        "Each queue is a TCP connection. Fewer cost the RDS less, and carry less at once.",
        _bounded(1, 1024),
        "nr_io_queues",
        connection=True,
    ),
    "queueSize": Key(
        "16 to 1024",
        "entries of a queue; absent: 128, or what the target grants",
        "So many I/Os of a queue are under way at once; the others wait in the kernel.",
        _bounded(16, 1024),
        "queue_size",
        connection=True,
    ),
}
"""Every StorageClass parameter. ``docs/parameters.md`` is generated from this table."""

NOT_OFFERED: Final[Mapping[str, str]] = {
    "ioTimeout": "a connect cannot set it; set the module parameter nvme_core.io_timeout on the "
    "nodes, or see fastIoFailTmo",
}
"""What a StorageClass might be expected to take, and why it does not."""
