"""What a node counts and shows: connections, staged volumes, programs that hang."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric

from rds_csi.runtime.clock import Clock, SystemClock
from rds_csi.telemetry.metrics import Metrics, Read, gauge

CONNECT_OUTCOMES: Final = ("ok", "failed")
VERDICTS: Final = ("kept", "booted", "unknown")
"""As :class:`rds_csi.nvme.counters.Verdict` has them."""
VOLUME_STATES: Final = (
    "live",
    "path_down",
    "connecting",
    "resetting",
    "new",
    "deleting",
    "dead",
    "read_only",
    "stale_mount",
    "no_device",
    "disconnected",
    "waiting",
    "left_over",
    "unknown",
)
"""The kernel's words for a controller (drivers/nvme/host/sysfs.c), ours (``node/states.py``),
and one for words of the kernel that we do not know."""


class NodeMetrics:
    """Connections of this node, the volumes staged on it, and programs that hang."""

    def __init__(self, metrics: Metrics, clock: Clock | None = None) -> None:
        self._registry = registry = metrics.registry
        self._clock = clock or SystemClock()
        self._connects = Counter(
            "rds_csi_nvme_connects",
            "Connects; 'failed': after all repetitions. Found connected is 'ok' too.",
            ["outcome"],
            registry=registry,
        )
        for outcome in CONNECT_OUTCOMES:
            self._connects.labels(outcome)
        self._retries = Counter(
            "rds_csi_nvme_connect_retries", "Connects that were repeated.", registry=registry
        )
        self._path_failures = Counter(
            "rds_csi_nvme_path_failures",
            "Connects that failed at one of several addresses of a volume.",
            registry=registry,
        )
        self._disconnects = Counter(
            "rds_csi_nvme_disconnects", "Subsystems taken down.", registry=registry
        )
        self._reconnects = Counter(
            "rds_csi_nvme_reconnects",
            "Staged volumes that were lost and came back, as far as was seen.",
            registry=registry,
        )
        self._healed = Counter(
            "rds_csi_volumes_healed",
            "Volumes whose connection the kernel gave up, brought back under their maps.",
            registry=registry,
        )
        self._orphans = Counter(
            "rds_csi_orphans_disconnected",
            "Connections of ours that nobody used and that were taken down.",
            registry=registry,
        )
        self._returns = Counter(
            "rds_csi_target_returns",
            "Targets that were away and came back, by what their counters prove.",
            ["verdict"],
            registry=registry,
        )
        for verdict in VERDICTS:
            self._returns.labels(verdict)
        self._staged = Gauge(
            "rds_csi_volumes_staged",
            "Volumes staged on this node, by state.",
            ["state"],
            registry=registry,
        )
        self._seen = Gauge(
            "rds_csi_volumes_seen_timestamp_seconds",
            "When the volumes of this node were last looked at.",
            registry=registry,
        )
        # From now on, not from 1970: a first look that never ends has to be noticed too.
        self._seen.set(self._clock.now())

    def connection_event(self, event: str) -> None:
        """What :class:`rds_csi.nvme.connector.Connector` tells."""
        if event == "connected":
            self._connects.labels("ok").inc()
        elif event == "connect_failed":
            self._connects.labels("failed").inc()
        elif event == "retry":
            self._retries.inc()
        elif event == "path_failed":
            self._path_failures.inc()
        elif event == "disconnected":
            self._disconnects.inc()

    def orphan_disconnected(self, _nqn: str) -> None:
        """The reaper took an orphan down."""
        self._orphans.inc()

    def target_returned(self, verdict: str) -> None:
        """What :class:`rds_csi.nvme.returns.Returns` tells."""
        self._returns.labels(verdict).inc()

    def volume_healed(self, _volume: str) -> None:
        """The healer brought a volume back."""
        self._healed.inc()

    def watch_waiting(self, waiting: Callable[[], Iterable[tuple[str, str, float]]]) -> None:
        """Show the volumes whose I/O waits: ``waiting`` gives volume, reason, and since when."""

        def collect() -> Iterator[Metric]:
            family = GaugeMetricFamily(
                "rds_csi_volume_waiting_since_timestamp_seconds",
                "Since when the I/O of a volume waits in its map.",
                labels=["volume", "reason"],
            )
            for volume, reason, since in waiting():
                family.add_metric([volume, reason], since)
            yield family

        self._registry.register(Read(collect))

    def show_volumes(self, states: Mapping[str, int], *, reconnected: int) -> None:
        """So many volumes in each state; ``reconnected`` came back since the last time."""
        counts = dict.fromkeys(VOLUME_STATES, 0)
        for state, count in states.items():
            counts[state if state in counts else "unknown"] += count
        for state, count in counts.items():
            self._staged.labels(state).set(count)
        self._reconnects.inc(reconnected)
        self._seen.set(self._clock.now())

    def watch_programs(self, stuck: Callable[[], int]) -> None:
        """Show how many programs hang in the kernel."""

        def collect() -> Iterator[Metric]:
            yield gauge(
                "rds_csi_stuck_programs", "Killed programs that do not die (D state).", stuck()
            )

        self._registry.register(Read(collect))

    def watch_targets(self, booted: Callable[[], int]) -> None:
        """Show how many volumes are in use since before their target lost its memory."""

        def collect() -> Iterator[Metric]:
            yield gauge(
                "rds_csi_volumes_target_restarted",
                "Volumes that are connected since before their target began anew.",
                booted(),
            )

        self._registry.register(Read(collect))
