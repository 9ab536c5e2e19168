"""Who may have a volume: node ids that prove themselves, and the rule for one more node.

Pure rules. The controller applies them to the ownership record and writes the result back in
one compare-and-set, so two replicas cannot both say yes.
"""

from dataclasses import replace

from rds_csi.errors import (
    MadeForOther,
    RecordFull,
    VolumeInUse,
    VolumeMismatch,
)
from rds_csi.model.access import BLOCK, DEFAULT_FILE_SYSTEM, AccessMode, Capability
from rds_csi.model.record import MAXIMUM_RECORD, Publication, Record


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
    record: Record,
    node: str,
    capability: Capability,
    *,
    readonly: bool,
    volume: str,
    mapped: bool = False,
) -> Record:
    """The record with ``node`` added, if the nodes that have the volume leave room for it.

    ``mapped``: it is told to put a map over the device.

    Raises :class:`MadeForOther`, :class:`VolumeMismatch` where the node has it in another way,
    :class:`VolumeInUse` naming the holders where the modes exclude each other (CSI spec,
    ControllerPublishVolume), :class:`RecordFull`.
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
    added = record.with_node(entry, mapped=mapped)
    if held is None and len(added.encode()) > MAXIMUM_RECORD:
        raise RecordFull(
            f"{len(others)} nodes have it, and its record has no room for node {node}",
            volume=volume,
            advice="there is when it has been unpublished from another; many readers of one volume "
            "are better served by a server of files",
        )
    return added


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
