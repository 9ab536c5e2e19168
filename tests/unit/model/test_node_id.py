"""A node id says which node it is, and proves of which cluster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import InvalidRequest, NodeNotFound
from rds_csi.model.node_id import (
    MAXIMUM_NODE_ID,
    check_node,
    check_node_id,
    make_node_id,
    node_name,
)


@given(st.text(min_size=1, max_size=60).filter(str.isprintable))
def test_a_node_id_proves_its_cluster(name: str) -> None:
    node = make_node_id("cluster", name)
    assert check_node("cluster", node) == node
    with pytest.raises(NodeNotFound, match="cluster-id"):
        check_node("other", node)
    assert node_name(node) == name


def test_a_name_that_is_no_node_id_stays_as_it_is() -> None:
    for name in ("worker-1", "worker-1.example.com", ".00000000", ""):
        assert node_name(name) == name


@pytest.mark.parametrize("node", ["worker-1", "worker-1.00000000", ".", "some-fake-node-id"])
def test_other_node_ids_are_unknown(node: str) -> None:
    with pytest.raises(NodeNotFound):
        check_node("cluster", node)


def test_a_node_name_too_long_for_its_tag() -> None:
    with pytest.raises(InvalidRequest):
        make_node_id("cluster", "n" * 250)
    assert len(make_node_id("cluster", "n" * 247)) == 256


def test_an_id_is_the_nodes_name_and_a_tag() -> None:
    name, _, tag = make_node_id("cluster", "worker-1.example").rpartition(".")
    assert name == "worker-1.example"
    assert len(tag) == 8


def test_a_tag_never_changes() -> None:
    # Recorded on an RDS with each volume that is published: another tag would be another node.
    assert make_node_id("cluster", "worker-1") == "worker-1.56641bed"


def test_no_nodes_id_is_anothers() -> None:
    """Name and cluster are told apart, wherever the line between them is."""
    assert make_node_id("a", "b") != make_node_id("a", "c") != make_node_id("b", "c")
    tags = {make_node_id(*each).rpartition(".")[2] for each in (("a", "bc"), ("ab", "c"))}
    assert len(tags) == 2


@pytest.mark.parametrize(
    "text", ["", "a\n", "a\x00", "a\x7f", "n" * (MAXIMUM_NODE_ID + 1), "é" * 129]
)
def test_what_can_be_no_id_is_refused(text: str) -> None:
    for check in (
        check_node_id,
        lambda each: make_node_id("c", each),
        lambda each: check_node("c", each),
    ):
        with pytest.raises(InvalidRequest, match="node id"):
            check(text)


def test_an_id_of_256_bytes_is_fine() -> None:
    assert check_node_id("é" * 128) == "é" * 128
