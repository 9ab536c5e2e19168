"""What the Node service refuses before anything is done, and what it says of itself."""

from pathlib import Path

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.errors import DriverError, FailedPrecondition, InvalidRequest, VolumeNotFound
from rds_csi.model.access import AccessMode
from tests.unit.fakes.node_host import FakeHost
from tests.unit.node.calls import OTHER, VOLUME, Calls, nqn


@pytest.fixture
async def staged(host: FakeHost) -> Calls:
    """A volume with a file system, staged."""
    calls = Calls(host=host)
    calls.create("ext4")
    await calls.stage()
    return calls


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"volume": ""}, "volume_id"),
        ({"fs_type": "btrfs"}, "none of ext4, xfs"),
        ({"mode": AccessMode.MULTI_NODE_MULTI_WRITER}, "corrupt"),
        ({"flags": ("noatime,exec",)}, "not allowed"),
        ({"flags": ("context=x",)}, "not allowed"),
        ({"published": {}}, "nvmeAddress"),
        ({"published": {"nvmeAddress": "10.0.0.1", "nvmePort": "4420", "nqn": nqn(OTHER)}}, "NQN"),
        ({"published": {"nvmeAddress": "10.0.0.1", "nvmePort": "4420", "nqn": "x"}}, "NQN"),
        ({"published": {"nvmeAddress": "rds", "nvmePort": "4420", "nqn": nqn(VOLUME)}}, "IP"),
    ],
)
async def test_a_bad_request_is_refused_before_anything(
    calls: Calls, host: FakeHost, change: dict[str, object], match: str
) -> None:
    with pytest.raises(InvalidRequest, match=match):
        await calls.but(**change).stage()
    assert host.steps.passed == []


@pytest.mark.requirement("NODE-01")
@pytest.mark.requirement("PIT-04")
async def test_a_bad_size_or_timer_is_refused(calls: Calls, host: FakeHost) -> None:
    for size in ("", "-1", "1.5", "1e9", "9" * 30, "½"):
        with pytest.raises(InvalidRequest, match="size"):
            await calls.but(published={**calls.publish_context, "size": size}).stage()
    request = calls.stage_request()
    for key, value in (("ctrlLossTmo", "-2"), ("reconnectDelay", "0"), ("keepAliveTmo", "x")):
        request.volume_context = {key: value}
        with pytest.raises(InvalidRequest, match=key):
            await host.node().node_stage_volume(request)
    assert host.steps.passed == []


@pytest.mark.parametrize(
    "path",
    ["", "relative", "/etc", "{kubelet}", "{kubelet}-evil/x", "{kubelet}/../x", "{kubelet}/a//b",
     "{kubelet}/./x", "{kubelet}/link/x"],
)  # fmt: skip
async def test_a_path_that_is_not_the_kubelets_is_refused(
    calls: Calls, host: FakeHost, tmp_path: Path, path: str
) -> None:
    (host.kubelet / "link").symlink_to(tmp_path)
    request = calls.stage_request()
    request.staging_target_path = path.format(kubelet=host.kubelet)
    with pytest.raises(InvalidRequest, match="staging_target_path"):
        await host.node().node_stage_volume(request)
    assert host.steps.passed == []


async def test_a_staging_path_that_is_no_directory_is_refused(calls: Calls, host: FakeHost) -> None:
    calls.stage_path.rmdir()
    with pytest.raises(FailedPrecondition, match="no directory"):
        await calls.stage()
    assert host.leaks() == []


async def test_an_id_that_no_volume_can_have_is_of_none(calls: Calls, host: FakeHost) -> None:
    with pytest.raises(VolumeNotFound):
        await calls.but(volume="../etc").stage()
    assert host.steps.passed == []


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("volume_id", "", InvalidRequest),
        ("target_path", "", InvalidRequest),
        ("target_path", "/etc/target", InvalidRequest),
        ("target_path", "{kubelet}/../target", InvalidRequest),
        ("target_path", "{kubelet}-evil/target", InvalidRequest),
        ("target_path", "{kubelet}/stage", InvalidRequest),
        ("staging_target_path", "", FailedPrecondition),
        ("staging_target_path", "/mnt", InvalidRequest),
        ("volume_capability", None, InvalidRequest),
        ("publish_context", {}, InvalidRequest),
    ],
)
async def test_a_bad_publish_is_refused_before_anything(
    staged: Calls, host: FakeHost, field: str, value: object, error: type[DriverError]
) -> None:
    request = staged.publish_request()
    given = value.format(kubelet=host.kubelet) if isinstance(value, str) else value
    setattr(request, field, given)
    host.steps.passed.clear()
    with pytest.raises(error):
        await host.node().node_publish_volume(request)
    assert host.steps.passed == []


@pytest.mark.parametrize("path", ["", "/", "/etc/passwd", "{kubelet}", "{kubelet}-evil/x"])
async def test_a_bad_unpublish_is_refused(host: FakeHost, path: str) -> None:
    with pytest.raises(InvalidRequest, match="target_path"):
        await host.node().node_unpublish_volume(
            csi.NodeUnpublishVolumeRequest(
                volume_id=VOLUME, target_path=path.format(kubelet=host.kubelet)
            )
        )


async def test_the_node_says_who_it_is_and_what_it_offers(host: FakeHost) -> None:
    info = await host.node().node_get_info(csi.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node) == ("node-1", 7)
    assert info.accessible_topology == csi.Topology(
        segments={"csi.rds-csi.io/topology": "all-nodes"}
    )
    reply = await host.node().node_get_capabilities(csi.NodeGetCapabilitiesRequest())
    offered = {int(each.rpc.type) for each in reply.capabilities if each.rpc is not None}
    volume_condition = 4  # of CSI 1.12, for kubelets that know no other
    assert offered == {1, 2, 3, volume_condition, 5, 7, 8}
