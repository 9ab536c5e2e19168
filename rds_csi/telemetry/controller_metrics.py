"""What a controller counts and shows: its link to the RDS, and the pool."""

from collections.abc import Iterator
from typing import Final, Protocol

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from rds_csi.runtime.clock import Clock, SystemClock
from rds_csi.telemetry.metrics import Metrics, Read, by_label, gauge

SSH_OUTCOMES: Final = ("ok", "failed", "unknown")
_SSH_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)

POOL_AGE: Final = 600.0
"""Seconds after which what the RDS said of its pool is not shown any more."""


class SshStatistics(Protocol):
    """What an SSH session counts: :class:`rds_csi.routeros.session.Statistics`."""

    @property
    def connects(self) -> int:
        """Connections made so far."""

    @property
    def connect_failures(self) -> int:
        """Connections that could not be made."""

    @property
    def waiting(self) -> int:
        """Commands that wait for a channel."""

    @property
    def running(self) -> int:
        """Commands on a channel."""


class RdsSystem(Protocol):
    """What the RDS says of itself: :class:`rds_csi.routeros.System`."""

    @property
    def version(self) -> str:
        """Of RouterOS."""

    @property
    def board(self) -> str:
        """The device."""

    @property
    def patched(self) -> bool:
        """Whether RouterOS has the security fixes."""


class SshSession(Protocol):
    """The link to the RDS: :class:`rds_csi.routeros.Session`. Nothing here may wait."""

    @property
    def connected(self) -> bool:
        """Whether it stands."""

    @property
    def statistics(self) -> SshStatistics:
        """The numbers of this moment."""

    @property
    def system(self) -> RdsSystem | None:
        """Who answered at the last connect."""


class ControllerMetrics:
    """The link to the RDS, and its pool."""

    def __init__(self, metrics: Metrics, clock: Clock | None = None) -> None:
        self._registry = registry = metrics.registry
        self._clock = clock or SystemClock()
        self._commands = Counter(
            "rds_csi_ssh_commands",
            "Commands to the RDS; 'unknown': sent, and no answer came.",
            ["outcome"],
            registry=registry,
        )
        for outcome in SSH_OUTCOMES:
            self._commands.labels(outcome)
        self._command_duration = Histogram(
            "rds_csi_ssh_command_duration_seconds",
            "How long commands took, waiting for a channel and connecting included.",
            buckets=_SSH_BUCKETS,
            registry=registry,
        )
        self._boot = Gauge(
            "rds_csi_rds_boot_timestamp_seconds",
            "When the RDS booted last, by how it had gone down before.",
            ["before"],
            registry=registry,
        )
        self._pools: dict[str, tuple[float, int, int, int]] = {}
        registry.register(Read(self._collect_pools))

    def ssh_command(self, outcome: str, seconds: float) -> None:
        """A command ended: ``ok``, ``failed`` or ``unknown``."""
        self._commands.labels(outcome).inc()
        self._command_duration.observe(seconds)

    def watch_ssh(self, session: SshSession) -> None:
        """Show a session as it is at each scrape."""

        def collect() -> Iterator[Metric]:
            now = session.statistics
            connects = CounterMetricFamily(
                "rds_csi_ssh_connects", "SSH connections tried.", labels=["outcome"]
            )
            connects.add_metric(["ok"], now.connects)
            connects.add_metric(["failed"], now.connect_failures)
            yield connects
            yield gauge(
                "rds_csi_ssh_connected",
                "Whether the connection to the RDS stands.",
                session.connected,
            )
            yield gauge(
                "rds_csi_ssh_commands_waiting", "Commands that wait for a channel.", now.waiting
            )
            yield gauge("rds_csi_ssh_commands_running", "Commands on a channel.", now.running)
            info = GaugeMetricFamily(
                "rds_csi_rds_info", "What the RDS says it is.", labels=["version", "board"]
            )
            patched = GaugeMetricFamily(
                "rds_csi_rds_patched",
                "Whether RouterOS has the security fixes of 7.23.4 and 7.24.2.",
            )
            if session.system is not None:
                info.add_metric([session.system.version, session.system.board], 1)
                patched.add_metric([], session.system.patched)
            yield info
            yield patched

        self._registry.register(Read(collect))

    def show_boot(self, at: float, before: str) -> None:
        """The RDS booted ``at``; it had gone down "orderly", "abrupt" or "unknown"."""
        self._boot.clear()
        self._boot.labels(before).set(at)

    def show_pool(self, pool: str, *, size: int, free: int, reserve: int) -> None:
        """The pool has ``size`` bytes, of them ``free``; ``reserve`` of these are kept free.

        ``free`` is what is promised to no volume: what nodes have trimmed is not.
        """
        self._pools[pool] = (self._clock.now(), size, free, reserve)

    def _collect_pools(self) -> Iterator[Metric]:
        oldest = self._clock.now() - POOL_AGE
        fresh = {pool: values for pool, values in self._pools.items() if values[0] >= oldest}
        for place, name, text in (
            (1, "size", "Size of the pool."),
            (2, "free", "Free bytes promised to no volume, the reserve included."),
            (3, "reserve", "Bytes of the pool that no volume gets."),
        ):
            values = {pool: found[place] for pool, found in fresh.items()}
            yield by_label(f"rds_csi_pool_{name}_bytes", text, "pool", values)
        yield by_label(
            "rds_csi_pool_seen_timestamp_seconds",
            "When the RDS last told of its pool.",
            "pool",
            {pool: found[0] for pool, found in self._pools.items()},
        )
