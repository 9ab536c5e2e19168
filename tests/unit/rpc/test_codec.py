"""Messages to bytes and back, strictly: what is refused before a service sees it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rds_csi.csi import v1 as csi
from rds_csi.errors import Internal, InvalidRequest
from rds_csi.rpc.codec import LARGEST_MESSAGE, Codec
from tests.unit.fakes.released_csi import ReleasedCsi

RELEASED = ReleasedCsi()
CODEC = Codec()


def decode(data: bytes, kind=csi.CreateVolumeRequest):
    return CODEC.decode(data, kind)


def refusal(data: bytes, kind=csi.CreateVolumeRequest) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, kind)
    return str(caught.value)


@given(st.binary(max_size=80))
@settings(max_examples=400)
def test_any_bytes_are_a_message_or_an_invalid_request(data):
    try:
        here = decode(data)
    except InvalidRequest:
        return
    # What we take, google takes too, and reads the same fields in it.
    there = RELEASED.message("CreateVolumeRequest").FromString(data)
    assert here.name == there.name
    assert dict(here.parameters) == dict(there.parameters)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x08\x05", "field name has wire type 0"),
        (b"\x0d\x01\x02\x03\x04", "field name has wire type 5"),
        (b"\x0b\x0c", "unknown wire type 3"),
        (b"\x12\x02\x0a\x00", "field required_bytes has wire type 2"),
        (b"\x18\x01", "field volume_capabilities has wire type 0"),
        (b"\x22\x02\x08\x01", "field key has wire type 0"),
    ],
)
def test_p6_a_wrong_wire_type_is_refused(data, text):
    assert text in refusal(data)


@pytest.mark.parametrize(
    "data", [b"\x0a\x05abc", b"\x0a", b"\x8a", b"\x22\x05\x0a\x09ab", b"\xff" * 11]
)
def test_p6_what_ends_too_soon_is_refused(data):
    assert "cannot be decoded" in refusal(data)


@pytest.mark.parametrize("data", [b"\x0a\x02\xff\xfe", b"\x22\x06\x0a\x01\xff\x12\x01a"])
def test_p7_invalid_utf8_is_refused(data):
    assert refusal(data).endswith("a string is not UTF-8")


def test_fields_of_a_later_csi_are_passed_over():
    unknown = b"\xfa\x07\x03abc" + b"\xf8\x07\x01" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4)
    assert decode(unknown + b"\x0a\x01x").name == "x"


def test_a_message_that_is_too_large_is_refused_unread():
    assert "larger than" in refusal(bytes(4 * 1024**2 + 1))


def test_the_largest_message_is_taken_and_sent_and_one_byte_more_is_not():
    fits = csi.ProbeRequest()
    fits._unknown_fields = b"\xfa\x07" + b"\xfa\xff\xff\x01" + bytes(LARGEST_MESSAGE - 6)
    data = CODEC.encode(fits, csi.ProbeRequest)
    assert len(data) == LARGEST_MESSAGE
    decode(data, csi.ProbeRequest)
    fits._unknown_fields += b"\x00"
    with pytest.raises(Internal, match="fewer entries per page"):
        CODEC.encode(fits, csi.ProbeRequest)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x02\x00", "there is no field 0"),
        (b"\xfa\xff\xff\xff\x1f\x00", "there is no field 1073741823"),
        (b"\x18" + b"\xff" * 10, "a number is longer than 64 bits"),
        (b"\x0f", "unknown wire type 7"),
    ],
)
def test_a_number_that_no_message_has_is_refused(data, text):
    assert refusal(data) == f"CreateVolumeRequest cannot be decoded: {text}"


def test_a_list_of_numbers_may_come_packed_and_one_by_one():
    """Both are the protobuf encoding of a repeated number; any other wire type is neither."""
    kind = csi.VolumeHealthVolumeHealthEntry
    assert decode(b"\x08\x02", kind).status == 2
    assert "wire type 2" in refusal(b"\x0a\x01\x02", kind)


def test_the_wrong_message_is_not_encoded():
    with pytest.raises(TypeError, match="expected ProbeResponse, not NoneType"):
        CODEC.encode(None, csi.ProbeResponse)
