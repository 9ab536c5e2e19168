"""Calls of the Controller service, as a sidecar makes them."""

from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.model.node_id import make_node_id
from rds_csi.model.volume import MIB

from .conftest import CLUSTER

NODE_A = make_node_id(CLUSTER, "worker-a")
NODE_B = make_node_id(CLUSTER, "worker-b")
Mode = csi.VolumeCapabilityAccessModeMode


def mount(fs_type: str = "ext4", mode: Mode = Mode.SINGLE_NODE_WRITER) -> csi.VolumeCapability:
    return csi.VolumeCapability(
        mount=csi.VolumeCapabilityMountVolume(fs_type=fs_type),
        access_mode=csi.VolumeCapabilityAccessMode(mode=mode),
    )


def block(mode: Mode = Mode.SINGLE_NODE_WRITER) -> csi.VolumeCapability:
    return csi.VolumeCapability(
        block=csi.VolumeCapabilityBlockVolume(),
        access_mode=csi.VolumeCapabilityAccessMode(mode=mode),
    )


async def create(controller: Controller, name: str = "pvc-one", **fields) -> csi.Volume:
    fields.setdefault("capacity_range", csi.CapacityRange(required_bytes=64 * MIB))
    fields.setdefault("volume_capabilities", [mount()])
    response = await controller.create_volume(csi.CreateVolumeRequest(name=name, **fields))
    assert response.volume is not None
    return response.volume


async def publish(
    controller: Controller, volume: csi.Volume, node: str = NODE_A, **fields
) -> dict[str, str]:
    fields.setdefault("volume_capability", mount())
    response = await controller.controller_publish_volume(
        csi.ControllerPublishVolumeRequest(
            volume_id=volume.volume_id,
            node_id=node,
            volume_context=volume.volume_context,
            **fields,
        )
    )
    return response.publish_context


async def unpublish(controller: Controller, volume: csi.Volume, node: str = NODE_A) -> None:
    await controller.controller_unpublish_volume(
        csi.ControllerUnpublishVolumeRequest(volume_id=volume.volume_id, node_id=node)
    )


async def delete(controller: Controller, slot: str) -> None:
    await controller.delete_volume(csi.DeleteVolumeRequest(volume_id=slot))


async def expand(controller: Controller, slot: str, size: int, limit: int = 0) -> int:
    response = await controller.controller_expand_volume(
        csi.ControllerExpandVolumeRequest(
            volume_id=slot,
            capacity_range=csi.CapacityRange(required_bytes=size, limit_bytes=limit),
        )
    )
    assert response.node_expansion_required
    return response.capacity_bytes


async def published(controller: Controller, volume: csi.Volume) -> list[str]:
    response = await controller.controller_get_volume(
        csi.ControllerGetVolumeRequest(volume_id=volume.volume_id)
    )
    assert response.status is not None
    return response.status.published_node_ids


async def listed(controller: Controller) -> list[csi.Volume]:
    response = await controller.list_volumes(csi.ListVolumesRequest())
    return [entry.volume for entry in response.entries if entry.volume]
