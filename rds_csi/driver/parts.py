"""What a role of the driver is, whichever it is, and its metrics.

A role's part is built in a module of its own, imported only where the role is played: a node plugin
carries no SSH client (18 MiB), a controller mounts nothing, and without metrics there is no
prometheus-client.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rds_csi.config import ControllerConfig, DriverConfig, NodeConfig, listen_address

if TYPE_CHECKING:
    from rds_csi.telemetry.metrics import Metrics

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


def build_metrics(
    config: DriverConfig, controller: ControllerConfig | None, node: NodeConfig | None
) -> tuple["Metrics | None", dict[str, Service]]:
    """The metrics, and the service that shows them; nothing where they are off."""
    if not config.metrics_address:
        return None, {}
    from rds_csi.driver.watch import scrapes  # noqa: PLC0415 - see above
    from rds_csi.telemetry.metrics import Metrics  # noqa: PLC0415 - see above

    served = {"controller": controller is not None, "node": node is not None}
    metrics = Metrics("all" if all(served.values()) else "controller" if controller else "node")
    return metrics, scrapes(metrics, listen_address("--metrics-address", config.metrics_address))
