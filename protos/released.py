"""Compares a compiled ``csi.proto`` with the released one, field by field.

The released descriptor stands in ``tests/unit/data/csi-1.13.0.json``: every message, field,
number, type, oneof, reserved number, enum, method and option extension of CSI v1.13.0.
"""

import json
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

RELEASED = Path(__file__).resolve().parent.parent / "tests/unit/data/csi-1.13.0.json"
PROTO = "csi/v1/csi.proto"
CSI_SECRET = 1059


def compare(descriptor_set: bytes) -> list[str]:
    """Every difference as a line ``path: released ..., here ...``; none if they agree."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    file = next(file for file in files if file.name == PROTO)
    released = json.loads(RELEASED.read_text())
    # Where the file lies is ours: the released one is in no folder.
    released["file"] = PROTO
    return [*_unlike("", released, describe(file)), *_secrets(file)]


def describe(file: descriptor_pb2.FileDescriptorProto) -> dict[str, Any]:
    """A file descriptor in the shape of the JSON."""
    return {
        "file": file.name,
        "package": file.package,
        "syntax": file.syntax,
        "dependency": list(file.dependency),
        "go_package": file.options.go_package,
        "extensions": [
            {
                "extendee": extension.extendee,
                "name": extension.name,
                "number": extension.number,
                "type": _scalar(extension),
            }
            for extension in file.extension
        ],
        "enums": {enum.name: _enum(enum) for enum in file.enum_type},
        "messages": {message.name: _message(message) for message in file.message_type},
        "services": {
            service.name: [
                {
                    "method": method.name,
                    "request": _bare(method.input_type),
                    "response": _bare(method.output_type),
                    "server_streaming": method.server_streaming,
                }
                for method in service.method
            ]
            for service in file.service
        },
    }


def _message(message: DescriptorProto) -> dict[str, Any]:
    maps = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
    found: dict[str, Any] = {"fields": [_field(field, message, maps) for field in message.field]}
    nested = {each.name: _message(each) for each in message.nested_type if each.name not in maps}
    if nested:
        found["nested"] = nested
    if message.enum_type:
        found["enums"] = {enum.name: _enum(enum) for enum in message.enum_type}
    if message.reserved_range:
        found["reserved"] = [
            [span.start] if span.end == span.start + 1 else [span.start, span.end - 1]
            for span in message.reserved_range
        ]
    return found


def _field(
    field: Field, message: DescriptorProto, maps: dict[str, DescriptorProto]
) -> dict[str, Any]:
    found: dict[str, Any] = {"name": field.name, "number": field.number, "type": _type(field)}
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        found["type"] = f"map<{_type(entry.field[0])},{_type(entry.field[1])}>"
    elif field.label == Field.LABEL_REPEATED:
        found["repeated"] = True
    if field.HasField("oneof_index"):
        found["oneof"] = message.oneof_decl[field.oneof_index].name
    return found


def _enum(enum: EnumDescriptorProto) -> dict[str, int]:
    return {value.name: value.number for value in enum.value}


def _type(field: Field) -> str:
    return _bare(field.type_name) if field.type_name else _scalar(field)


def _scalar(field: Field) -> str:
    return str(Field.Type.Name(field.type)).removeprefix("TYPE_").lower()


def _bare(name: str) -> str:
    return name.removeprefix(".csi.v1.").removeprefix(".")


def _secrets(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    """Fields called ``secrets`` without the option ``csi_secret``, and others with it."""
    wrong = []
    for message in file.message_type:
        for field in message.field:
            # Unknown to descriptor_pb2, an extension stays in the options' bytes.
            marked = _varint_key(CSI_SECRET) in field.options.SerializeToString()
            if marked != (field.name == "secrets"):
                wrong.append(f"{message.name}.{field.name}: csi_secret is {marked}")
    return wrong


def _varint_key(number: int) -> bytes:
    key = number << 3
    return bytes([key & 0x7F | 0x80, key >> 7, 1])


def _unlike(path: str, released: Any, here: Any) -> list[str]:
    if isinstance(released, dict) and isinstance(here, dict):
        return [
            line
            for key in sorted(released.keys() | here.keys())
            for line in _unlike(f"{path}.{key}", released.get(key), here.get(key))
        ]
    if isinstance(released, list) and isinstance(here, list) and len(released) == len(here):
        return [
            line
            for index, pair in enumerate(zip(released, here, strict=True))
            for line in _unlike(f"{path}[{index}]", *pair)
        ]
    return [] if released == here else [f"{path}: released {released!r}, here {here!r}"]
