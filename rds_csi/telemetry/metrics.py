"""Metrics: what is counted as it happens, and what is read when Prometheus asks.

Reading must never wait: neither for the RDS nor for a device nor for a disk. So a scrape reads
memory of this process alone (and ``/proc/self``). What has to be asked for, a background service
asks (:mod:`rds_csi.telemetry.refresh`) and puts here, with the time at which it was true.

This module is imported only where metrics are on: prometheus-client costs 2.5 MiB and 40 ms.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rds_csi import __version__
from rds_csi.errors import Code
from rds_csi.telemetry import logs

_RPC_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The registry, and what every process has: calls, operations, services, itself.

    ``component`` says what is served: ``controller``, ``node`` or ``all``.
    """

    def __init__(self, component: str) -> None:
        # Creation times double the number of series and answer no question of ours.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's
        self.registry = registry = CollectorRegistry()
        Info("rds_csi_build", "What runs here.", registry=registry).info(
            {
                "version": __version__,
                "component": component,
                "python": platform.python_version(),
            }
        )
        ProcessCollector(registry=registry)  # four small reads of /proc/self
        self._rpcs = Counter(
            "rds_csi_rpcs", "Calls answered, by gRPC code.", ["rpc", "code"], registry=registry
        )
        self._rpc_duration = Histogram(
            "rds_csi_rpc_duration_seconds",
            "How long calls took.",
            ["rpc"],
            buckets=_RPC_BUCKETS,
            registry=registry,
        )
        self._rpcs_in_flight = Gauge(
            "rds_csi_rpcs_in_flight", "Calls not answered yet.", ["rpc"], registry=registry
        )
        # A counter of theirs is written where it counts; this one is counted before there are any.
        self.registry.register(
            Read(
                lambda: [
                    CounterMetricFamily(
                        "rds_csi_log_lines_dropped",
                        "Log lines that were lost: no room, no reader, a full disk.",
                        value=logs.dropped(),
                    )
                ]
            )
        )
        self._crashes = Counter(
            "rds_csi_service_crashes",
            "Crashes of background services; each was started again.",
            ["service"],
            registry=registry,
        )

    def rpc_started(self, rpc: str) -> None:
        """A call has come in."""
        self._rpcs_in_flight.labels(rpc).inc()
        # Prometheus sees no increase in a series that begins with 1; alerts lean on these two.
        for code in (Code.OK, Code.INTERNAL):
            self._rpcs.labels(rpc, code.name)

    def rpc_finished(self, rpc: str, code: Code, seconds: float) -> None:
        """The call has been answered, or its caller has left."""
        self._rpcs_in_flight.labels(rpc).dec()
        self._rpcs.labels(rpc, code.name).inc()
        self._rpc_duration.labels(rpc).observe(seconds)

    def watch_services(self, names: Iterable[str]) -> None:
        """These services are going to run."""
        for name in names:
            self._crashes.labels(name)

    def service_crashed(self, name: str) -> None:
        """A background service crashed and will be started again."""
        self._crashes.labels(name).inc()

    def watch_operations(self, ages: Callable[[], Iterable[tuple[str, float]]]) -> None:
        """Show the operations under way. ``ages`` gives the RPC and the seconds of each."""

        def collect() -> Iterator[Metric]:
            found: dict[str, list[float]] = {}
            for rpc, seconds in ages():
                found.setdefault(rpc, []).append(seconds)
            yield by_label(
                "rds_csi_operations_running",
                "Operations under way, also those whose caller has left.",
                "rpc",
                {rpc: len(seconds) for rpc, seconds in found.items()},
            )
            yield by_label(
                "rds_csi_operation_oldest_seconds",
                "How long the oldest operation has been under way.",
                "rpc",
                {rpc: max(seconds) for rpc, seconds in found.items()},
            )

        self.registry.register(Read(collect))

    def render(self) -> bytes:
        """Everything, in Prometheus's text format 0.0.4."""
        return generate_latest(self.registry)


class Read(Collector):
    """Metrics that are read from where they live."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """What prometheus-client calls at a scrape."""
        return self._collect()


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def by_label(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A gauge with a value for each value of its one label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
