"""One identity per node, the same on every computer that computes it."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from rds_csi.model.host_identity import host_identity


def test_nqn_and_id_are_made_of_one_uuid() -> None:
    identity = host_identity("cluster", "node-1")
    assert identity.nqn == f"nqn.2014-08.org.nvmexpress:uuid:{identity.hostid}"
    assert uuid.UUID(identity.hostid).version == 5


def test_it_never_changes() -> None:
    # Recorded on an RDS as the allowed host: another value would lock nodes out of their disks.
    assert host_identity("cluster", "node-1").hostid == "81cf60f5-fe80-5af8-ba58-43d8220e7598"


@given(
    st.tuples(st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), st.text(min_size=1)),
    st.tuples(st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), st.text(min_size=1)),
)
def test_no_two_nodes_share_one(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (host_identity(*one) == host_identity(*other)) is (one == other)
