"""What the CSI specification demands of every request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.csi import v1 as csi
from rds_csi.errors import InvalidRequest
from rds_csi.model.volume import volume_id
from rds_csi.rpc.requests import MUTATES, REQUIRED, check
from tests.unit.fakes.released_csi import RELEASED

MODE = csi.VolumeCapabilityAccessMode(mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER)
BLOCK = csi.VolumeCapability(block=csi.VolumeCapabilityBlockVolume(), access_mode=MODE)
MOUNT = csi.VolumeCapability(mount=csi.VolumeCapabilityMountVolume(), access_mode=MODE)
FULL = {
    "name": "pvc-one",
    "volume_id": "pvc-1",
    "source_volume_id": "pvc-1",
    "snapshot_id": "snap-1",
    "node_id": "node-1",
    "volume_capability": MOUNT,
    "volume_capabilities": [MOUNT, BLOCK],
    "capacity_range": csi.CapacityRange(),
    "mutable_parameters": {"a": "b"},
    "staging_target_path": "/staging",
    "target_path": "/target",
    "volume_path": "/target",
}
REQUESTS = {kind: names for kind, names in REQUIRED.items() if kind.__name__.endswith("Request")}


def full(kind):
    return kind(**{name: FULL[name] for name in REQUESTS[kind]})


def refusal(request) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check(request)
    return str(caught.value)


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_what_is_required_is_enough(kind):
    check(full(kind))


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, names in REQUESTS.items() for name in names],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_is_required_is_missed_by_name(kind, name):
    request = full(kind)
    setattr(
        request, name, type(FULL[name])() if isinstance(FULL[name], (str, list, dict)) else None
    )
    assert refusal(request) == f"{name} is missing"


def test_every_request_with_a_volume_id_demands_it():
    # From the release: no request with a volume_id treats it as optional.
    for name, message in RELEASED["messages"].items():
        fields = {field["name"] for field in message["fields"]}
        if name.endswith("Request") and "volume_id" in fields:
            assert "volume_id" in REQUIRED[getattr(csi, name)], name


def test_every_mutating_method_exists_and_says_of_what():
    methods = {
        method["method"]: method["request"]
        for service in RELEASED["services"].values()
        for method in service
    }
    for name, volume in MUTATES.items():
        request = full(getattr(csi, methods[name]))
        expected = volume_id("pvc-one") if name == "CreateVolume" else ("pvc-1", "snap-1")
        assert volume(request) in expected


def test_the_methods_that_change_something_are_all_there():
    reading = ("Get", "List", "Validate", "Probe")
    changing = {
        method["method"]
        for service in ("Identity", "Controller", "Node")
        for method in RELEASED["services"][service]
        if not any(word in method["method"] for word in reading)
    }
    assert changing == set(MUTATES)


def stage(**changes):
    request = full(csi.NodeStageVolumeRequest)
    for name, value in changes.items():
        setattr(request, name, value)
    return request


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (stage(volume_id="x" * 129), "volume_id is 129 bytes long; at most 128 are allowed"),
        (stage(volume_id="ü" * 65), "volume_id is 130 bytes long"),
        (stage(staging_target_path="/" + "x" * 4095), "staging_target_path is 4096 bytes long"),
        (stage(volume_context={"k" * 100: "v" * 3997}), "volume_context is 4097 bytes long"),
        (stage(secrets={"k": "v" * 4096}), "secrets is 4097 bytes long"),
        (stage(volume_id="a\x00b"), "volume_id contains control characters"),
        (stage(volume_id="a\x85b"), "volume_id contains control characters"),
        (stage(staging_target_path="/a\x1bb"), "staging_target_path contains control characters"),
        (stage(publish_context={"a": "\x07"}), "publish_context contains control characters"),
        (stage(volume_capability=csi.VolumeCapability()), "volume_capability.block or mount"),
        (
            stage(volume_capability=csi.VolumeCapability(mount=csi.VolumeCapabilityMountVolume())),
            "volume_capability.access_mode is missing",
        ),
        (
            csi.CreateVolumeRequest(
                name="x",
                volume_capabilities=[
                    MOUNT,
                    csi.VolumeCapability(
                        block=csi.VolumeCapabilityBlockVolume(),
                        access_mode=csi.VolumeCapabilityAccessMode(),
                    ),
                ],
            ),
            "volume_capabilities[1].access_mode.mode is missing",
        ),
        (
            csi.CreateVolumeRequest(
                name="x",
                volume_capabilities=[MOUNT],
                volume_content_source=csi.VolumeContentSource(),
            ),
            "volume_content_source.snapshot or volume is missing",
        ),
        (
            csi.CreateVolumeRequest(
                name="x",
                volume_capabilities=[MOUNT],
                volume_content_source=csi.VolumeContentSource(
                    volume=csi.VolumeContentSourceVolumeSource()
                ),
            ),
            "volume_content_source.volume.volume_id is missing",
        ),
        (
            csi.CreateVolumeRequest(
                name="x", volume_capabilities=[MOUNT], capacity_range=csi.CapacityRange(-1, 0)
            ),
            "capacity_range.required_bytes is negative",
        ),
        (csi.ListVolumesRequest(max_entries=-1), "max_entries is negative"),
        (csi.ListVolumesRequest(starting_token="x" * 129), "starting_token is 129 bytes long"),
        (
            csi.ControllerPublishVolumeRequest(
                volume_id="v", node_id="n" * 257, volume_capability=MOUNT
            ),
            "node_id is 257 bytes long; at most 256 are allowed",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_naming_the_field(request_, text):
    assert refusal(request_).startswith(text)


def test_mount_flags_count_together():
    def flags(count):
        mount = csi.VolumeCapabilityMountVolume(mount_flags=["x" * 1024] * count)
        return stage(volume_capability=csi.VolumeCapability(mount=mount, access_mode=MODE))

    check(flags(4))
    assert refusal(flags(5)).startswith("volume_capability.mount.mount_flags is 5120 bytes long")


@pytest.mark.parametrize(
    "request_",
    [
        stage(volume_id="x" * 128),
        stage(staging_target_path="/" + "x" * 4094),
        stage(volume_context={"k" * 96: "v" * 4000}),
        stage(volume_id="tab\tand ünïcode"),
        stage(secrets={"key": "line\nline", "binary": "\x01"}),
        csi.ControllerPublishVolumeRequest(
            volume_id="v", node_id="n" * 256, volume_capability=MOUNT
        ),
        csi.ControllerUnpublishVolumeRequest(volume_id="v"),
        csi.ListVolumesRequest(),
        csi.GetCapacityRequest(),
        csi.ProbeRequest(),
    ],
    ids=lambda request_: type(request_).__name__,
)
def test_allowed(request_):
    check(request_)


def test_p4_both_arms_of_a_oneof_are_refused():
    both = csi.VolumeCapability(
        block=csi.VolumeCapabilityBlockVolume(),
        mount=csi.VolumeCapabilityMountVolume(),
        access_mode=MODE,
    )
    assert refusal(stage(volume_capability=both)) == (
        "volume_capability.access_type is given as block and as mount"
    )


def test_p5_an_unknown_access_mode_is_refused():
    unknown = csi.VolumeCapability(
        block=csi.VolumeCapabilityBlockVolume(),
        access_mode=csi.VolumeCapabilityAccessMode(mode=csi.VolumeCapabilityAccessModeMode(99)),
    )
    assert refusal(stage(volume_capability=unknown)) == (
        "volume_capability.access_mode.mode has the unknown value 99"
    )


def test_p8_secrets_leave_the_repr_and_stay_readable():
    request = stage(secrets={"password": "correct horse"})
    check(request)
    assert "correct horse" not in repr(request)
    assert request.secrets["password"] == "correct horse"
    assert request.secrets == {"password": "correct horse"}


@given(st.text(max_size=200), st.dictionaries(st.text(max_size=40), st.text(max_size=40)))
def test_any_text_is_either_allowed_or_refused(text, context):
    request = stage(volume_id=text, volume_context=context)
    try:
        check(request)
    except InvalidRequest:
        return
    assert 1 <= len(text.encode()) <= 128
    assert "\x00" not in text
