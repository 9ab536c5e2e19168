"""What the Node service works with: each a seam where tests put a fake."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.node.staging import StagingStore
from rds_csi.node.waiting import Waits
from rds_csi.nvme.baseline import Doubt
from rds_csi.nvme.sysfs import Controller, Namespace
from rds_csi.pathlayer.maps import Maps
from rds_csi.runtime.process import Runner


class Initiator(Protocol):
    """The node's side of NVMe/TCP: :class:`rds_csi.nvme.connector.Connector`."""

    async def connect_with_retry(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        """Connect, or find connected, and return the usable namespace."""

    async def connect_missing(
        self,
        target: Target,
        config: ConnectionConfig,
        *,
        volume: str = "",
        confirm: Callable[[], Awaitable[bool]] | None = None,
    ) -> list[str]:
        """Connect at the addresses that have no connection, beside what stands."""

    def find(self, nqn: str) -> Namespace | None:
        """The namespace, as sysfs shows it now."""

    async def disconnect(self, nqn: str, *, volume: str = "") -> None:
        """Disconnect; returns when the controllers are proven gone."""

    async def rescan(self, nqn: str, *, volume: str = "") -> None:
        """Make the kernel read the namespace's size again."""


class Reconnector(Protocol):
    """Who brings connections back: :class:`rds_csi.nvme.reconnector.Reconnector`."""

    async def connect_once(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        """Connect, or find connected, in one attempt; return the usable namespace."""

    async def give_up(self, nqn: str, *, volume: str = "") -> None:
        """End what the kernel does in vain to bring a connection back, in use or not."""

    async def disconnect(self, nqn: str, *, volume: str = "") -> None:
        """Disconnect what nothing holds."""


class Subsystems(Protocol):
    """What sysfs shows: :class:`rds_csi.nvme.sysfs.Sysfs`."""

    def controllers_of(self, wanted: Callable[[str], bool]) -> list[Controller]:
        """The controllers whose NQN is wanted."""

    def namespace_of(self, controllers: Iterable[Controller], nsid: int = 1) -> Namespace | None:
        """The namespace that the controllers lead to."""

    def owner(self, devno: tuple[int, int]) -> str:
        """The NQN that a block device is of, or nothing."""

    def owner_of_node(self, name: str) -> str:
        """The same, of the block device of this name."""


def no_doubt(_volume: str) -> Doubt | None:
    """Where nobody watches targets: of no volume anything is known."""
    return None


async def no_healer(_volume: str) -> bool:
    """Where nobody brings volumes back: nothing is done."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePorts:
    """Everything outside the Node service that it works with, each replaceable by a fake.

    ``waits`` are the volumes whose I/O waits in a map; ``mend`` leads a volume's map back to it, if
    it leads nowhere, with the volume's lock held (:class:`rds_csi.node.mender.Mender`).
    """

    runner: Runner
    initiator: Initiator
    subsystems: Subsystems
    mounts: Mounts
    devices: BlockDevices
    maps: Maps
    store: StagingStore
    doubt: Callable[[str], Doubt | None] = no_doubt
    """Whether a volume's target came back without its memory (:mod:`rds_csi.nvme.returns`)."""
    waits: Waits = field(default_factory=Waits)
    mend: Callable[[str], Awaitable[bool]] = no_healer
