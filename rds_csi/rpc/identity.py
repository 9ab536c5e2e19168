"""The Identity service: who we are and what we offer."""

from collections.abc import Callable, Mapping

from rds_csi.csi import v1 as csi

_Service = csi.PluginCapabilityServiceType
_Expansion = csi.PluginCapabilityVolumeExpansionType


class Identity(csi.IdentityBase):
    """CSI Identity, the same beside the controller and beside the node.

    ``ready`` tells whether the driver has finished starting. Whether the RDS can be reached is
    no part of it: a driver that is restarted whenever its RDS is away helps nobody.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        controller: bool,
        grows_in_use: bool = True,
        ready: Callable[[], bool] = lambda: True,
        manifest: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._version = version
        self._controller = controller
        self._grows_in_use = grows_in_use
        self._ready = ready
        self._manifest = dict(manifest or {})

    async def get_plugin_info(self, message: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        """Name and version; the sidecars exit if this fails."""
        del message
        return csi.GetPluginInfoResponse(
            name=self._name, vendor_version=self._version, manifest=self._manifest
        )

    async def get_plugin_capabilities(
        self, message: csi.GetPluginCapabilitiesRequest
    ) -> csi.GetPluginCapabilitiesResponse:
        """The controller where it is offered, nodes' topology, and growth: in use, or before it.

        CSI asks for VOLUME_ACCESSIBILITY_CONSTRAINTS of whoever tells a node's topology. There
        are none of volumes: CreateVolume names no topology, so any node will do.
        """
        del message
        topology = csi.PluginCapabilityService(type=_Service.VOLUME_ACCESSIBILITY_CONSTRAINTS)
        capabilities = [
            csi.PluginCapability(service=topology),
            csi.PluginCapability(
                volume_expansion=csi.PluginCapabilityVolumeExpansion(
                    type=_Expansion.ONLINE if self._grows_in_use else _Expansion.OFFLINE
                )
            ),
        ]
        if self._controller:
            service = csi.PluginCapabilityService(type=_Service.CONTROLLER_SERVICE)
            capabilities.insert(0, csi.PluginCapability(service=service))
        return csi.GetPluginCapabilitiesResponse(capabilities=capabilities)

    async def probe(self, message: csi.ProbeRequest) -> csi.ProbeResponse:
        """Ready or still starting, at once. An error here would mean "restart me"."""
        del message
        return csi.ProbeResponse(ready=self._ready())
