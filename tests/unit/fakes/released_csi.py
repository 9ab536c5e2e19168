"""CSI 1.13.0 as google.protobuf and grpc.aio see it, built from the released descriptor.

A second implementation to hold ours against: nothing of our proto file or generated code is in
it, only the JSON description of the release.
"""

import json
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

RELEASED = json.loads(
    (Path(__file__).parents[1] / "data" / "csi-1.13.0.json").read_text(encoding="utf-8")
)
_SCALARS = {"string": 9, "bool": 8, "int32": 5, "int64": 3}
_IMPORTS = (timestamp_pb2, wrappers_pb2)


class ReleasedCsi:
    """Message classes by name, and calls of any RPC over a grpc.aio channel."""

    def __init__(self) -> None:
        pool = descriptor_pool.DescriptorPool()
        for module in _IMPORTS:
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        pool.AddSerializedFile(_file().SerializeToString())
        self._pool = pool
        self.messages = sorted(self._names("", RELEASED["messages"]))
        self.methods = {
            method["method"]: (f"/csi.v1.{service}/{method['method']}", method)
            for service, methods in RELEASED["services"].items()
            for method in methods
        }

    def _names(self, prefix: str, messages: dict[str, Any]) -> list[str]:
        names = []
        for name, message in messages.items():
            names += [prefix + name, *self._names(f"{prefix}{name}.", message.get("nested", {}))]
        return names

    def message(self, name: str) -> Any:
        """The class of a message; a nested one by its dotted name."""
        descriptor = self._pool.FindMessageTypeByName(f"csi.v1.{name}")
        return message_factory.GetMessageClass(descriptor)

    async def call(
        self, channel: grpc.aio.Channel, name: str, request: Any = None, **options: Any
    ) -> Any:
        """Call an RPC; a stream's answer is the list of its messages."""
        path, method = self.methods[name]
        make = channel.unary_stream if method["server_streaming"] else channel.unary_unary
        stub = make(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.message(method["response"]).FromString,
        )
        sent = self.message(method["request"])() if request is None else request
        if method["server_streaming"]:
            return [message async for message in stub(sent, **options)]
        return await stub(sent, **options)


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="csi.proto",
        package="csi.v1",
        syntax="proto3",
        dependency=[module.DESCRIPTOR.name for module in _IMPORTS],
    )
    for name, values in RELEASED["enums"].items():
        _enum(file.enum_type.add(name=name), values)
    for name, message in RELEASED["messages"].items():
        _message(file.message_type.add(name=name), message, f".csi.v1.{name}")
    return file


def _enum(enum: Any, values: dict[str, int]) -> None:
    for name, number in values.items():
        enum.value.add(name=name, number=number)


def _message(descriptor: Any, message: dict[str, Any], full_name: str) -> None:
    for name, values in message.get("enums", {}).items():
        _enum(descriptor.enum_type.add(name=name), values)
    for name, nested in message.get("nested", {}).items():
        _message(descriptor.nested_type.add(name=name), nested, f"{full_name}.{name}")
    oneofs: list[str] = []
    for described in message["fields"]:
        field = descriptor.field.add(name=described["name"], number=described["number"])
        field.label = Field.LABEL_REPEATED if described.get("repeated") else Field.LABEL_OPTIONAL
        if described["type"].startswith("map<"):
            _map(descriptor, field, full_name)
        elif described["type"] in _SCALARS:
            field.type = _SCALARS[described["type"]]
        else:
            field.type_name = _full(described["type"])
            field.type = Field.TYPE_ENUM if _is_enum(described["type"]) else Field.TYPE_MESSAGE
        if "oneof" in described:
            if described["oneof"] not in oneofs:
                oneofs.append(described["oneof"])
                descriptor.oneof_decl.add(name=described["oneof"])
            field.oneof_index = oneofs.index(described["oneof"])


def _map(descriptor: Any, field: Any, full_name: str) -> None:
    # The only maps of CSI are map<string,string>.
    name = "".join(part.capitalize() for part in field.name.split("_")) + "Entry"
    entry = descriptor.nested_type.add(name=name)
    entry.options.map_entry = True
    for number, part in enumerate(("key", "value"), start=1):
        entry.field.add(name=part, number=number, type=9, label=Field.LABEL_OPTIONAL)
    field.label, field.type = Field.LABEL_REPEATED, Field.TYPE_MESSAGE
    field.type_name = f"{full_name}.{name}"


def _full(name: str) -> str:
    return f".{name}" if name.startswith("google.") else f".csi.v1.{name}"


def _is_enum(name: str) -> bool:
    if name in RELEASED["enums"]:
        return True
    first, *rest = name.split(".")
    message = RELEASED["messages"].get(first, {})
    for part in rest[:-1]:
        message = message.get("nested", {}).get(part, {})
    return bool(rest) and rest[-1] in message.get("enums", {})
