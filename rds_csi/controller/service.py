"""The Controller service: volumes on the RDS, and who has them.

It keeps nothing: each answer comes from the RDS, and each change is made there.

Proven in ``tests/rds/test_controller.py``, ``tests/rds/test_controller_publish.py``.
Proven in ``tests/rds/test_controller_adoption.py``, ``tests/rds/test_controller_questions.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from rds_csi.controller.admission import admit, dedicate
from rds_csi.controller.existing import require_same
from rds_csi.controller.pages import Listing
from rds_csi.controller.records import Records
from rds_csi.csi import v1 as csi
from rds_csi.errors import (
    InvalidParameter,
    InvalidRequest,
    MadeForOther,
    NotOurs,
    NotReady,
    SizeOutOfRange,
    Unavailable,
    VolumeNotFound,
)
from rds_csi.model.access import Capability, minimum_size
from rds_csi.model.contexts import ADDRESS_KEY, Published, Target, io_waits, volume_context
from rds_csi.model.data_addresses import read_addresses
from rds_csi.model.node_id import check_node
from rds_csi.model.parameters import VolumeParameters, claim_of
from rds_csi.model.record import Record, owner_tag
from rds_csi.model.volume import (
    check_name,
    check_volume_id,
    export_nqn,
    is_volume_id,
    largest_size,
    volume_id,
)
from rds_csi.routeros import Disk, Disks, problems, size_unknown
from rds_csi.rpc import convert
from rds_csi.runtime.clock import Clock, SystemClock

log = structlog.get_logger(__name__)

_Rpc = csi.ControllerServiceCapabilityRpcType
_CAPABILITIES: Final = (
    _Rpc.CREATE_DELETE_VOLUME,
    _Rpc.PUBLISH_UNPUBLISH_VOLUME,
    _Rpc.LIST_VOLUMES,
    _Rpc.GET_CAPACITY,
    _Rpc.PUBLISH_READONLY,
    _Rpc.EXPAND_VOLUME,
    _Rpc.LIST_VOLUMES_PUBLISHED_NODES,
    _Rpc.GET_VOLUME,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
    _Rpc.GET_VOLUME_HEALTH,
    _Rpc.LIST_VOLUME_HEALTH,
    _Rpc(convert.CONDITION_CAPABILITY_OF_CONTROLLER),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """``owner`` marks our records; ``reserve`` is in bytes, ``list_page`` in volumes.

    ``rename_exports``: each hand-over gives the export a name of its own. ``path_layer``: nodes are
    to map the devices of volumes whose I/O is to wait.
    """

    owner: str
    cluster_id: str
    nqn_prefix: str
    rename_exports: bool = True
    defaults: VolumeParameters
    reserve: int = 0
    list_page: int = 500
    path_layer: bool = False
    grow_published: bool = False  # volumes grow while nodes have them, too


class Controller(csi.ControllerBase):
    """CSI Controller over a ``Disks`` backend."""

    def __init__(
        self, disks: Disks, settings: ControllerSettings, clock: Clock | None = None
    ) -> None:
        self._disks = disks
        self._settings = settings
        self._clock = clock or SystemClock()
        self._records = Records(
            disks,
            settings.owner,
            settings.cluster_id,
            self._clock,
            nqn_prefix=settings.nqn_prefix if settings.rename_exports else "",
        )
        self._listing = Listing(disks, self._clock, settings.list_page)

    # Volumes

    async def create_volume(self, message: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        """Create the volume of that name, or find it: the name alone decides which it is."""
        name = check_name(message.name)
        wanted = tuple(convert.supported(each) for each in message.volume_capabilities)
        if not wanted:
            raise InvalidRequest("volume_capabilities is empty")
        parameters = self._parameters(message.parameters)
        if message.mutable_parameters:
            raise InvalidParameter(
                "no parameter can be changed later: mutable_parameters must be empty"
            )
        if message.volume_content_source is not None:
            raise InvalidRequest("volume_content_source: snapshots and clones are not offered")
        capacity = convert.capacity_range(message.capacity_range)
        slot = volume_id(name)
        record = Record(
            owner=self._settings.owner,
            name=name,
            created=int(self._clock.now()),
            access=_access(wanted),
            fencing=parameters.fencing,
        ).made_for(*claim_of(message.parameters))
        disk, existed = await self._disks.create(
            slot=slot,
            size=capacity.size(minimum_size(wanted)),
            file_path=f"{parameters.volume_path}/{slot}-{owner_tag(self._settings.owner)}.img",
            nqn=self._nqn(slot),
            port=parameters.nvme_port,
            record=record,
        )
        if existed:
            require_same(disk, record, parameters, capacity)
        self._records.remember(disk)
        return csi.CreateVolumeResponse(
            volume=csi.Volume(
                capacity_bytes=disk.size,
                volume_id=slot,
                volume_context=volume_context(
                    replace(parameters, nvme_port=disk.port),
                    self._nqn(slot),
                    keep_address=ADDRESS_KEY in message.parameters,
                ),
            )
        )

    async def delete_volume(self, message: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        """Delete the disk and its file; what is not there is deleted already."""
        slot = _required(message.volume_id)
        if is_volume_id(slot):
            self._records.forget(slot)
            await self._disks.delete(slot)
        return csi.DeleteVolumeResponse()

    async def controller_expand_volume(
        self, message: csi.ControllerExpandVolumeRequest
    ) -> csi.ControllerExpandVolumeResponse:
        """Grow the volume; one that is large enough stays as it is.

        What nodes have is exported anew for it where all of them have maps; else it grows only
        with ``grow_published``, and the resizer is to wait for them.
        The node always has to follow: a file system that was not grown after an earlier call
        would otherwise stay small for ever.
        """
        slot = check_volume_id(message.volume_id)
        if message.capacity_range is None:
            raise InvalidRequest("capacity_range is missing", volume=slot)
        capacity = convert.capacity_range(message.capacity_range)
        if not capacity.required:
            raise InvalidRequest("capacity_range.required_bytes is missing", volume=slot)
        try:
            disk = await self._disks.expand(
                slot, capacity.size(), published=self._settings.grow_published
            )
        except (NotOurs, NotReady) as error:
            # After FAILED_PRECONDITION the resizer would wait until no pod uses the claim.
            raise Unavailable(error.what, volume=slot, advice=error.advice) from error
        self._records.remember(disk)
        if not capacity.allows(disk.size):
            raise SizeOutOfRange(
                f"it has {disk.size} bytes, above limit_bytes {capacity.limit}; volumes never "
                "shrink",
                volume=slot,
            )
        return csi.ControllerExpandVolumeResponse(
            capacity_bytes=disk.size, node_expansion_required=True
        )

    # Who has it

    async def controller_publish_volume(
        self, message: csi.ControllerPublishVolumeRequest
    ) -> csi.ControllerPublishVolumeResponse:
        """Record the node as a holder and open the export, if the other holders allow it."""
        _required(message.volume_id)
        if not message.node_id:
            raise InvalidRequest("node_id is missing")
        capability = convert.supported(message.volume_capability)
        slot = check_volume_id(message.volume_id)
        node = check_node(self._settings.cluster_id, message.node_id)
        named = message.volume_context.get(ADDRESS_KEY)
        addresses = (
            read_addresses(ADDRESS_KEY, named) if named else self._settings.defaults.nvme_addresses
        )

        mapped = self._settings.path_layer and io_waits(message.volume_context)
        readonly = message.readonly

        def admitted(record: Record) -> Record:
            return admit(record, node, capability, readonly=readonly, volume=slot, mapped=mapped)

        disk = await self._records.change(slot, admitted)
        if disk.size <= 0:
            raise size_unknown(slot)
        target = Target(addresses, disk.port, disk.nqn)
        told = replace(_told(disk, read_only=readonly), path_layer=mapped)
        return csi.ControllerPublishVolumeResponse(
            publish_context={**target.to_context(), **told.to_context()}
        )

    async def controller_unpublish_volume(
        self, message: csi.ControllerUnpublishVolumeRequest
    ) -> csi.ControllerUnpublishVolumeResponse:
        """Strike the node (all nodes, when none is named) and close the export after the last."""
        slot = _required(message.volume_id)
        if is_volume_id(slot):
            try:
                await self._records.change(
                    slot, lambda record: record.without_node(message.node_id)
                )
            except VolumeNotFound:
                # The RDS answered that it does not exist: nobody can have it.
                log.info("unpublish of a volume that does not exist", volume=slot)
        return csi.ControllerUnpublishVolumeResponse()

    # Questions

    async def validate_volume_capabilities(
        self, message: csi.ValidateVolumeCapabilitiesRequest
    ) -> csi.ValidateVolumeCapabilitiesResponse:
        """Confirm what we could serve; say of the rest why not."""
        _required(message.volume_id)
        wanted = convert.capabilities(message.volume_capabilities)
        disk = await self._disk(message.volume_id)
        refused = next((why for each in wanted if (why := each.unsupported())), "")
        if not refused:
            try:
                self._parameters(message.parameters)
                if disk.record is not None:
                    for each in wanted:
                        dedicate(disk.record, each, volume=disk.slot)
            except (InvalidParameter, MadeForOther) as error:
                refused = str(error)
        if refused:
            return csi.ValidateVolumeCapabilitiesResponse(message=refused)
        return csi.ValidateVolumeCapabilitiesResponse(
            confirmed=csi.ValidateVolumeCapabilitiesResponseConfirmed(
                volume_context=message.volume_context,
                volume_capabilities=message.volume_capabilities,
                parameters=message.parameters,
            )
        )

    async def controller_get_volume(
        self, message: csi.ControllerGetVolumeRequest
    ) -> csi.ControllerGetVolumeResponse:
        """One volume and the nodes that have it."""
        disk = await self._disk(message.volume_id)
        status = csi.ControllerGetVolumeResponseVolumeStatus(published_node_ids=_nodes(disk))
        convert.add_condition(status, problems(disk))
        return csi.ControllerGetVolumeResponse(volume=_volume(disk), status=status)

    async def list_volumes(self, message: csi.ListVolumesRequest) -> csi.ListVolumesResponse:
        """Our volumes in the order of their ids, a page at a time."""
        disks, token = await self._listing.page(message.starting_token, message.max_entries)
        entries = []
        for disk in disks:
            status = csi.ListVolumesResponseVolumeStatus(published_node_ids=_nodes(disk))
            convert.add_condition(status, problems(disk))
            entries.append(csi.ListVolumesResponseEntry(volume=_volume(disk), status=status))
        return csi.ListVolumesResponse(entries=entries, next_token=token)

    async def controller_get_volume_health(
        self, message: csi.ControllerGetVolumeHealthRequest
    ) -> csi.ControllerGetVolumeHealthResponse:
        """What is wrong with one volume."""
        disk = await self._disk(message.volume_id)
        return csi.ControllerGetVolumeHealthResponse(
            volume_health=convert.volume_health(disk.slot, problems(disk))
        )

    async def controller_list_volume_health(
        self, message: csi.ControllerListVolumeHealthRequest
    ) -> csi.ControllerListVolumeHealthResponse:
        """The volumes with which something is wrong, a page at a time."""
        disks, token = await self._listing.page(
            message.starting_token, message.max_entries, only=lambda disk: bool(problems(disk))
        )
        return csi.ControllerListVolumeHealthResponse(
            entries=[convert.volume_health(disk.slot, problems(disk)) for disk in disks],
            next_token=token,
        )

    async def _disk(self, slot: str) -> Disk:
        disk = await self._disks.get(check_volume_id(slot))
        self._records.remember(disk)
        return disk

    async def get_capacity(self, message: csi.GetCapacityRequest) -> csi.GetCapacityResponse:
        """The largest volume that can be made now of these parameters and capabilities."""
        parameters = self._parameters(message.parameters)
        wanted = [convert.capability(each) for each in message.volume_capabilities]
        if any(each.unsupported() for each in wanted):
            return csi.GetCapacityResponse(available_capacity=0, maximum_volume_size=0)
        minimum = minimum_size(wanted)
        pool = await self._disks.capacity(parameters.volume_path)
        # A size that can be made, and none of what is promised to others already.
        largest = largest_size(pool.room - self._settings.reserve, minimum)
        return csi.GetCapacityResponse(
            available_capacity=largest,
            maximum_volume_size=largest,
            minimum_volume_size=minimum,
        )

    async def controller_get_capabilities(
        self,
        message: csi.ControllerGetCapabilitiesRequest,  # noqa: ARG002 - the RPC's signature
    ) -> csi.ControllerGetCapabilitiesResponse:
        """What this service offers."""
        return csi.ControllerGetCapabilitiesResponse(
            capabilities=[
                csi.ControllerServiceCapability(rpc=csi.ControllerServiceCapabilityRpc(type=each))
                for each in _CAPABILITIES
            ]
        )

    # Small things

    def _parameters(self, parameters: Mapping[str, str]) -> VolumeParameters:
        return VolumeParameters.parse(parameters, self._settings.defaults)

    def _nqn(self, slot: str) -> str:
        """The name that a new export has, and that stands in every PersistentVolume for good."""
        return export_nqn(self._settings.nqn_prefix, slot, 0)


def _required(slot: str) -> str:
    if not slot:
        raise InvalidRequest("volume_id is missing")
    return slot


def _access(wanted: tuple[Capability, ...]) -> str:
    """What the record says the volume is for: ``block``, or the file system."""
    kinds = sorted({each.use for each in wanted})
    if len(kinds) > 1:
        raise InvalidRequest(f"one volume cannot be {' and '.join(kinds)}")
    return kinds[0]


def _told(disk: Disk, *, read_only: bool) -> Published:
    """What the node has to know before it formats, or believes what it kept from before."""
    if disk.record is None:
        return Published(size=disk.size, read_only=read_only)
    return Published(
        size=disk.size,
        generation=disk.record.generation,
        # What it shows in the answer to this publish is known, and written with the next change.
        formatted=disk.record.seen(disk.file_system).formatted,
        read_only=read_only,
    )


def _volume(disk: Disk) -> csi.Volume:
    return csi.Volume(capacity_bytes=disk.size, volume_id=disk.slot)


def _nodes(disk: Disk) -> list[str]:
    return [entry.node for entry in disk.record.nodes] if disk.record else []
