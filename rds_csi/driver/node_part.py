"""What a node is built of: the host, its connections, the service over them, the startup taint."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.driver.connections import Host, build_connections, build_returns
from rds_csi.driver.parts import Part, Service
from rds_csi.node.connected import Volumes
from rds_csi.node.healer import Exclusively, Healer
from rds_csi.node.mender import Mender
from rds_csi.node.path_keeper import PathKeeper
from rds_csi.node.ports import NodePorts
from rds_csi.node.service import Node, NodeSettings
from rds_csi.node.states import VolumeStates
from rds_csi.node.waiting import Waits
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.reaper import Reaper
from rds_csi.nvme.reconnector import Reconnector
from rds_csi.nvme.returns import Returns
from rds_csi.pathlayer.events import Events
from rds_csi.rpc.operations import Operations
from rds_csi.runtime.scope import Scope

SCOPE: Final = "csi.v1.Node"
"""Whose calls take the locks of a node's volumes (:mod:`rds_csi.rpc.calls`)."""

if TYPE_CHECKING:  # loaded only where metrics are on, for it brings prometheus-client
    from rds_csi.driver.watch import NodeWatch
    from rds_csi.telemetry.metrics import Metrics


def node_part(
    config: DriverConfig,
    settings: NodeConfig,
    node_id: str,
    *,
    locked: Callable[[str], bool],
    operations: Callable[[], Operations],
    scope: Scope,
    metrics: "Metrics | None",
) -> Part:
    """The Node service with everything that lives beside it; connects run in ``scope``.

    ``operations`` has the locks of volumes, once there is a server.
    """
    host = Host.of(config, settings, node_id)
    waits = Waits()
    watch = _watch(metrics)
    connector, reaper = _connections(
        config, settings, host, locked=locked, scope=scope, watch=watch
    )
    keeper = PathKeeper(
        initiator=connector,
        subsystems=host.sysfs,
        store=host.store,
        host_nqn=host.identity.nqn,
    )
    returns = _returns(settings, host, watch)
    mender = _mender(config, settings, host, connector, scope)
    healer = Healer(
        sight=host.sight(),
        mender=mender,
        waits=waits,
        exclusively=_exclusively(operations),
        events=Events().changed,
        on_healed=watch.on_healed if watch is not None else lambda _volume: None,
    )
    background: dict[str, Service] = {
        "reaper": reaper.run,
        "paths": keeper.run,
        "targets": returns.run,
        "healer": healer.run,
        **_startup_taint(config, settings, node_id),
    }
    if watch is not None:
        states = VolumeStates(
            host.store, host.sysfs, host.maps, host.mounts, host.identity.nqn, waits=waits
        )
        background |= watch.services(host.runner, states, returns, waits)
    ports = NodePorts(
        runner=host.runner,
        initiator=connector,
        subsystems=host.sysfs,
        mounts=host.mounts,
        devices=host.devices,
        maps=host.maps,
        store=host.store,
        doubt=returns.doubt,
        waits=waits,
        mend=mender.mend,
    )
    return Part(
        service=_service(config, settings, node_id, host, ports),
        prepare=reaper.at_start,
        background=background,
        close=host.runner.close,
    )


def _watch(metrics: "Metrics | None") -> "NodeWatch | None":
    if metrics is None:
        return None
    from rds_csi.driver.watch import NodeWatch  # noqa: PLC0415 - brings prometheus-client

    return NodeWatch(metrics)


def _connections(
    config: DriverConfig,
    settings: NodeConfig,
    host: Host,
    *,
    locked: Callable[[str], bool],
    scope: Scope,
    watch: "NodeWatch | None",
) -> tuple[Connector, Reaper]:
    if watch is None:
        return build_connections(config, settings, host, locked=locked, scope=scope)
    return build_connections(
        config,
        settings,
        host,
        locked=locked,
        scope=scope,
        on_event=watch.on_event,
        on_orphan=watch.on_orphan,
    )


def _returns(settings: NodeConfig, host: Host, watch: "NodeWatch | None") -> Returns:
    if watch is None:
        return build_returns(settings, host)
    return build_returns(settings, host, on_verdict=watch.on_verdict)


def _mender(
    config: DriverConfig, settings: NodeConfig, host: Host, connector: Connector, scope: Scope
) -> Mender:
    return Mender(
        sight=host.sight(),
        initiator=Reconnector(
            connector,
            host.runner,
            host.sysfs,
            host.identity,
            scope=scope,
            nqn_prefix=config.nqn_prefix,
        ),
        volumes=Volumes(connector, host.sysfs, host.maps, host.identity.nqn),
        devices=host.devices,
        maps=host.maps,
        address=settings.nvme_address,
    )


def _exclusively(operations: Callable[[], Operations]) -> Exclusively:
    """Work under a volume's lock, the very one that the Node service's calls take."""

    async def run(
        volume: str,
        work: Callable[[], Awaitable[bool]],
        timeout: float,  # noqa: ASYNC109 - it ends the work
    ) -> bool:
        return await operations().run("Heal", work, timeout=timeout, volume=volume, scope=SCOPE)

    return run


def _service(
    config: DriverConfig, settings: NodeConfig, node_id: str, host: Host, ports: NodePorts
) -> Node:
    return Node(
        NodeSettings(
            node_id=node_id,
            host_nqn=host.identity.nqn,
            kubelet_dir=settings.kubelet_dir,
            max_volumes=settings.max_volumes,
            topology=config.topology,
        ),
        ports,
    )


def _startup_taint(config: DriverConfig, settings: NodeConfig, node_id: str) -> dict[str, Service]:
    """The service that takes the startup taint off this node, where there is to be one."""
    if not settings.startup_taint:
        return {}
    from rds_csi.kubernetes.api import in_cluster  # noqa: PLC0415 - only where it is asked
    from rds_csi.kubernetes.startup_taint import StartupTaint  # noqa: PLC0415

    taint = StartupTaint(
        in_cluster(),
        key=settings.startup_taint,
        node=settings.node_id,
        driver=config.driver_name,
        node_id=node_id,
        limited=settings.max_volumes > 0,
    )
    return {"startup_taint": taint.run}
