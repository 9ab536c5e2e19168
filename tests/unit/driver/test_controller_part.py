"""What a controller is built of follows its settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.config import NodeConfig
from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.driver.controller_part import controller_part
from rds_csi.driver.lifecycle import Driver
from rds_csi.driver.parts import build_metrics
from rds_csi.routeros import Boot, Boots, Session, SessionSettings
from rds_csi.routeros.boots import Down
from rds_csi.rpc.identity import Identity
from tests.unit.telemetry.wired import controller_config, driver_config


def session_of(close: object) -> Session:
    """The link that a part ends with."""
    session = close.__self__  # type: ignore[attr-defined]
    assert isinstance(session, Session)
    return session


async def test_one_link_to_the_rds_serves_it_and_ends_with_it(tmp_path: Path) -> None:
    settings = replace(controller_config(tmp_path), rds_channels=7)
    part = controller_part(driver_config(tmp_path), settings, None)
    session = session_of(part.close)
    assert session._settings == SessionSettings.of(settings)
    assert session._settings.channels == 7
    assert isinstance(part.service, Controller)
    assert part.service._disks._session is session
    assert part.prepare is None, "an RDS that is away does not hold up the start"
    assert part.close is not None
    await part.close()


async def test_the_service_has_the_settings_of_the_driver(tmp_path: Path) -> None:
    config = replace(driver_config(tmp_path), nqn_prefix="nqn.2014-08.org.example")
    settings = replace(controller_config(tmp_path), reserve=5, list_page=17, path_layer=True)
    part = controller_part(config, settings, None)
    told = part.service._settings
    assert (told.owner, told.cluster_id) == (config.owner, "test")
    assert (told.nqn_prefix, told.reserve, told.list_page) == ("nqn.2014-08.org.example", 5, 17)
    assert told.defaults == settings.defaults
    assert told.path_layer
    assert not told.grow_published
    always = controller_part(config, replace(settings, growth="always"), None)
    assert always.service._settings.grow_published


@pytest.mark.parametrize(("growth", "said"), [("always", "ONLINE"), ("unpublished", "OFFLINE")])
async def test_the_driver_says_which_volumes_grow(tmp_path: Path, growth: str, said: str) -> None:
    settings = replace(controller_config(tmp_path), growth=growth)
    identity = Driver(driver_config(tmp_path), settings, None)._parts[0].service
    assert isinstance(identity, Identity)
    reply = await identity.get_plugin_capabilities(csi.GetPluginCapabilitiesRequest())
    kinds = [each.volume_expansion.type for each in reply.capabilities if each.volume_expansion]
    assert kinds == [csi.PluginCapabilityVolumeExpansionType[said]]


@pytest.mark.parametrize(("rename", "said"), [(True, "ONLINE"), (False, "OFFLINE")])
async def test_with_maps_volumes_grow_in_use_where_healers_know_them_by_name(
    tmp_path: Path, rename: bool, said: str
) -> None:
    settings = replace(controller_config(tmp_path), path_layer=True, rename_exports=rename)
    identity = Driver(driver_config(tmp_path), settings, None)._parts[0].service
    assert isinstance(identity, Identity)
    reply = await identity.get_plugin_capabilities(csi.GetPluginCapabilitiesRequest())
    kinds = [each.volume_expansion.type for each in reply.capabilities if each.volume_expansion]
    assert kinds == [csi.PluginCapabilityVolumeExpansionType[said]]


async def test_the_pool_is_asked_for_only_where_metrics_are_on(tmp_path: Path) -> None:
    config, settings = driver_config(tmp_path), controller_config(tmp_path)
    assert list(controller_part(config, settings, None).background) == ["boots"]
    metrics, _ = build_metrics(config, settings, NodeConfig(node_id="n1"))
    part = controller_part(config, settings, metrics)
    assert list(part.background) == ["boots", "pool"]
    session = session_of(part.close)
    assert session._observe is not None
    assert metrics is not None
    session._observe("ok", 0.5)
    value = metrics.registry.get_sample_value
    boots = part.background["boots"].__self__  # type: ignore[attr-defined]
    assert isinstance(boots, Boots)
    assert boots._link is session
    for at, before in ((7.0, Down.UNKNOWN), (9.0, Down.ABRUPT)):
        boots._on_boot(Boot(at, before))
    shown = {
        each: value("rds_csi_rds_boot_timestamp_seconds", {"before": each.value}) for each in Down
    }
    assert shown == {Down.ORDERLY: None, Down.UNKNOWN: None, Down.ABRUPT: 9.0}
    assert value("rds_csi_ssh_commands_total", {"outcome": "ok"}) == 1
