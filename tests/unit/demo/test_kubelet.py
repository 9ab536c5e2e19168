"""The demo's part of Kubernetes: calls and paths are those of the sidecars and the kubelet."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.unit.fakes.csi_services import serving

MIB = 2**20
CONTEXT = {"nvmeAddress": "10.0.0.5"}
PUBLISHED = {"nqn": "nqn.x:pvc-1"}


class Controller(csi.ControllerBase):
    """Notes what it is asked and answers it; grows to ``grown`` bytes."""

    def __init__(self, requests: list[Any]) -> None:
        self.requests = requests
        self.grown = 0

    async def create_volume(self, message: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        self.requests.append(message)
        volume = csi.Volume(volume_id="pvc-1", capacity_bytes=64 * MIB, volume_context=CONTEXT)
        return csi.CreateVolumeResponse(volume=volume)

    async def controller_publish_volume(
        self, message: csi.ControllerPublishVolumeRequest
    ) -> csi.ControllerPublishVolumeResponse:
        self.requests.append(message)
        return csi.ControllerPublishVolumeResponse(publish_context=PUBLISHED)

    async def controller_expand_volume(
        self, message: csi.ControllerExpandVolumeRequest
    ) -> csi.ControllerExpandVolumeResponse:
        self.requests.append(message)
        return csi.ControllerExpandVolumeResponse(capacity_bytes=self.grown)

    async def controller_unpublish_volume(
        self, message: csi.ControllerUnpublishVolumeRequest
    ) -> csi.ControllerUnpublishVolumeResponse:
        self.requests.append(message)
        return csi.ControllerUnpublishVolumeResponse()

    async def delete_volume(self, message: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        self.requests.append(message)
        return csi.DeleteVolumeResponse()


class Node(csi.NodeBase):
    """Notes what it is asked."""

    def __init__(self, requests: list[Any]) -> None:
        self.requests = requests

    async def node_get_info(self, message: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        return csi.NodeGetInfoResponse(node_id="node-1")

    async def node_stage_volume(
        self, message: csi.NodeStageVolumeRequest
    ) -> csi.NodeStageVolumeResponse:
        self.requests.append(message)
        return csi.NodeStageVolumeResponse()

    async def node_publish_volume(
        self, message: csi.NodePublishVolumeRequest
    ) -> csi.NodePublishVolumeResponse:
        self.requests.append(message)
        return csi.NodePublishVolumeResponse()

    async def node_expand_volume(
        self, message: csi.NodeExpandVolumeRequest
    ) -> csi.NodeExpandVolumeResponse:
        self.requests.append(message)
        return csi.NodeExpandVolumeResponse()

    async def node_unpublish_volume(
        self, message: csi.NodeUnpublishVolumeRequest
    ) -> csi.NodeUnpublishVolumeResponse:
        self.requests.append(message)
        return csi.NodeUnpublishVolumeResponse()

    async def node_unstage_volume(
        self, message: csi.NodeUnstageVolumeRequest
    ) -> csi.NodeUnstageVolumeResponse:
        self.requests.append(message)
        return csi.NodeUnstageVolumeResponse()


@pytest.fixture
def requests() -> list[Any]:
    return []


@pytest.fixture
def controller(requests: list[Any]) -> Controller:
    return Controller(requests)


@pytest.fixture
async def kubernetes(
    tmp_path: Path, controller: Controller, requests: list[Any]
) -> AsyncIterator[Kubernetes]:
    """Served with the driver's own checks of requests, so that none of them is malformed."""
    sockets = tmp_path / "c.sock", tmp_path / "n.sock"
    async with (
        serving(sockets[0], controller),
        serving(sockets[1], Node(requests)),
        Kubernetes(*sockets) as found,
    ):
        yield found


def a_claim(folder: Path, access: str) -> Claim:
    return Claim(name="demo", access=access, size=64 * MIB, kubelet_dir=folder / "kubelet")


@pytest.mark.parametrize("access", ["ext4", "block"])
async def test_a_life_in_the_order_of_a_cluster(
    kubernetes: Kubernetes,
    controller: Controller,
    requests: list[Any],
    tmp_path: Path,
    access: str,
) -> None:
    claim = a_claim(tmp_path, access)
    await kubernetes.provision(claim)
    await kubernetes.attach(claim)
    await kubernetes.mount(claim)
    controller.grown = 128 * MIB
    await kubernetes.grow(claim, 128 * MIB)
    await kubernetes.unmount(claim)
    await kubernetes.release(claim)
    assert [type(each).__name__.removesuffix("Request") for each in requests] == [
        *("CreateVolume", "ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume"),
        *("ControllerExpandVolume", "NodeExpandVolume", "NodeUnpublishVolume"),
        *("NodeUnstageVolume", "ControllerUnpublishVolume", "DeleteVolume"),
    ]
    created, attached, staged, published, *_ = requests
    assert created.capacity_range.required_bytes == 64 * MIB
    assert {each.volume_id for each in requests[1:]} == {"pvc-1"}
    assert (attached.node_id, attached.volume_context) == ("node-1", CONTEXT)
    for each in (staged, published):
        assert (each.publish_context, each.volume_context) == (PUBLISHED, CONTEXT)
        assert each.staging_target_path == str(claim.staging)
        block = each.volume_capability.block is not None
        assert block is (access == "block")
    assert published.target_path == str(claim.target)
    assert staged.volume_capability == created.volume_capabilities[0]


async def test_the_kubelet_makes_the_stage_and_leaves_the_target_to_the_driver(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    claim = a_claim(tmp_path, "xfs")
    await kubernetes.provision(claim)
    await kubernetes.mount(claim)
    assert claim.staging.is_dir()
    assert claim.target.parent.is_dir()
    assert not claim.target.exists()


async def test_less_than_was_asked_for_is_no_growth(
    kubernetes: Kubernetes, controller: Controller, requests: list[Any], tmp_path: Path
) -> None:
    claim = a_claim(tmp_path, "ext4")
    await kubernetes.provision(claim)
    controller.grown = 128 * MIB - 1
    with pytest.raises(RuntimeError, match=f"grown to {128 * MIB - 1} of {128 * MIB} bytes"):
        await kubernetes.grow(claim, 128 * MIB)
    assert not any(isinstance(each, csi.NodeExpandVolumeRequest) for each in requests)


def test_the_paths_are_those_of_the_kubelet(tmp_path: Path) -> None:
    mount, block = a_claim(tmp_path, "ext4"), a_claim(tmp_path, "block")
    root = tmp_path / "kubelet"
    assert mount.staging == root / "plugins/kubernetes.io/csi/demo/demo/globalmount"
    assert mount.target == root / "pods/pod/volumes/kubernetes.io~csi/demo/mount"
    devices = root / "plugins/kubernetes.io/csi/volumeDevices"
    assert block.staging == devices / "staging/demo"
    assert block.target == devices / "publish/demo/pod"
    assert mount.capability.mount is not None
    assert mount.capability.mount.fs_type == "ext4"
    assert block.capability.mount is None
