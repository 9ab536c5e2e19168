"""The composition root: builds every room, serves, supervises, and ends it all in order.

SIGTERM or SIGINT sets one event; then the one cancellation scope ends at once (background
services, the orphan reaper, connects with their retries), the listener closes, other RPCs get
``drain_budget`` seconds, children and the SSH connection are closed. Whatever still hangs then
is cut off by a hard exit, before the kubelet's 30 s are over and it does the same less politely.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from rds_csi import __version__
from rds_csi.config import ControllerConfig, DriverConfig, NodeConfig, listen_address
from rds_csi.controller.admission import make_node_id
from rds_csi.driver import preflight
from rds_csi.driver.supervise import supervise
from rds_csi.errors import DriverError, ShuttingDown
from rds_csi.rpc import RpcSettings, Server
from rds_csi.rpc.identity import Identity
from rds_csi.runtime import threads
from rds_csi.runtime.scope import Scope
from rds_csi.telemetry import logs

if TYPE_CHECKING:  # loaded only where metrics are on, for it brings prometheus-client
    from rds_csi.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_CLOSE_BUDGET: Final = 10.0
"""Seconds after ``drain_budget`` until the hard exit: for operations to tidy up, answers to
leave, children and connections to be closed. With the default budget of 15 s the end comes 5 s
before the kubelet's SIGKILL."""
_LAST_BUDGET: Final = 2.0
"""Seconds for tasks that outlived the drain: operations that would not stop."""
_FAILED: Final = 1
_HUNG: Final = 70
"""Exit status of a hard exit (sysexits.h: internal software error)."""


Service = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One service, and what starts, lives and ends with it.

    ``prepare`` runs before anything is served; ``background`` are services that run meanwhile,
    by name; ``close`` ends what is left and must not fail.
    """

    service: Any
    prepare: Callable[[], Coroutine[Any, Any, None]] | None = None
    background: Mapping[str, Service] = field(default_factory=dict)
    close: Callable[[], Awaitable[None]] | None = None


class Driver:
    """The running driver: the parts it was asked for, behind one socket."""

    def __init__(
        self,
        config: DriverConfig,
        controller: ControllerConfig | None,
        node: NodeConfig | None,
    ) -> None:
        self._config = config
        self._ready = False
        self._scope = Scope()
        node_id = make_node_id(config.cluster_id, node.node_id) if node else ""
        identity = Identity(
            name=config.driver_name,
            version=__version__,
            controller=controller is not None,
            ready=lambda: self._ready,
        )
        self._metrics, scrapes = _metrics(config, controller, node)
        self._parts = [Part(service=identity, background=scrapes)]
        if controller is not None:
            self._parts.append(_controller_part(config, controller, self._metrics))
        if node is not None:
            self._parts.append(
                _node_part(
                    config,
                    node,
                    node_id,
                    locked=self._locked,
                    scope=self._scope,
                    metrics=self._metrics,
                )
            )
        self._server = Server(
            [part.service for part in self._parts],
            settings=RpcSettings(timeout=config.operation_timeout, node=node_id),
            metrics=self._metrics,
        )
        if self._metrics is not None:
            self._metrics.watch_operations(self._server.operations.ages)
            self._metrics.watch_services(name for part in self._parts for name in part.background)

    def _locked(self, volume: str) -> bool:
        return self._server.operations.locked(volume)

    def _crashed(self, service: str) -> None:
        if self._metrics is not None:
            self._metrics.service_crashed(service)

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then end in order.

        Raises :class:`rds_csi.errors.SocketUnusable` if the socket cannot be had.
        """
        ending = asyncio.create_task(self._end_scope(stop), name="end of the scope")
        try:
            for part in self._parts:
                if part.prepare is not None:
                    await self._scope.run(part.prepare)
            await self._server.start(self._config.endpoint)
            await self._supervised(stop)
        except ShuttingDown:
            log.info("stopped before it served")
        finally:
            ending.cancel()
            self._ready = False
            await self._server.drain(self._config.drain_budget)
            for part in reversed(self._parts):
                if part.close is not None:
                    await part.close()

    async def _end_scope(self, stop: asyncio.Event) -> None:
        await stop.wait()
        log.info("stopping")
        self._scope.stop()

    async def _supervised(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                for name, service in part.background.items():
                    running = supervise(name, service, on_crash=self._crashed)
                    self._scope.add(group.create_task(running, name=name))
            self._ready = True
            log.info("ready", version=__version__, driver=self._config.driver_name)
            await stop.wait()


def run(config: DriverConfig, controller: ControllerConfig | None, node: NodeConfig | None) -> int:
    """Run the driver until SIGTERM or SIGINT; the exit status.

    Raises :class:`rds_csi.config.ConfigurationError` for a setting that cannot work here.
    """
    preflight.check(config, controller, node)
    return threads.run(_until_signalled(config, controller, node))


async def _until_signalled(
    config: DriverConfig, controller: ControllerConfig | None, node: NodeConfig | None
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, logs.toggle_debug)
    try:
        driver = Driver(config, controller, node)
    except DriverError as error:
        log.error("cannot start", error=str(error))  # noqa: TRY400 - it is said, not traced
        return _FAILED
    serving = asyncio.create_task(driver.serve(stop), name="serve")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    await asyncio.wait({serving}, timeout=config.drain_budget + _CLOSE_BUDGET)
    if not serving.done() or not await _end_others():
        _exit_hard()
    return _status(serving)


async def _end_others() -> bool:
    """Cancel every task that is left; whether all of them end. The event loop waits for them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_LAST_BUDGET)
    return all(task.done() for task in others)


def _status(serving: asyncio.Task[None]) -> int:
    error = serving.exception()
    if error is None:
        log.info("stopped")
        return 0
    if isinstance(error, DriverError):
        log.error("stopped by an error", error=str(error))
    else:
        log.error("stopped by an error", exc_info=error)
    return _FAILED


def _exit_hard() -> None:
    """End the process with tasks still hanging: a successor heals what they leave."""
    hanging = sorted(task.get_name() for task in asyncio.all_tasks() if not task.done())
    log.critical("hard exit: these tasks do not end", tasks=hanging)
    logs.drain()
    os._exit(_HUNG)


def _metrics(
    config: DriverConfig, controller: ControllerConfig | None, node: NodeConfig | None
) -> tuple["Metrics | None", dict[str, Service]]:
    """The metrics, and the service that shows them; nothing where they are off."""
    if not config.metrics_address:
        return None, {}
    from rds_csi.driver.watch import scrapes  # noqa: PLC0415
    from rds_csi.telemetry.metrics import Metrics  # noqa: PLC0415 - not where metrics are off

    served = {"controller": controller is not None, "node": node is not None}
    metrics = Metrics("all" if all(served.values()) else "controller" if controller else "node")
    return metrics, scrapes(metrics, listen_address("--metrics-address", config.metrics_address))


def _ignore(_event: str) -> None:
    """Where metrics are off."""


def _controller_part(
    config: DriverConfig, settings: ControllerConfig, metrics: "Metrics | None"
) -> Part:
    # A node plugin must not carry the SSH client's 18 MiB.
    from rds_csi.controller.service import Controller, ControllerSettings  # noqa: PLC0415
    from rds_csi.routeros import Disks, Session, SessionSettings  # noqa: PLC0415

    watch = None
    if metrics is not None:
        from rds_csi.driver.watch import RdsWatch  # noqa: PLC0415

        watch = RdsWatch(metrics)
    session = Session(
        SessionSettings(
            host=settings.rds_address,
            port=settings.rds_port,
            user=settings.rds_user,
            key_file=settings.rds_key_file,
            host_keys=settings.rds_host_keys,
            insecure_accept_any_host_key=settings.rds_accept_any_host_key,
            channels=settings.rds_channels,
        ),
        observe=watch.observe if watch else None,
    )
    disks = Disks(
        session,
        owner=config.owner,
        base_path=settings.defaults.volume_path,
        reserve=settings.reserve,
    )
    service = Controller(
        disks,
        ControllerSettings(
            owner=config.owner,
            cluster_id=config.cluster_id,
            nqn_prefix=config.nqn_prefix,
            defaults=settings.defaults,
            reserve=settings.reserve,
            list_page=settings.list_page,
        ),
    )
    background = watch.services(session, config.owner, settings) if watch else {}
    return Part(service=service, background=background, close=session.close)


def _node_part(
    config: DriverConfig,
    settings: NodeConfig,
    node_id: str,
    *,
    locked: Callable[[str], bool],
    scope: Scope,
    metrics: "Metrics | None",
) -> Part:
    from rds_csi.filesystem.mounts import Mounts  # noqa: PLC0415 - a controller mounts nothing
    from rds_csi.model.host_identity import host_identity  # noqa: PLC0415
    from rds_csi.node.service import Node, NodeSettings  # noqa: PLC0415
    from rds_csi.node.staging import StagingStore  # noqa: PLC0415
    from rds_csi.node.states import VolumeStates  # noqa: PLC0415
    from rds_csi.nvme.connector import Connector  # noqa: PLC0415
    from rds_csi.nvme.reaper import Reaper  # noqa: PLC0415
    from rds_csi.nvme.sysfs import Sysfs  # noqa: PLC0415
    from rds_csi.runtime.process import SubprocessRunner  # noqa: PLC0415

    watch = None
    if metrics is not None:
        from rds_csi.driver.watch import NodeWatch  # noqa: PLC0415

        watch = NodeWatch(metrics)
    runner = SubprocessRunner()
    sysfs = Sysfs()
    mounts = Mounts(runner)
    host = host_identity(config.cluster_id, node_id)
    connector = Connector(
        runner,
        sysfs,
        host,
        in_use=mounts.uses,
        nqn_prefix=config.nqn_prefix,
        limit=settings.connects,
        on_event=watch.on_event if watch else _ignore,
        scope=scope,
    )
    store = StagingStore(settings.state_dir)
    reaper = Reaper(
        sysfs=sysfs,
        connector=connector,
        host=host.nqn,
        nqn_prefix=config.nqn_prefix,
        recorded=partial(store.staged_nqns, config.nqn_prefix),
        mounted=lambda: mounts.look(many=True).uses,
        locked=lambda nqn: locked(nqn.rpartition(":")[2]),
        grace=settings.reap_grace,
        interval=settings.reap_interval,
        on_disconnect=watch.on_orphan if watch else _ignore,
    )
    states = VolumeStates(store, sysfs, mounts, host.nqn)
    service = Node(
        settings=NodeSettings(
            node_id=node_id,
            host_nqn=host.nqn,
            kubelet_dir=settings.kubelet_dir,
            max_volumes=settings.max_volumes,
        ),
        connector=connector,
        sysfs=sysfs,
        runner=runner,
        store=store,
        mounts=mounts,
    )
    return Part(
        service=service,
        prepare=reaper.at_start,
        background={
            "reaper": reaper.run,
            **(watch.services(runner, states) if watch else {}),
            **_startup_taint(config, settings, node_id),
        },
        close=runner.close,
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
