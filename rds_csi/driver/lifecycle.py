"""The driver from start to end: builds its parts, serves, supervises, and ends it all in order.

SIGTERM or SIGINT sets one event; then the one cancellation scope ends at once (background
services, the orphan reaper, connects with their retries), the listener closes, other RPCs get
``drain_budget`` seconds, children and the SSH connection are closed. Whatever still hangs then
is cut off by a hard exit, before the kubelet's 30 s are over and it does the same less politely.
"""

import asyncio
import os
import signal
from typing import Final

import structlog

from rds_csi import __version__
from rds_csi.config import ControllerConfig, DriverConfig, NodeConfig
from rds_csi.driver import preflight
from rds_csi.driver.parts import Part, build_metrics
from rds_csi.driver.supervise import supervise
from rds_csi.errors import DriverError, ShuttingDown
from rds_csi.model.node_id import make_node_id
from rds_csi.rpc import RpcSettings, Server
from rds_csi.rpc.identity import Identity
from rds_csi.runtime import threads
from rds_csi.runtime.scope import Scope
from rds_csi.telemetry import logs

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
            grows_in_use=controller is None or controller.grows_in_use,
            ready=lambda: self._ready,
        )
        self._metrics, scrapes = build_metrics(config, controller, node)
        self._parts = [Part(service=identity, background=scrapes)]
        if controller is not None:
            from rds_csi.driver.controller_part import controller_part  # noqa: PLC0415 - brings SSH

            self._parts.append(controller_part(config, controller, self._metrics))
        if node is not None:
            from rds_csi.driver.node_part import node_part  # noqa: PLC0415 - not in a controller

            self._parts.append(
                node_part(
                    config,
                    node,
                    node_id,
                    locked=self._locked,
                    operations=lambda: self._server.operations,
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
