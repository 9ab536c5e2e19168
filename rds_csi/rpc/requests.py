"""What the CSI specification demands of every request, checked before a service sees it.

Source: CSI spec, "Size Limits" and "REQUIRED" fields, and the comments of the fields. What a
field means to us (is it one of our volumes? a path below the kubelet's?) is the services' affair.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import betterproto2
from betterproto2 import FieldMetadata

from rds_csi.csi import v1 as csi
from rds_csi.errors import InvalidRequest
from rds_csi.model.node_id import MAXIMUM_NODE_ID
from rds_csi.model.volume import volume_id

LONGEST_STRING: Final = 128
"""Bytes; CSI spec, "Size Limits"."""
LARGEST_MAP: Final = 4096
"""Bytes of all keys and values; the same limit holds for all mount flags together."""
LONGEST_PATH: Final = 4095
"""Bytes; Linux PATH_MAX without the final NUL. The spec exempts paths from the 128 bytes."""
_BANNED: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""CSI spec, the characters that names must not have; we want them in no string."""

REQUIRED: Final[Mapping[type, tuple[str, ...]]] = {
    csi.CreateVolumeRequest: ("name", "volume_capabilities"),
    csi.DeleteVolumeRequest: ("volume_id",),
    csi.ControllerPublishVolumeRequest: ("volume_id", "node_id", "volume_capability"),
    csi.ControllerUnpublishVolumeRequest: ("volume_id",),
    csi.ValidateVolumeCapabilitiesRequest: ("volume_id", "volume_capabilities"),
    csi.ControllerExpandVolumeRequest: ("volume_id", "capacity_range"),
    csi.ControllerGetVolumeRequest: ("volume_id",),
    csi.ControllerModifyVolumeRequest: ("volume_id", "mutable_parameters"),
    csi.ControllerGetVolumeHealthRequest: ("volume_id",),
    csi.CreateSnapshotRequest: ("source_volume_id", "name"),
    csi.DeleteSnapshotRequest: ("snapshot_id",),
    csi.GetSnapshotRequest: ("snapshot_id",),
    csi.NodeStageVolumeRequest: ("volume_id", "staging_target_path", "volume_capability"),
    csi.NodeUnstageVolumeRequest: ("volume_id", "staging_target_path"),
    csi.NodePublishVolumeRequest: ("volume_id", "target_path", "volume_capability"),
    csi.NodeUnpublishVolumeRequest: ("volume_id", "target_path"),
    csi.NodeGetVolumeStatsRequest: ("volume_id", "volume_path"),
    csi.NodeGetVolumeHealthRequest: ("volume_id",),
    csi.NodeExpandVolumeRequest: ("volume_id", "volume_path"),
    csi.VolumeCapability: ("access_type", "access_mode"),
    csi.VolumeCapabilityAccessMode: ("mode",),
    csi.VolumeContentSource: ("type",),
    csi.VolumeContentSourceSnapshotSource: ("snapshot_id",),
    csi.VolumeContentSourceVolumeSource: ("volume_id",),
}
"""What must not be empty, of requests and of messages inside them; a oneof by its own name."""

MUTATES: Final[Mapping[str, Callable[[Any], str]]] = {
    "CreateVolume": lambda request: volume_id(request.name),
    "DeleteVolume": lambda request: str(request.volume_id),
    "ControllerPublishVolume": lambda request: str(request.volume_id),
    "ControllerUnpublishVolume": lambda request: str(request.volume_id),
    "ControllerExpandVolume": lambda request: str(request.volume_id),
    "ControllerModifyVolume": lambda request: str(request.volume_id),
    "CreateSnapshot": lambda request: str(request.source_volume_id),
    "DeleteSnapshot": lambda request: str(request.snapshot_id),
    "NodeStageVolume": lambda request: str(request.volume_id),
    "NodeUnstageVolume": lambda request: str(request.volume_id),
    "NodePublishVolume": lambda request: str(request.volume_id),
    "NodeUnpublishVolume": lambda request: str(request.volume_id),
    "NodeExpandVolume": lambda request: str(request.volume_id),
}
"""The RPCs that change something, and what of: no two of them run for the same volume at once."""


class Secrets(dict[str, str]):
    """The ``secrets`` of a request; its ``repr`` does not tell them."""

    def __repr__(self) -> str:
        return f"<{len(self)} secrets>"


def check(request: Any) -> None:
    """Check a request of any kind, and take its secrets out of its ``repr``.

    Raises :class:`InvalidRequest` naming the field.
    """
    _check_message(request, "")
    if getattr(request, "secrets", None):
        request.secrets = Secrets(request.secrets)


@dataclass(frozen=True, slots=True)
class _Fields:
    """A message class as :func:`_check_message` needs it: its fields by kind, in wire order."""

    required: tuple[str, ...]
    oneofs: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]


@cache
def _fields(message_type: Any) -> _Fields:
    metadata: dict[str, FieldMetadata] = message_type._betterproto.meta_by_field_name  # noqa: SLF001
    oneofs: dict[str, tuple[str, ...]] = {}
    for name, field in metadata.items():
        if field.group:
            oneofs[field.group] = (*oneofs.get(field.group, ()), name)
    return _Fields(
        required=REQUIRED.get(message_type, ()),
        oneofs=oneofs,
        kinds={name: field.proto_type for name, field in metadata.items()},
    )


def _check_message(message: betterproto2.Message, where: str) -> None:
    fields = _fields(type(message))
    for group, names in fields.oneofs.items():
        present = [name for name in names if getattr(message, name) is not None]
        if len(present) > 1:
            raise InvalidRequest(f"{where}{group} is given as {' and as '.join(present)}")
        if not present and group in fields.required:
            raise InvalidRequest(f"{where}{' or '.join(names)} is missing")
    for name in fields.required:
        # A message counts as given even if all its fields are empty.
        if name not in fields.oneofs and getattr(message, name) in (None, "", 0, [], {}):
            raise InvalidRequest(f"{where}{name} is missing")
    for name, kind in fields.kinds.items():
        value = getattr(message, name)
        # Asking a message for its truth would compare all its fields with their defaults.
        if isinstance(value, betterproto2.Message) or value:
            _check_value(name, kind, value, where + name)


def _check_value(name: str, kind: str, value: Any, where: str) -> None:
    if kind == betterproto2.TYPE_MAP:
        _check_map(name, value, where)
    elif isinstance(value, list):
        if name == "mount_flags":
            _check_size(sum(len(flag.encode()) for flag in value), LARGEST_MAP, where)
        for index, each in enumerate(value):
            _check_single(name, kind, each, f"{where}[{index}]")
    else:
        _check_single(name, kind, value, where)


def _check_single(name: str, kind: str, value: Any, where: str) -> None:
    if kind == betterproto2.TYPE_STRING:
        _check_size(len(value.encode()), _longest(name), where)
        if _BANNED.search(value):
            raise InvalidRequest(f"{where} contains control characters")
    elif kind == betterproto2.TYPE_MESSAGE:
        if isinstance(value, betterproto2.Message):
            _check_message(value, f"{where}.")
    elif kind == betterproto2.TYPE_ENUM:
        # betterproto2 keeps numbers it does not know, as members without a name.
        if not value.name:
            raise InvalidRequest(f"{where} has the unknown value {int(value)}")
    elif kind in (betterproto2.TYPE_INT32, betterproto2.TYPE_INT64) and value < 0:
        raise InvalidRequest(f"{where} is negative")


def _check_map(name: str, value: Mapping[str, str], where: str) -> None:
    _check_size(
        sum(len(key.encode()) + len(text.encode()) for key, text in value.items()),
        LARGEST_MAP,
        where,
    )
    if name != "secrets" and any(_BANNED.search(key + text) for key, text in value.items()):
        raise InvalidRequest(f"{where} contains control characters")


def _longest(name: str) -> int:
    if name.endswith("_path"):
        return LONGEST_PATH
    return {"node_id": MAXIMUM_NODE_ID, "mount_flags": LARGEST_MAP}.get(name, LONGEST_STRING)


def _check_size(size: int, limit: int, where: str) -> None:
    if size > limit:
        raise InvalidRequest(f"{where} is {size} bytes long; at most {limit} are allowed")
