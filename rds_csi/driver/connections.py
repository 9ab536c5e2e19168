"""This host's NVMe connections: who makes and ends them, and who clears up after them.

Connector and reaper have to agree on whose a connection is and on what uses it, so they are built
together, for the driver and for ``rds-csi reap``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.block_device import DeviceNumber
from rds_csi.model.host_identity import HostIdentity, host_identity
from rds_csi.model.volume import read_nqn
from rds_csi.node.staging import StagingStore
from rds_csi.node.ways import Sight
from rds_csi.nvme.baseline import BaselineFile
from rds_csi.nvme.child import Prover
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.counters import CounterReader
from rds_csi.nvme.readiness import Timings
from rds_csi.nvme.reaper import Reaper
from rds_csi.nvme.removal import Remover
from rds_csi.nvme.returns import SETTLED, Returns
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.pathlayer.maps import Maps
from rds_csi.runtime.process import SubprocessRunner
from rds_csi.runtime.scope import Scope

BASELINES: Final = "targets"
"""The file in the state directory that has what targets counted (:mod:`rds_csi.nvme.baseline`)."""


def _ignore(_event: str) -> None:
    """Where nobody counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a node's rooms share of this host: one runner, one look at its kernel, one memory."""

    identity: HostIdentity
    runner: SubprocessRunner
    sysfs: Sysfs
    mounts: Mounts
    devices: BlockDevices
    maps: Maps
    store: StagingStore

    @classmethod
    def of(
        cls, config: DriverConfig, settings: NodeConfig, node_id: str, sysfs: Sysfs | None = None
    ) -> "Host":
        """The host of that node."""
        runner = SubprocessRunner()
        identity = host_identity(config.cluster_id, node_id)
        sysfs = sysfs or Sysfs()
        root, dev = sysfs.places
        devices = BlockDevices(runner, root=root)
        return cls(
            identity=identity,
            runner=runner,
            sysfs=sysfs,
            mounts=Mounts(runner),
            devices=devices,
            # Of this host identity, as its connections are: two nodes may share a kernel.
            maps=Maps(runner, devices, f"{config.owner}/{identity.nqn}", root=root, dev=dev),
            store=StagingStore(settings.state_dir),
        )

    def remover(self) -> Remover:
        """Who gives up what the kernel tries in vain to bring back; it removes nothing."""
        prover = Prover(self.runner, self.sysfs, self.identity)
        return Remover(
            prover, self.sysfs, self.identity, in_use=lambda _devno: True, timings=Timings()
        )

    def sight(self) -> Sight:
        """Who looks at the maps of this host and at what belongs to them."""
        return Sight(
            maps=self.maps,
            store=self.store,
            subsystems=self.sysfs,
            runner=self.runner,
            host_nqn=self.identity.nqn,
        )


class MapsOver:
    """The reaper's view of the path layer: what stands over a device, and whether that is used."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def names_over(self, devno: DeviceNumber) -> set[str]:
        """See :class:`rds_csi.nvme.reaper.Maps`."""
        return {found.device.name for found in self._host.maps.over(devno)}

    async def remove_over(self, nqn: str) -> None:
        """See :class:`rds_csi.nvme.reaper.Maps`."""
        host = self._host
        for device in host.sysfs.devices(host.sysfs.controllers(nqn)):
            for found in host.maps.over(device.devno):
                await host.maps.remove(found)

    def mounted(self) -> Callable[[DeviceNumber], bool]:
        """Reads the mount table; who tells whether a device, or a map over it, is mounted."""
        table = self._host.mounts.look(many=True)

        def mounted(devno: DeviceNumber) -> bool:
            over = (found.devno for found in self._host.maps.over(devno))
            return any(map(table.uses, (devno, *over)))

        return mounted


def build_connections(
    config: DriverConfig,
    settings: NodeConfig,
    host: Host,
    *,
    locked: Callable[[str], bool],
    scope: Scope | None = None,
    grace: float | None = None,
    dry_run: bool = False,
    on_event: Callable[[str], None] = _ignore,
    on_orphan: Callable[[str], None] = _ignore,
) -> tuple[Connector, Reaper]:
    """The connector and the reaper.

    ``locked`` tells whether a call is at work on a volume. ``grace`` in seconds is the age at which
    an orphan is one, where it is not to be the setting's.
    """
    connector = Connector(
        host.runner,
        host.sysfs,
        host.identity,
        in_use=host.mounts.uses,
        nqn_prefix=config.nqn_prefix,
        limit=settings.connects,
        on_event=on_event,
        scope=scope,
    )
    maps = MapsOver(host)
    reaper = Reaper(
        sysfs=host.sysfs,
        connector=connector,
        host=host.identity.nqn,
        nqn_prefix=config.nqn_prefix,
        recorded=host.store.recorded,
        mounted=maps.mounted,
        locked=lambda nqn: (name := read_nqn(nqn)) is None or locked(name.volume),
        grace=settings.reap_grace if grace is None else grace,
        interval=settings.reap_interval,
        dry_run=dry_run,
        on_disconnect=on_orphan,
        maps=maps,
    )
    return connector, reaper


def build_returns(
    settings: NodeConfig, host: Host, *, on_verdict: Callable[[str], None] = _ignore
) -> Returns:
    """Who watches whether targets come back with what they had acknowledged."""

    async def exclusive(volume: str) -> bool:
        staged = await host.store.read(volume)
        return staged is not None and staged.exclusive

    return Returns(
        reader=CounterReader(host.runner, host.sysfs, host.identity.nqn),
        sysfs=host.sysfs,
        host_nqn=host.identity.nqn,
        file=BaselineFile.of_this_boot(settings.state_dir / BASELINES),
        exclusive=exclusive,
        mapped=lambda: {found.identity.volume for found in host.maps.all()},
        on_verdict=on_verdict,
        settled=SETTLED,
    )
