"""The Node service: requests checked and handed to the rest of the room, answers built.

It holds no state of its own; what it needs to know, the kernel and the staging records tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rds_csi.csi import v1 as csi
from rds_csi.errors import (
    FailedPrecondition,
    InvalidRequest,
    PathNotFound,
)
from rds_csi.filesystem.format import Formatter
from rds_csi.filesystem.grow import Grower
from rds_csi.filesystem.options import mount_options
from rds_csi.filesystem.paths import Paths
from rds_csi.filesystem.usage import Usage
from rds_csi.model.access import Capability
from rds_csi.model.contexts import Published, Target, has_source, names_address, newest_features
from rds_csi.model.health import Severity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.model.volume import check_volume_id
from rds_csi.node.attempts import Attempts
from rds_csi.node.connected import Volumes, check_target
from rds_csi.node.contents import Contents
from rds_csi.node.handover import Handovers
from rds_csi.node.health import HealthCheck
from rds_csi.node.layer import Layer
from rds_csi.node.look import Looks
from rds_csi.node.ports import NodePorts
from rds_csi.node.publish import Publisher
from rds_csi.node.sizes import Inspector
from rds_csi.node.stage import Stager
from rds_csi.node.uses import Uses
from rds_csi.node.wanted import Publish, Stage
from rds_csi.rpc import convert

_Rpc = csi.NodeServiceCapabilityRpcType

_CAPABILITIES = (
    _Rpc.STAGE_UNSTAGE_VOLUME,
    _Rpc.GET_VOLUME_STATS,
    _Rpc.EXPAND_VOLUME,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
    _Rpc.GET_VOLUME_HEALTH,
    _Rpc.GET_STORAGE_HEALTH,
    _Rpc(convert.CONDITION_CAPABILITY_OF_NODE),
)

_Unit = csi.VolumeUsageUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """``node_id`` is reported to Kubernetes as it is; ``host_nqn`` is whom our connections name.

    ``max_volumes`` 0 leaves the scheduler unlimited. Paths in requests must be under
    ``kubelet_dir``. ``topology`` is the segment that the node is in.
    """

    node_id: str
    host_nqn: str
    kubelet_dir: Path = Path("/var/lib/kubelet")
    max_volumes: int = 0
    topology: Mapping[str, str] = field(default_factory=dict)


class Node(csi.NodeBase):
    """CSI Node over the kernel of this machine."""

    def __init__(self, settings: NodeSettings, ports: NodePorts) -> None:
        mounts, devices, store = ports.mounts, ports.devices, ports.store
        volumes = Volumes(ports.initiator, ports.subsystems, ports.maps, settings.host_nqn)
        grower = Grower(ports.runner, devices)
        uses = Uses(
            initiator=ports.initiator,
            volumes=volumes,
            maps=ports.maps,
            mounts=mounts,
            devices=devices,
        )
        layer = Layer(maps=ports.maps, volumes=volumes, uses=uses, devices=devices)
        handovers = Handovers(volumes=volumes, uses=uses, store=store)
        self._settings = settings
        self._paths = Paths(settings.kubelet_dir)
        self._looks = Looks(volumes, mounts)
        self._stager = Stager(
            initiator=ports.initiator,
            volumes=volumes,
            mounts=mounts,
            devices=devices,
            contents=Contents(
                devices=devices, formatter=Formatter(devices), grower=grower, store=store
            ),
            handovers=handovers,
            uses=uses,
            layer=layer,
            store=store,
        )
        self._publisher = Publisher(
            initiator=ports.initiator,
            volumes=volumes,
            mounts=mounts,
            devices=devices,
            handovers=handovers,
            layer=layer,
            store=store,
        )
        self._inspector = Inspector(
            runner=ports.runner,
            initiator=ports.initiator,
            volumes=volumes,
            mounts=mounts,
            devices=devices,
            grower=grower,
            layer=layer,
            store=store,
            mend=ports.mend,
        )
        self._attempts = Attempts()
        self._health = HealthCheck(
            looks=self._looks,
            devices=devices,
            inspector=self._inspector,
            store=store,
            doubt=ports.doubt,
            waits=ports.waits,
            attempts=self._attempts,
        )

    # A volume's way in and out

    async def node_stage_volume(
        self, message: csi.NodeStageVolumeRequest
    ) -> csi.NodeStageVolumeResponse:
        """Connect the volume and mount its file system at the staging path."""
        volume = check_volume_id(message.volume_id)
        path = self._paths.check(message.staging_target_path, "staging_target_path")
        capability = _capability(message.volume_capability)
        target = _target(message.publish_context, message.volume_context, volume)
        told = Published.from_context(message.publish_context)
        with self._attempts.staging(volume):
            await self._stager.stage(
                Stage(
                    volume=volume,
                    target=target,
                    config=ConnectionConfig.from_parameters(message.volume_context),
                    path=path,
                    capability=capability,
                    read_only=_read_only(capability, told),
                    size=told.size,
                    generation=told.generation,
                    formatted=told.formatted,
                    content_expected=has_source(message.volume_context),
                    path_layer=told.path_layer,
                    pinned=names_address(message.volume_context),
                    newest_features=newest_features(message.volume_context),
                )
            )
        return csi.NodeStageVolumeResponse()

    async def node_unstage_volume(
        self, message: csi.NodeUnstageVolumeRequest
    ) -> csi.NodeUnstageVolumeResponse:
        """Unmount and disconnect the volume; success means that both are proven."""
        volume = check_volume_id(message.volume_id)
        path = self._paths.check(message.staging_target_path, "staging_target_path")
        await self._stager.unstage(volume, path)
        self._attempts.forget(volume)
        return csi.NodeUnstageVolumeResponse()

    async def node_publish_volume(
        self, message: csi.NodePublishVolumeRequest
    ) -> csi.NodePublishVolumeResponse:
        """Show the staged volume at the target path."""
        volume = check_volume_id(message.volume_id)
        path = self._paths.check(message.target_path, "target_path")
        capability = _capability(message.volume_capability)
        if not message.staging_target_path:
            # The one missing field with a code of its own (CSI spec, NodePublishVolume errors).
            raise FailedPrecondition("staging_target_path is missing", volume=volume)
        staging_path = self._paths.check(message.staging_target_path, "staging_target_path")
        if path == staging_path:
            raise InvalidRequest("target_path and staging_target_path are the same", volume=volume)
        told = Published.from_context(message.publish_context)
        await self._publisher.publish(
            Publish(
                volume=volume,
                target=_target(message.publish_context, message.volume_context, volume),
                staging_path=staging_path,
                path=path,
                capability=capability,
                read_only=message.readonly or _read_only(capability, told),
                generation=told.generation,
            )
        )
        return csi.NodePublishVolumeResponse()

    async def node_unpublish_volume(
        self, message: csi.NodeUnpublishVolumeRequest
    ) -> csi.NodeUnpublishVolumeResponse:
        """Unmount the target path and remove it."""
        volume = check_volume_id(message.volume_id)
        path = self._paths.check(message.target_path, "target_path")
        await self._publisher.unpublish(volume, path)
        return csi.NodeUnpublishVolumeResponse()

    # A volume in use

    async def node_expand_volume(
        self, message: csi.NodeExpandVolumeRequest
    ) -> csi.NodeExpandVolumeResponse:
        """Grow device and file system to the volume's size; nothing to do is success."""
        volume = check_volume_id(message.volume_id)
        path = self._existing(message.volume_path, volume)
        capability = message.volume_capability
        block = capability is not None and _capability(capability).access_type == "block"
        size = await self._inspector.expand(
            volume, path, convert.capacity_range(message.capacity_range), block=block
        )
        return csi.NodeExpandVolumeResponse(capacity_bytes=size)

    async def node_get_volume_stats(
        self, message: csi.NodeGetVolumeStatsRequest
    ) -> csi.NodeGetVolumeStatsResponse:
        """Bytes and inodes of a file system, the bytes of a raw block volume.

        A volume that is ill has no usage where measuring it would fail or hang; then the
        condition says why.
        """
        volume = check_volume_id(message.volume_id)
        path = self._existing(message.volume_path, volume)
        look = await self._looks.at(volume)
        problems = await self._health.seen(look, volume, path)
        usage: list[csi.VolumeUsage] = []
        if all(each.severity is not Severity.INACCESSIBLE for each in problems):
            usage = _usage(await self._inspector.stats(look, volume, path))
        response = csi.NodeGetVolumeStatsResponse(usage=usage)
        convert.add_condition(response, problems)
        return response

    async def node_get_volume_health(
        self, message: csi.NodeGetVolumeHealthRequest
    ) -> csi.NodeGetVolumeHealthResponse:
        """What is wrong with the volume on this node."""
        volume = check_volume_id(message.volume_id)
        given = (message.volume_publish_path, message.staging_target_path)
        paths = [self._existing(path, volume) for path in given if path]
        problems = await self._health.volume(volume, *paths)
        return csi.NodeGetVolumeHealthResponse(
            volume_health=convert.volume_health(volume, problems)
        )

    async def node_get_storage_health(
        self, message: csi.NodeGetStorageHealthRequest
    ) -> csi.NodeGetStorageHealthResponse:
        """What is wrong between this node and the RDS."""
        del message
        return csi.NodeGetStorageHealthResponse(
            backend_health=[
                csi.NodeGetStorageHealthResponseStorageBackendHealth(
                    status=csi.StorageHealthErrorType(each.severity),
                    reason=each.reason,
                    message=each.message,
                )
                for each in await self._health.storage()
            ]
        )

    # The node itself

    async def node_get_info(self, message: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        """Who this node is and how many volumes it takes."""
        del message
        return csi.NodeGetInfoResponse(
            node_id=self._settings.node_id,
            max_volumes_per_node=self._settings.max_volumes,
            accessible_topology=csi.Topology(segments=dict(self._settings.topology)),
        )

    async def node_get_capabilities(
        self, message: csi.NodeGetCapabilitiesRequest
    ) -> csi.NodeGetCapabilitiesResponse:
        """What this service offers."""
        del message
        return csi.NodeGetCapabilitiesResponse(
            capabilities=[
                csi.NodeServiceCapability(rpc=csi.NodeServiceCapabilityRpc(type=each))
                for each in _CAPABILITIES
            ]
        )

    def _existing(self, path: str, volume: str) -> str:
        """The path of a volume in use; one that cannot be is of none."""
        if not path:
            raise InvalidRequest("volume_path is missing", volume=volume)
        try:
            return self._paths.check(path, "volume_path")
        except InvalidRequest as error:
            raise PathNotFound(str(error), volume=volume) from error


def _usage(found: Usage | int) -> list[csi.VolumeUsage]:
    if isinstance(found, int):
        return [csi.VolumeUsage(unit=_Unit.BYTES, total=found)]
    return [
        csi.VolumeUsage(
            unit=_Unit.BYTES, total=found.total, used=found.used, available=found.available
        ),
        csi.VolumeUsage(
            unit=_Unit.INODES,
            total=found.inodes,
            used=found.inodes_used,
            available=found.inodes_free,
        ),
    ]


def _capability(message: csi.VolumeCapability | None) -> Capability:
    capability = convert.supported(message)
    if capability.access_type == "mount":
        mount_options(capability.file_system, capability.mount_flags, read_only=False, shared=False)
    return capability


def _target(publish: Mapping[str, str], volume_context: Mapping[str, str], volume: str) -> Target:
    return check_target(Target.from_contexts(publish, volume_context), volume)


def _read_only(capability: Capability, told: Published) -> bool:
    """Whether nobody on this node may write: by mode, mount option, or ControllerPublish."""
    return capability.mode.read_only or "ro" in capability.mount_flags or told.read_only
