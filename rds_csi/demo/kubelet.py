"""The part of Kubernetes in the demo: calls the driver as the sidecars and the kubelet do."""

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from grpclib.client import Channel

from rds_csi.csi import v1 as csi

_TIMEOUT: Final = 120.0
"""Seconds a call may take: the kubelet's own limit."""
_PARAMETERS: Final = {"reconnectDelay": "2"}
"""The StorageClass: shorter than the default of 5 s, so that the demo's outage is over soon."""


@dataclass(slots=True, kw_only=True)
class Claim:
    """One volume on its way through its life: what is asked for and what came of it."""

    name: str
    access: str
    size: int
    kubelet_dir: Path
    parameters: dict[str, str] = field(default_factory=lambda: dict(_PARAMETERS))
    mount_flags: tuple[str, ...] = ()
    volume: csi.Volume = field(default_factory=csi.Volume)
    publish_context: dict[str, str] = field(default_factory=dict)

    @property
    def capability(self) -> csi.VolumeCapability:
        """``access`` as the wire says it: ``block``, or a file system."""
        mode = csi.VolumeCapabilityAccessMode(
            mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
        )
        if self.access == "block":
            return csi.VolumeCapability(block=csi.VolumeCapabilityBlockVolume(), access_mode=mode)
        return csi.VolumeCapability(
            mount=csi.VolumeCapabilityMountVolume(
                fs_type=self.access, mount_flags=list(self.mount_flags)
            ),
            access_mode=mode,
        )

    @property
    def staging(self) -> Path:
        """Where the kubelet would stage it."""
        if self.access == "block":
            return self._device_dir / "staging" / self.name
        return self.kubelet_dir / "plugins/kubernetes.io/csi/demo" / self.name / "globalmount"

    @property
    def target(self) -> Path:
        """Where the kubelet would publish it."""
        if self.access == "block":
            return self._device_dir / "publish" / self.name / "pod"
        return self.kubelet_dir / "pods/pod/volumes/kubernetes.io~csi" / self.name / "mount"

    @property
    def _device_dir(self) -> Path:
        return self.kubelet_dir / "plugins/kubernetes.io/csi/volumeDevices"


class Kubernetes:
    """A client of both sockets, doing for a claim what a cluster does."""

    def __init__(self, controller_socket: Path, node_socket: Path) -> None:
        self._controller_channel = Channel(path=str(controller_socket))
        self._node_channel = Channel(path=str(node_socket))
        self.identity = csi.IdentityStub(self._controller_channel)
        self.controller = csi.ControllerStub(self._controller_channel, timeout=_TIMEOUT)
        self.node = csi.NodeStub(self._node_channel, timeout=_TIMEOUT)

    async def __aenter__(self) -> Self:
        """Nothing connects before the first call."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close both channels."""
        self._controller_channel.close()
        self._node_channel.close()

    async def provision(self, claim: Claim) -> None:
        """Create the volume (external-provisioner)."""
        response = await self.controller.create_volume(
            csi.CreateVolumeRequest(
                name=claim.name,
                capacity_range=csi.CapacityRange(required_bytes=claim.size),
                volume_capabilities=[claim.capability],
                parameters=claim.parameters,
            )
        )
        if response.volume is None:
            raise RuntimeError("CreateVolume answered without a volume")
        claim.volume = response.volume

    async def attach(self, claim: Claim) -> None:
        """Publish it to the node (external-attacher)."""
        info = await self.node.node_get_info(csi.NodeGetInfoRequest())
        response = await self.controller.controller_publish_volume(
            csi.ControllerPublishVolumeRequest(
                volume_id=claim.volume.volume_id,
                node_id=info.node_id,
                volume_capability=claim.capability,
                volume_context=claim.volume.volume_context,
            )
        )
        claim.publish_context = response.publish_context

    async def mount(self, claim: Claim) -> None:
        """Stage and publish it (kubelet)."""
        claim.staging.mkdir(parents=True, exist_ok=True)
        claim.target.parent.mkdir(parents=True, exist_ok=True)
        await self.node.node_stage_volume(
            csi.NodeStageVolumeRequest(
                volume_id=claim.volume.volume_id,
                publish_context=claim.publish_context,
                staging_target_path=str(claim.staging),
                volume_capability=claim.capability,
                volume_context=claim.volume.volume_context,
            )
        )
        await self.node.node_publish_volume(
            csi.NodePublishVolumeRequest(
                volume_id=claim.volume.volume_id,
                publish_context=claim.publish_context,
                staging_target_path=str(claim.staging),
                target_path=str(claim.target),
                volume_capability=claim.capability,
                volume_context=claim.volume.volume_context,
            )
        )

    async def resize(self, claim: Claim, size: int) -> None:
        """Grow it on the RDS (external-resizer)."""
        wanted = csi.CapacityRange(required_bytes=size)
        response = await self.controller.controller_expand_volume(
            csi.ControllerExpandVolumeRequest(
                volume_id=claim.volume.volume_id,
                capacity_range=wanted,
                volume_capability=claim.capability,
            )
        )
        if response.capacity_bytes < size:
            raise RuntimeError(f"grown to {response.capacity_bytes} of {size} bytes only")

    async def grow(self, claim: Claim, size: int) -> None:
        """Grow it on the RDS and on the node (external-resizer, then kubelet)."""
        await self.resize(claim, size)
        wanted = csi.CapacityRange(required_bytes=size)
        await self.node.node_expand_volume(
            csi.NodeExpandVolumeRequest(
                volume_id=claim.volume.volume_id,
                volume_path=str(claim.target),
                capacity_range=wanted,
                staging_target_path=str(claim.staging),
                volume_capability=claim.capability,
            )
        )

    async def unmount(self, claim: Claim) -> None:
        """Unpublish and unstage it (kubelet)."""
        await self.node.node_unpublish_volume(
            csi.NodeUnpublishVolumeRequest(
                volume_id=claim.volume.volume_id, target_path=str(claim.target)
            )
        )
        await self.node.node_unstage_volume(
            csi.NodeUnstageVolumeRequest(
                volume_id=claim.volume.volume_id, staging_target_path=str(claim.staging)
            )
        )

    async def detach(self, claim: Claim) -> None:
        """Unpublish it from the node (external-attacher)."""
        await self.controller.controller_unpublish_volume(
            csi.ControllerUnpublishVolumeRequest(volume_id=claim.volume.volume_id)
        )

    async def release(self, claim: Claim) -> None:
        """Unpublish it from the node and delete it (attacher, then provisioner)."""
        await self.detach(claim)
        await self.controller.delete_volume(
            csi.DeleteVolumeRequest(volume_id=claim.volume.volume_id)
        )
