"""VolumeContext and PublishContext: every key of both, written and read here and nowhere else.

The VolumeContext is frozen in the PersistentVolume when the volume is made. The PublishContext is
made anew at each ControllerPublish and frozen in the VolumeAttachment. Where both say the same
thing, the PublishContext wins: an RDS may have moved since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from rds_csi.errors import InvalidParameter
from rds_csi.model.data_addresses import read_addresses, write_addresses
from rds_csi.model.parameters import (
    MKFS_KEY,
    NEWEST,
    ConnectionConfig,
    VolumeParameters,
    read_integer,
)
from rds_csi.model.volume import check_nqn

ADDRESS_KEY: Final = "nvmeAddress"
"""In both: the IP addresses of the export, one or several with a comma between them
(:mod:`rds_csi.model.data_addresses`). In the VolumeContext only where the class names any."""
PORT_KEY: Final = "nvmePort"
"""In both: the port of the export, at each of its addresses."""
NQN_KEY: Final = "nqn"
"""In both: the NQN of the export."""
PATH_KEY: Final = "volumePath"
"""VolumeContext: the directory on the RDS, for people."""
CONTENT_SOURCE_KEY: Final = "contentSource"
"""VolumeContext of a volume made from a snapshot or another volume: it is never blank."""
READONLY_KEY: Final = "readonly"
"""PublishContext: ``true`` after a read-only ControllerPublish, else absent."""
SIZE_KEY: Final = "size"
"""PublishContext: the volume's bytes. No smaller device is ever used for it."""
GENERATION_KEY: Final = "generation"
"""PublishContext: the record's generation, in decimal. What a node kept of an older one is
outdated. Absent for what was published before records had it, which is 0."""
FORMATTED_KEY: Final = "formatted"
"""PublishContext: the file system the volume is known to hold, absent when none is known. Such a
volume is never formatted, whatever its device shows."""
PATH_LAYER_KEY: Final = "pathLayer"
"""PublishContext: ``true`` where a map is to stand between the NVMe device and whoever uses it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a target: what one connection leads to."""

    address: str
    port: int
    nqn: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a volume is exported: the addresses of the RDS, their port, and the subsystem's NQN."""

    addresses: tuple[str, ...]
    port: int
    nqn: str

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Each of its addresses, in their order."""
        return tuple(Endpoint(address, self.port, self.nqn) for address in self.addresses)

    @classmethod
    def from_contexts(cls, publish: Mapping[str, str], volume: Mapping[str, str]) -> Self:
        """The target of the two contexts; :class:`InvalidParameter` where neither names it."""
        values = {**volume, **publish}
        for key in (ADDRESS_KEY, PORT_KEY, NQN_KEY):
            if not values.get(key):
                raise InvalidParameter(f"neither publish_context nor volume_context has {key}")
        return cls(
            read_addresses(ADDRESS_KEY, values[ADDRESS_KEY]),
            read_integer(PORT_KEY, values[PORT_KEY], 1, 65535),
            check_nqn(values[NQN_KEY]),
        )

    def to_context(self) -> dict[str, str]:
        """Its entries."""
        return {
            ADDRESS_KEY: write_addresses(self.addresses),
            PORT_KEY: str(self.port),
            NQN_KEY: self.nqn,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a PublishContext tells of the volume, beside its target.

    ``None`` and an empty text are "not told", as by a controller of an older version.
    """

    size: int | None = None
    generation: int | None = None
    formatted: str = ""
    read_only: bool = False
    path_layer: bool = False

    @classmethod
    def from_context(cls, publish: Mapping[str, str]) -> Self:
        """What the context says; :class:`InvalidParameter` for a number that is none."""
        return cls(
            size=_number(publish, SIZE_KEY),
            generation=_number(publish, GENERATION_KEY),
            formatted=publish.get(FORMATTED_KEY, ""),
            read_only=publish.get(READONLY_KEY) == "true",
            path_layer=publish.get(PATH_LAYER_KEY) == "true",
        )

    def to_context(self) -> dict[str, str]:
        """Its entries: what is not told is absent."""
        numbers = {SIZE_KEY: self.size, GENERATION_KEY: self.generation}
        return {
            **{key: str(value) for key, value in numbers.items() if value is not None},
            **({FORMATTED_KEY: self.formatted} if self.formatted else {}),
            **({READONLY_KEY: "true"} if self.read_only else {}),
            **({PATH_LAYER_KEY: "true"} if self.path_layer else {}),
        }


def volume_context(parameters: VolumeParameters, nqn: str, *, keep_address: bool) -> dict[str, str]:
    """The VolumeContext of a new volume: what the node needs to connect.

    Only with ``keep_address`` the addresses are in it; else each publish gives those the driver is
    configured with by then.
    """
    addresses = write_addresses(parameters.nvme_addresses)
    return {
        **({ADDRESS_KEY: addresses} if keep_address else {}),
        PORT_KEY: str(parameters.nvme_port),
        NQN_KEY: nqn,
        PATH_KEY: parameters.volume_path,
        **({MKFS_KEY: NEWEST} if parameters.newest_features else {}),
        **connection_context(parameters.connection),
    }


def connection_context(config: ConnectionConfig) -> dict[str, str]:
    """The settings of a connection, by their StorageClass keys.

    Always the three timers, the others where they are set.
    :meth:`ConnectionConfig.from_parameters` reads them.
    """
    context = {
        "ctrlLossTmo": str(config.ctrl_loss_tmo),
        "reconnectDelay": str(config.reconnect_delay),
        "keepAliveTmo": str(config.keep_alive_tmo),
    }
    if config.fast_io_fail_tmo is not None:
        context["fastIoFailTmo"] = str(config.fast_io_fail_tmo)
    if config.nr_io_queues:
        context["nrIoQueues"] = str(config.nr_io_queues)
    if config.queue_size:
        context["queueSize"] = str(config.queue_size)
    return context


def io_waits(volume: Mapping[str, str]) -> bool:
    """Whether I/O is to wait for as long as an outage lasts (:attr:`ConnectionConfig.waits`)."""
    return ConnectionConfig.from_parameters(volume).waits


def has_source(volume: Mapping[str, str]) -> bool:
    """Whether the VolumeContext is of a volume that was made from another's content."""
    return bool(volume.get(CONTENT_SOURCE_KEY))


def newest_features(volume: Mapping[str, str]) -> bool:
    """Whether a file system is made with all that the node's ``mkfs`` makes by itself."""
    return volume.get(MKFS_KEY) == NEWEST


def names_address(volume: Mapping[str, str]) -> bool:
    """Whether the VolumeContext says where the volume is, because its StorageClass does."""
    return bool(volume.get(ADDRESS_KEY))


def _number(publish: Mapping[str, str], key: str) -> int | None:
    text = publish.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidParameter(f"{key} {text[:64]!r} in the publish_context is no {key}")
    return int(text)
