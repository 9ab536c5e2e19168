"""The composition root: builds every room, serves, supervises, and ends it all in order.

There is one cancellation scope. SIGTERM or SIGINT sets one event; then the listener closes,
background services are cancelled, running RPCs get ``drain_budget`` seconds, children and the
SSH connection are closed. Whatever still hangs then is cut off by a hard exit, before the
kubelet's 30 s are over and it does the same less politely.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from rds_csi import __version__
from rds_csi.config import ControllerConfig, DriverConfig, NodeConfig
from rds_csi.errors import DriverError
from rds_csi.fencing import make_node_id
from rds_csi.identity import Identity
from rds_csi.rpc import RpcSettings, Server
from rds_csi.supervise import supervise

log = structlog.get_logger(__name__)

_CLOSE_BUDGET: Final = 10.0
"""Seconds after ``drain_budget`` until the hard exit: for operations to tidy up, answers to
leave, children and connections to be closed. With the default budget of 15 s the end comes 5 s
before the kubelet's SIGKILL."""
_FAILED: Final = 1
_HUNG: Final = 70
"""Exit status of a hard exit (sysexits.h: internal software error)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One service, and what starts, lives and ends with it.

    ``prepare`` runs before anything is served; ``background`` are services that run meanwhile,
    by name; ``close`` ends what is left and must not fail.
    """

    service: Any
    prepare: Callable[[], Awaitable[None]] | None = None
    background: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
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
        node_id = make_node_id(config.cluster_id, node.node_id) if node else ""
        identity = Identity(
            name=config.driver_name,
            version=__version__,
            controller=controller is not None,
            ready=lambda: self._ready,
        )
        self._parts = [Part(service=identity)]
        if controller is not None:
            self._parts.append(_controller_part(config, controller))
        if node is not None:
            self._parts.append(_node_part(config, node, node_id, self._locked))
        self._server = Server(
            [part.service for part in self._parts],
            settings=RpcSettings(timeout=config.operation_timeout, node=node_id),
        )

    def _locked(self, volume: str) -> bool:
        return self._server.operations.locked(volume)

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then end in order.

        Raises :class:`rds_csi.errors.SocketUnusable` if the socket cannot be had.
        """
        try:
            for part in self._parts:
                if part.prepare is not None:
                    await part.prepare()
            await self._server.start(self._config.endpoint)
            await self._supervised(stop)
        finally:
            self._ready = False
            await self._server.drain(self._config.drain_budget)
            for part in reversed(self._parts):
                if part.close is not None:
                    await part.close()

    async def _supervised(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(supervise(name, service), name=name)
                for part in self._parts
                for name, service in part.background.items()
            ]
            self._ready = True
            log.info("ready", version=__version__, driver=self._config.driver_name)
            await stop.wait()
            log.info("stopping")
            for task in background:
                task.cancel()


def run(config: DriverConfig, controller: ControllerConfig | None, node: NodeConfig | None) -> int:
    """Run the driver until SIGTERM or SIGINT; the exit status."""
    return asyncio.run(_until_signalled(config, controller, node))


async def _until_signalled(
    config: DriverConfig, controller: ControllerConfig | None, node: NodeConfig | None
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
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
    if not serving.done():
        _exit_hard()
    return _status(serving)


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
    os._exit(_HUNG)


def _controller_part(config: DriverConfig, settings: ControllerConfig) -> Part:
    # A node plugin must not carry the SSH client's 18 MiB.
    from rds_csi.controller import Controller, ControllerSettings  # noqa: PLC0415
    from rds_csi.routeros import Disks, Session, SessionSettings  # noqa: PLC0415

    session = Session(
        SessionSettings(
            host=settings.rds_address,
            port=settings.rds_port,
            user=settings.rds_user,
            key_file=settings.rds_key_file,
            host_keys=settings.rds_host_keys,
            insecure_accept_any_host_key=settings.rds_accept_any_host_key,
            channels=settings.rds_channels,
        )
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
    return Part(service=service, close=session.close)


def _node_part(
    config: DriverConfig, settings: NodeConfig, node_id: str, locked: Callable[[str], bool]
) -> Part:
    from rds_csi.filesystem.mounts import Mounts  # noqa: PLC0415 - a controller mounts nothing
    from rds_csi.node import Node, NodeSettings  # noqa: PLC0415
    from rds_csi.nvme.connector import Connector  # noqa: PLC0415
    from rds_csi.nvme.host import host_identity  # noqa: PLC0415
    from rds_csi.nvme.sysfs import Sysfs  # noqa: PLC0415
    from rds_csi.process import SubprocessRunner  # noqa: PLC0415
    from rds_csi.staging import StagingStore  # noqa: PLC0415

    del locked
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
    )
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
        store=StagingStore(settings.state_dir),
        mounts=mounts,
    )
    return Part(service=service, close=runner.close)
