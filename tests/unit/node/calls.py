"""The kubelet's calls for one volume, with the defaults of an ordinary one."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rds_csi.csi import v1 as csi
from rds_csi.model.access import AccessMode
from rds_csi.model.volume import MIB
from rds_csi.node.service import Node
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import Disk

VOLUME = "pvc-0123456789abcdef0123456789ab"
SIZE = 512 * MIB
OTHER = "pvc-ffffffffffffffffffffffffffff"


def nqn(volume: str) -> str:
    return f"nqn.2000-02.com.mikrotik:{volume}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """One volume and how it is used; ``but`` makes a variation."""

    host: FakeHost
    volume: str = VOLUME
    fs_type: str = "ext4"
    block: bool = False
    mode: AccessMode = AccessMode.SINGLE_NODE_MULTI_WRITER
    flags: tuple[str, ...] = ()
    readonly: bool = False
    published: dict[str, str] | None = None
    generation: int | None = None
    formatted: str = ""
    path_layer: bool = False
    target_name: str = "target"
    stage_name: str = "stage"

    def but(self, **changes: Any) -> "Calls":
        return replace(self, **changes)

    @property
    def disk(self) -> Disk:
        return self.host.rds[nqn(self.volume)]

    def create(self, content: str = "blank", **more: Any) -> Disk:
        """Make the volume on the RDS, and the staging directory as the kubelet does."""
        disk = Disk(SIZE, content, **more)
        if content in ("ext4", "xfs"):
            disk.make(content, "99999999-2222-4333-8444-555555555555")
        self.host.rds[nqn(self.volume)] = disk
        self.stage_path.mkdir(exist_ok=True)
        return disk

    @property
    def stage_path(self) -> Path:
        return self.host.kubelet / self.stage_name

    @property
    def target_path(self) -> Path:
        return self.host.kubelet / self.target_name

    @property
    def capability(self) -> csi.VolumeCapability:
        mode = csi.VolumeCapabilityAccessMode(mode=csi.VolumeCapabilityAccessModeMode(self.mode))
        if self.block:
            return csi.VolumeCapability(block=csi.VolumeCapabilityBlockVolume(), access_mode=mode)
        return csi.VolumeCapability(
            mount=csi.VolumeCapabilityMountVolume(
                fs_type=self.fs_type, mount_flags=list(self.flags)
            ),
            access_mode=mode,
        )

    @property
    def publish_context(self) -> dict[str, str]:
        if self.published is not None:
            return self.published
        context = {
            "nvmeAddress": "10.0.0.1",
            "nvmePort": "4420",
            "nqn": nqn(self.volume),
            "size": str(SIZE),
        }
        if self.generation is not None:
            context["generation"] = str(self.generation)
        if self.formatted:
            context["formatted"] = self.formatted
        if self.path_layer:
            context["pathLayer"] = "true"
        return context

    def stage_request(self) -> csi.NodeStageVolumeRequest:
        return csi.NodeStageVolumeRequest(
            volume_id=self.volume,
            publish_context=self.publish_context,
            staging_target_path=str(self.stage_path),
            volume_capability=self.capability,
            volume_context={"ctrlLossTmo": "-1"},
        )

    def publish_request(self) -> csi.NodePublishVolumeRequest:
        return csi.NodePublishVolumeRequest(
            volume_id=self.volume,
            publish_context=self.publish_context,
            staging_target_path=str(self.stage_path),
            target_path=str(self.target_path),
            volume_capability=self.capability,
            readonly=self.readonly,
        )

    async def stage(self, node: Node | None = None) -> None:
        await (node or self.host.node()).node_stage_volume(self.stage_request())

    async def unstage(self, node: Node | None = None) -> None:
        await (node or self.host.node()).node_unstage_volume(
            csi.NodeUnstageVolumeRequest(
                volume_id=self.volume, staging_target_path=str(self.stage_path)
            )
        )

    async def publish(self, node: Node | None = None) -> None:
        await (node or self.host.node()).node_publish_volume(self.publish_request())

    async def unpublish(self, node: Node | None = None) -> None:
        await (node or self.host.node()).node_unpublish_volume(
            csi.NodeUnpublishVolumeRequest(volume_id=self.volume, target_path=str(self.target_path))
        )

    async def expand(
        self, required: int, node: Node | None = None, *, path: Path | None = None, limit: int = 0
    ) -> int:
        reply = await (node or self.host.node()).node_expand_volume(
            csi.NodeExpandVolumeRequest(
                volume_id=self.volume,
                volume_path=str(path or self.target_path),
                capacity_range=csi.CapacityRange(required_bytes=required, limit_bytes=limit),
                volume_capability=self.capability,
            )
        )
        return reply.capacity_bytes

    async def stats(self, path: Path | str | None = None) -> list[csi.VolumeUsage]:
        reply = await self.host.node().node_get_volume_stats(
            csi.NodeGetVolumeStatsRequest(
                volume_id=self.volume, volume_path=str(path or self.target_path)
            )
        )
        return reply.usage

    async def health(self, *paths: Path) -> list[csi.VolumeHealthVolumeHealthEntry]:
        """What is wrong, asked about the target unless other paths are given."""
        target, staging = (*paths, Path(), Path())[:2] if paths else (self.target_path, Path())
        reply = await self.host.node().node_get_volume_health(
            csi.NodeGetVolumeHealthRequest(
                volume_id=self.volume,
                volume_publish_path=str(target) if target.name else "",
                staging_target_path=str(staging) if staging.name else "",
            )
        )
        assert reply.volume_health is not None
        assert reply.volume_health.volume_id == self.volume
        return reply.volume_health.health_statuses


async def published(host: FakeHost, **how: object) -> Calls:
    calls = Calls(host=host).but(**how)
    calls.create("blank" if calls.block else calls.fs_type)
    await calls.stage()
    await calls.publish()
    return calls


def mutations(host: FakeHost) -> list[str]:
    """The programs that were run and change something."""
    return [
        call[0] for call in host.calls if call[0] in ("mount", "umount", "blockdev", "resize2fs")
        or call[:2] == ("probe", "run")
    ]  # fmt: skip


def record(host: FakeHost) -> dict[str, object]:
    found = json.loads((host.state / f"{VOLUME}.json").read_text())
    assert isinstance(found, dict)
    return found


def reboot(host: FakeHost) -> None:
    """Connections and mounts are gone, records are not."""
    for entry in host.table.entries[2:]:
        host.table.entries.remove(entry)
    host.table._write()
    for found in list(host.mapper.maps.values()):
        host.mapper.drop(found)
    for each in list(host.connections):
        host.unplug(each)
