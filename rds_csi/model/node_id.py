"""Node ids: what a node reports, and how the controller knows one of its own cluster."""

import hashlib
import re
from typing import Final

from rds_csi.errors import (
    InvalidRequest,
    NodeNotFound,
)

MAXIMUM_NODE_ID: Final = 256


def check_node_id(node_id: str) -> str:
    """The node id, checked for emptiness, length and control characters."""
    if not node_id:
        raise InvalidRequest("the node id is empty")
    if len(node_id.encode()) > MAXIMUM_NODE_ID:
        raise InvalidRequest(f"the node id is longer than {MAXIMUM_NODE_ID} bytes")
    if not node_id.isprintable():
        raise InvalidRequest("the node id contains control characters")
    return node_id


_TAG_LENGTH: Final = 8


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


def node_name(node_id: str) -> str:
    """The name in a node id that :func:`make_node_id` made, for people: without the tag."""
    name, _, tag = node_id.rpartition(".")
    return name if name and re.fullmatch(rf"[0-9a-f]{{{_TAG_LENGTH}}}", tag) else node_id


def _tag(cluster_id: str, name: str) -> str:
    return hashlib.sha256(f"{cluster_id}/{name}".encode()).hexdigest()[:_TAG_LENGTH]
