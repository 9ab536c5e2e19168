"""Who we say we are."""

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.rpc.identity import Identity


def identity(controller=True, grows_in_use=True, ready=lambda: True):
    return Identity(
        name="csi.example.com",
        version="1.2",
        controller=controller,
        grows_in_use=grows_in_use,
        ready=ready,
        manifest={"commit": "abc"},
    )


async def test_name_version_and_manifest():
    info = await identity().get_plugin_info(csi.GetPluginInfoRequest())
    assert info == csi.GetPluginInfoResponse(
        name="csi.example.com", vendor_version="1.2", manifest={"commit": "abc"}
    )


@pytest.mark.parametrize("controller", [True, False])
async def test_capabilities(controller):
    reply = await identity(controller=controller).get_plugin_capabilities(
        csi.GetPluginCapabilitiesRequest()
    )
    services = [each.service.type for each in reply.capabilities if each.service]
    growth = [each.volume_expansion.type for each in reply.capabilities if each.volume_expansion]
    offered = csi.PluginCapabilityServiceType
    assert services == [
        *([offered.CONTROLLER_SERVICE] if controller else []),
        # Both sides: the node tells its topology, the provisioner asks the controller's.
        offered.VOLUME_ACCESSIBILITY_CONSTRAINTS,
    ]
    assert growth == [csi.PluginCapabilityVolumeExpansionType.ONLINE]


@pytest.mark.parametrize(("grows_in_use", "said"), [(True, "ONLINE"), (False, "OFFLINE")])
async def test_growth_in_use_is_only_claimed_where_it_is_done(grows_in_use, said):
    reply = await identity(grows_in_use=grows_in_use).get_plugin_capabilities(
        csi.GetPluginCapabilitiesRequest()
    )
    growth = [each.volume_expansion.type for each in reply.capabilities if each.volume_expansion]
    assert growth == [csi.PluginCapabilityVolumeExpansionType[said]]


async def test_probe_tells_ready_and_starting_apart():
    ready = False
    service = identity(ready=lambda: ready)
    # Absent would mean ready, so False must be on the wire.
    assert bytes(await service.probe(csi.ProbeRequest())) == b"\x0a\x00"
    ready = True
    assert (await service.probe(csi.ProbeRequest())).ready is True
