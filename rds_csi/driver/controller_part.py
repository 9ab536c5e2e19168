"""What a controller is built of: the link to the RDS, the volumes on it, the service over them."""

from typing import TYPE_CHECKING

from rds_csi.config import ControllerConfig, DriverConfig
from rds_csi.controller.service import Controller, ControllerSettings
from rds_csi.driver.parts import Part, Service
from rds_csi.routeros import Boots, Disks, Session, SessionSettings

if TYPE_CHECKING:  # loaded only where metrics are on, for it brings prometheus-client
    from rds_csi.telemetry.metrics import Metrics


def controller_part(
    config: DriverConfig, settings: ControllerConfig, metrics: "Metrics | None"
) -> Part:
    """The Controller service with its SSH connection."""
    watch = None
    if metrics is not None:
        from rds_csi.driver.watch import RdsWatch  # noqa: PLC0415 - brings prometheus-client

        watch = RdsWatch(metrics)
    session = Session(
        SessionSettings.of(settings), observe=watch.observe if watch is not None else None
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
            rename_exports=settings.rename_exports,
            path_layer=settings.path_layer,
            grow_published=settings.growth == "always",
        ),
    )
    boots = Boots(session) if watch is None else Boots(session, on_boot=watch.on_boot)
    background: dict[str, Service] = {"boots": boots.run}
    if watch is not None:
        background |= watch.services(session, config.owner, settings)
    return Part(service=service, background=background, close=session.close)
