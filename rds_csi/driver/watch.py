"""Joins the rooms to their metrics, where metrics are on: who tells, and who is asked how often.

Imported with prometheus-client, so only by a driver that was given a metrics address.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from rds_csi.config import ControllerConfig
from rds_csi.runtime.retry import RetryPolicy
from rds_csi.telemetry.controller_metrics import ControllerMetrics
from rds_csi.telemetry.metrics import Metrics
from rds_csi.telemetry.node_metrics import NodeMetrics
from rds_csi.telemetry.refresh import refreshing
from rds_csi.telemetry.scrape import MetricsServer

if TYPE_CHECKING:  # a node must not load the SSH client, nor a controller what mounts
    from rds_csi.node.states import VolumeStates
    from rds_csi.node.waiting import Waits
    from rds_csi.nvme.returns import Returns
    from rds_csi.routeros import Boot, Session
    from rds_csi.runtime.process import SubprocessRunner

Services = dict[str, Callable[[], Awaitable[None]]]

_POOL_INTERVAL: Final = 60.0
"""Seconds between two questions for the pool. They also bring a broken link to the RDS back when
nobody else asks for anything."""
_VOLUMES_INTERVAL: Final = 15.0
"""Seconds between two looks at the node's volumes: some reads of the kernel's memory for each."""


def scrapes(metrics: Metrics, address: tuple[str | None, int]) -> Services:
    """The service that answers Prometheus at ``address``."""
    return {"metrics": MetricsServer(*address, metrics.render).serve}


class RdsWatch:
    """The controller's link to the RDS. ``observe`` is for its session, ``on_boot`` for boots."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = ControllerMetrics(metrics)
        self.observe = self._metrics.ssh_command

    def on_boot(self, boot: "Boot") -> None:
        """The RDS has booted."""
        self._metrics.show_boot(boot.at, boot.before.value)

    def services(self, session: "Session", owner: str, settings: ControllerConfig) -> Services:
        """Show the session; the service that asks for the pool of the default volume path."""
        from rds_csi.routeros import Disks  # noqa: PLC0415 - see above

        path = settings.defaults.volume_path
        # Once a minute is often enough: no repetition in between.
        disks = Disks(session, owner=owner, base_path=path, policy=RetryPolicy(attempts=1))

        async def look() -> None:
            pool = await disks.capacity(path)
            self._metrics.show_pool(
                pool.pool, size=pool.size, free=pool.room, reserve=settings.reserve
            )

        self._metrics.watch_ssh(session)
        return {"pool": partial(refreshing, "pool", look, interval=_POOL_INTERVAL)}


class NodeWatch:
    """A node's connections.

    ``on_event`` is for its connector, ``on_orphan`` for its reaper, ``on_verdict`` for who watches
    its targets, ``on_healed`` for its healer.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = NodeMetrics(metrics)
        self.on_event = self._metrics.connection_event
        self.on_orphan = self._metrics.orphan_disconnected
        self.on_verdict = self._metrics.target_returned
        self.on_healed = self._metrics.volume_healed

    def services(
        self,
        runner: "SubprocessRunner",
        states: "VolumeStates",
        returns: "Returns",
        waits: "Waits",
    ) -> Services:
        """Show programs that hang, targets, and volumes that wait; the service that looks."""

        async def look() -> None:
            found = await states.look()
            self._metrics.show_volumes(found.states, reconnected=found.reconnected)

        self._metrics.watch_programs(lambda: runner.stuck)
        self._metrics.watch_targets(lambda: returns.booted)
        self._metrics.watch_waiting(
            lambda: [(volume, each.reason, each.since) for volume, each in waits.all.items()]
        )
        return {"volumes": partial(refreshing, "volumes", look, interval=_VOLUMES_INTERVAL)}
