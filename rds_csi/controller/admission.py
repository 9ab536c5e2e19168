"""Who may have a volume: node ids that prove themselves, and the rule for one more node.

Pure rules. The controller applies them to the ownership record and writes the result back in
one compare-and-set, so two replicas cannot both say yes.
"""

import hashlib
from dataclasses import replace
from typing import Final

from rds_csi.errors import (
    InvalidRequest,
    MadeForOther,
    NodeNotFound,
    VolumeInUse,
    VolumeMismatch,
)
from rds_csi.model.volume import (
    BLOCK,
    DEFAULT_FILE_SYSTEM,
    MAXIMUM_NODE_ID,
    AccessMode,
    Capability,
    Publication,
    Record,
    check_node_id,
)

_TAG_LENGTH: Final = 8
READONLY_KEY: Final = "readonly"
"""PublishContext entry that tells the node a read-only ControllerPublish."""
SIZE_KEY: Final = "size"
"""PublishContext entry with the volume's bytes: no smaller device is ever used for it."""

GENERATION_KEY: Final = "generation"
"""PublishContext entry with the record's generation, in decimal: what a node kept of an older one
is outdated. Absent for what was published before records had it, which is 0."""
FORMATTED_KEY: Final = "formatted"
"""PublishContext entry with the file system the volume is known to hold, absent when none is
known: such a volume is never formatted, whatever its device shows."""


def make_node_id(cluster_id: str, name: str) -> str:
    """The node id that the node called ``name`` reports: its name and a tag of the cluster.

    The controller keeps no list of nodes. The tag lets it tell a node of its own cluster from
    anything else, and catches a node plugin configured with another cluster id, whose host NQN
    the controller would compute wrongly.
    """
    node_id = f"{check_node_id(name)}.{_tag(cluster_id, name)}"
    if len(node_id.encode()) > MAXIMUM_NODE_ID:
        raise InvalidRequest(
            f"the node name is longer than {MAXIMUM_NODE_ID - _TAG_LENGTH - 1} bytes"
        )
    return node_id


def check_node(cluster_id: str, node_id: str) -> str:
    """The node id, if :func:`make_node_id` made it in this cluster; else :class:`NodeNotFound`."""
    check_node_id(node_id)
    name, _, tag = node_id.rpartition(".")
    if not name or tag != _tag(cluster_id, name):
        raise NodeNotFound(
            f"node {node_id[:300]!r} does not run this driver with cluster id {cluster_id!r}",
            advice="controller and node plugins must have the same --cluster-id",
        )
    return node_id


def dedicate(record: Record, capability: Capability, *, volume: str) -> Record:
    """The record, if it allows such a use. One that says of none yet says of this from now on.

    An empty fsType means the default, also on a volume made for another: the node, which goes
    by the same request, would make that one. Raises :class:`MadeForOther`.
    """
    wanted = capability.use
    made_for = record.access or (record.formatted if wanted != BLOCK else "") or wanted
    if made_for != wanted:
        raise MadeForOther(
            f"it was made for {made_for}, and is asked for as {wanted}",
            volume=volume,
            advice="the PersistentVolume's volumeMode and csi.fsType have to say what it was made "
            f"for; an empty fsType means {DEFAULT_FILE_SYSTEM}",
        )
    return replace(record, access=wanted)


def admit(
    record: Record, node: str, capability: Capability, *, readonly: bool, volume: str
) -> Record:
    """The record with ``node`` added, if the nodes that have the volume leave room for it.

    Raises :class:`MadeForOther`, :class:`VolumeMismatch` where the node has it in another way,
    :class:`VolumeInUse` naming the holders where the modes exclude each other (CSI spec,
    ControllerPublishVolume).
    """
    record = dedicate(record, capability, volume=volume)
    entry = Publication(node, capability.mode, readonly)
    held = record.publication(node)
    if held is not None and held != entry:
        raise VolumeMismatch(
            f"node {node} has it already, as {_describe(held)} instead of {_describe(entry)}",
            volume=volume,
            advice="unpublish it from that node first",
        )
    others = tuple(other for other in record.nodes if other.node != node)
    excluded = [other for other in others if not _together(entry, other)]
    if excluded:
        holders = ", ".join(f"{other.node} ({_describe(other)})" for other in excluded)
        raise VolumeInUse(
            f"published to {holders}; {_describe(entry)} on node {node} is not possible beside it",
            volume=volume,
            advice="it is handed over when the other node has unpublished it",
        )
    return record.with_node(entry)


def _together(one: Publication, other: Publication) -> bool:
    if not (one.mode.multi_node and other.mode.multi_node):
        return False
    if one.mode != other.mode:
        return one.reads_only and other.reads_only
    if one.mode == AccessMode.MULTI_NODE_SINGLE_WRITER:
        return one.reads_only or other.reads_only
    return True


def _describe(entry: Publication) -> str:
    return f"{entry.mode.name}{', read-only' if entry.readonly else ''}"


def _tag(cluster_id: str, name: str) -> str:
    return hashlib.sha256(f"{cluster_id}/{name}".encode()).hexdigest()[:_TAG_LENGTH]
