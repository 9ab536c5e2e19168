"""The proto file against the released descriptor, the generated package against the proto file."""

import json
import os
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from protos import generate, released

CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    try:
        import betterproto2_compiler  # noqa: F401, PLC0415
        import grpc_tools  # noqa: F401, PLC0415
    except ImportError as error:
        if CI:
            raise
        pytest.skip(f"NOT CHECKED that generated code is up to date: {error} (group 'proto')")
    path = tmp_path_factory.mktemp("proto") / "all.pb"
    generate.descriptor_set(path)
    return path.read_bytes()


def test_the_proto_file_is_the_released_one(compiled):
    assert released.compare(compiled) == []


def test_the_generated_package_is_up_to_date(compiled, tmp_path):
    generate.generate(tmp_path / "generated")
    assert generate.differences(tmp_path / "generated", generate.GENERATED) == []


def test_the_released_description_is_whole():
    described = json.loads(released.RELEASED.read_text())
    counts = {name: len(methods) for name, methods in described["services"].items()}
    # CSI v1.13.0 has 36 RPCs.
    assert counts == {
        "Identity": 3,
        "Controller": 17,
        "GroupController": 4,
        "SnapshotMetadata": 2,
        "Node": 10,
    }


def changed(data: bytes, change) -> bytes:
    files = descriptor_pb2.FileDescriptorSet.FromString(data)
    change(next(file for file in files.file if file.name == released.PROTO))
    return bytes(files.SerializeToString())


def message(file, name):
    return next(each for each in file.message_type if each.name == name)


def field(file, name, field_name):
    return next(each for each in message(file, name).field if each.name == field_name)


CHANGES = {
    "number": lambda f: setattr(field(f, "Volume", "volume_id"), "number", 9),
    "type": lambda f: setattr(field(f, "Volume", "capacity_bytes"), "type", 5),
    "label": lambda f: setattr(field(f, "Volume", "volume_id"), "label", 3),
    "name": lambda f: setattr(field(f, "Volume", "volume_id"), "name", "id"),
    "map": lambda f: setattr(message(f, "Volume").nested_type[0].field[1], "type", 5),
    "oneof": lambda f: field(f, "VolumeCapability", "block").ClearField("oneof_index"),
    "oneof name": lambda f: setattr(message(f, "VolumeCapability").oneof_decl[0], "name", "x"),
    "missing field": lambda f: message(f, "Volume").field.pop(),
    "further message": lambda f: f.message_type.add(name="Extra"),
    "enum value": lambda f: setattr(f.enum_type[0].value[1], "number", 7),
    "reserved": lambda f: message(f, "NodeGetVolumeStatsResponse").ClearField("reserved_range"),
    "method order": lambda f: f.service[1].method.reverse(),
    "streaming": lambda f: setattr(f.service[3].method[0], "server_streaming", False),
    "response": lambda f: setattr(f.service[0].method[0], "output_type", ".csi.v1.Volume"),
    "extension": lambda f: setattr(f.extension[0], "number", 1061),
    "go package": lambda f: setattr(f.options, "go_package", "csi"),
    "secret": lambda f: field(f, "DeleteVolumeRequest", "secrets").ClearField("options"),
    "not secret": lambda f: field(f, "Volume", "volume_id").options.MergeFromString(
        b"\x98\x42\x01"
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_kind_of_difference_is_found(compiled, name):
    assert released.compare(changed(compiled, CHANGES[name])) != []


def test_differences_of_folders(tmp_path):
    left, right = tmp_path / "left", tmp_path / "right"
    for side in (left, right):
        (side / "inner").mkdir(parents=True)
        (side / "inner" / "same.py").write_text("same\n")
        (side / "__pycache__").mkdir()
    (left / "__pycache__" / "same.pyc").write_bytes(b"\xff")
    assert generate.differences(left, right) == []
    (right / "inner" / "more.py").write_text("x\n")
    (left / "fewer.py").write_text("y\n")
    (right / "inner" / "same.py").write_text("other\n")
    lines = generate.differences(left, right)
    assert [line for line in lines if line.startswith("differs")] == [
        "differs: fewer.py",
        "differs: inner/more.py",
        "differs: inner/same.py",
    ]


def test_nothing_in_the_package_was_written_by_hand():
    root = Path(generate.GENERATED)
    for path in root.rglob("*.py"):
        text = path.read_text()
        assert not text or "@generated" in text or path.name == "message_pool.py"
