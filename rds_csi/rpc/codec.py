"""Messages to bytes and back, strictly.

betterproto2 takes what it gets: a number where a string belongs is stored as a number, a string
whose bytes end too soon is cut. Here such a request is refused before it reaches a service.
"""

from typing import Any, Final

import betterproto2
from grpclib.encoding.base import CodecBase

from rds_csi.errors import Internal, InvalidRequest

LARGEST_MESSAGE: Final = 4 * 1024**2
"""Bytes. What gRPC clients accept unless told otherwise; no request comes near it."""

_LAST_FIELD: Final = 2**29 - 1
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES: Final = {
    **dict.fromkeys(betterproto2.WIRE_VARINT_TYPES, _VARINT),
    **dict.fromkeys(betterproto2.WIRE_FIXED_64_TYPES, _FIXED64),
    **dict.fromkeys(betterproto2.WIRE_FIXED_32_TYPES, _FIXED32),
    **dict.fromkeys(betterproto2.WIRE_LEN_DELIM_TYPES, _DELIMITED),
}


class Codec(CodecBase):
    """What grpclib's server encodes and decodes with.

    Given explicitly, it also keeps grpclib from importing google.protobuf where that happens to
    be installed.
    """

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The bytes of a reply. Raises :class:`Internal` where clients would refuse them."""
        if not isinstance(message, message_type):
            raise TypeError(f"expected {message_type.__name__}, not {type(message).__name__}")
        data = bytes(message)
        if len(data) > LARGEST_MESSAGE:
            raise Internal(
                f"the {message_type.__name__} of {len(data)} bytes is larger than the "
                f"{LARGEST_MESSAGE} that clients accept",
                advice="ask for fewer entries per page",
            )
        return data

    def decode(self, data: bytes, message_type: Any) -> Any:
        """The message in ``data``. Raises :class:`InvalidRequest` where it is not well formed.

        Fields with unknown numbers are passed over: a newer client may send them.
        """
        name = message_type.__name__
        if len(data) > LARGEST_MESSAGE:
            raise InvalidRequest(f"{name} of {len(data)} bytes is larger than {LARGEST_MESSAGE}")
        try:
            _check(data, message_type)
            return message_type.parse(data)
        except UnicodeDecodeError:
            raise InvalidRequest(f"{name}: a string is not UTF-8") from None
        except ValueError as error:
            raise InvalidRequest(f"{name} cannot be decoded: {error}") from None


def _check(data: bytes, message_type: Any) -> None:
    """Walk over ``data``: every length fits, every known field has its own wire type."""
    known = message_type._betterproto  # noqa: SLF001 - betterproto2 is pinned exactly
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if not 1 <= number <= _LAST_FIELD:
            raise ValueError(f"there is no field {number}")
        name = known.field_name_by_number.get(number)
        start, position = _skip(data, position, wire_type)
        if name is None:
            continue
        field = known.meta_by_field_name[name]
        packed = field.repeated and wire_type == _DELIMITED
        if wire_type != _WIRE_TYPES[field.proto_type] and not packed:
            raise ValueError(f"field {name} has wire type {wire_type}")
        if field.proto_type in (betterproto2.TYPE_MESSAGE, betterproto2.TYPE_MAP):
            inner = field.unwrap() if field.unwrap else known.cls_by_field[name]
            _check(data[start:position], inner)


def _skip(data: bytes, position: int, wire_type: int) -> tuple[int, int]:
    """Where the value at ``position`` starts and ends."""
    start = position
    match wire_type:
        case 0:
            _, end = _varint(data, position)
        case 1:
            end = position + 8
        case 2:
            length, start = _varint(data, position)
            end = start + length
        case 5:
            end = position + 4
        case _:
            raise ValueError(f"unknown wire type {wire_type}")
    if end > len(data):
        raise ValueError("it ends too soon")
    return start, end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("it ends too soon")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is longer than 64 bits")
