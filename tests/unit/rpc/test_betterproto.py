"""How betterproto2 behaves on the wire, and where our codec stands in front of it.

Numbered as the protobuf traps of the field notes. Where betterproto2 is right already the test
says so: it guards the next version of an exactly pinned library.
"""

import datetime as dt
import random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from rds_csi.csi import v1 as csi
from rds_csi.errors import InvalidRequest
from rds_csi.rpc.codec import Codec
from tests.unit.fakes.released_csi import ReleasedCsi

RELEASED = ReleasedCsi()
CODEC = Codec()


def ours(name: str):
    """Our class of a released message: nested names are joined, acronyms are words."""
    return getattr(csi, name.replace(".", "").replace("RPC", "Rpc"))


def decode(data: bytes, kind=csi.CreateVolumeRequest):
    return CODEC.decode(data, kind)


def refusal(data: bytes, kind=csi.CreateVolumeRequest) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, kind)
    return str(caught.value)


# Round trips against the other implementation.

TEXTS = ("", "a", "pvc-1", "Größe ☃", "x" * 300)
NUMBERS = (0, 1, -1, 127, 128, 2**31 - 1, -(2**31))
LARGE = (*NUMBERS, 2**63 - 1, -(2**63))


def fill(message, source: random.Random) -> None:
    """Set about half of a google message's fields to likely and unlikely values."""
    for field in message.DESCRIPTOR.fields:
        if source.random() < 0.5:
            continue
        count = source.randrange(3)
        value = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            value.update({source.choice(TEXTS): source.choice(TEXTS) for _ in range(count)})
        elif field.is_repeated:
            for _ in range(count):
                if field.message_type:
                    fill(value.add(), source)
                else:
                    value.append(value_of(field, source))
        elif field.message_type is None:
            setattr(message, field.name, value_of(field, source))
        elif field.message_type.full_name == "google.protobuf.Timestamp":
            # Python's datetime holds microseconds; below that betterproto2 cuts off.
            value.FromMicroseconds(source.choice((0, 1, 1_700_000_000_999_999)))
        else:
            value.SetInParent()
            fill(value, source)


def value_of(field, source: random.Random):
    if field.enum_type is not None:
        return source.choice([value.number for value in field.enum_type.values])
    kinds = {
        field.TYPE_STRING: TEXTS,
        field.TYPE_BOOL: (True, False),
        field.TYPE_INT32: NUMBERS,
        field.TYPE_INT64: LARGE,
    }
    return source.choice(kinds[field.type])


@pytest.mark.parametrize("name", RELEASED.messages)
def test_every_message_survives_both_ways(name):
    source = random.Random(name)
    for _ in range(40):
        there = RELEASED.message(name)()
        fill(there, source)
        data = there.SerializeToString()
        here = CODEC.decode(data, ours(name))
        again = CODEC.encode(here, ours(name))
        assert RELEASED.message(name).FromString(again) == there
        assert CODEC.decode(again, ours(name)) == here


def test_every_message_of_ours_is_a_released_one():
    released = {ours(name) for name in RELEASED.messages}
    generated = {
        kind
        for name in csi.__all__
        if isinstance(kind := getattr(csi, name), type) and hasattr(kind, "parse")
    }
    assert generated == released


@given(st.integers(0, 10_000), st.data())
@settings(max_examples=200)
def test_what_google_refuses_we_refuse(seed, data):
    there = RELEASED.message("CreateVolumeRequest")()
    fill(there, random.Random(seed))
    sent = bytearray(there.SerializeToString())
    if sent:
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(sent[: data.draw(st.integers(0, len(sent)))])
    try:
        RELEASED.message("CreateVolumeRequest").FromString(cut)
    except DecodeError:
        refusal(cut)


# The table.


@pytest.mark.parametrize(
    "message",
    [
        csi.ValidateVolumeCapabilitiesResponse(
            confirmed=csi.ValidateVolumeCapabilitiesResponseConfirmed()
        ),
        csi.CreateVolumeRequest(capacity_range=csi.CapacityRange()),
        csi.VolumeCapability(block=csi.VolumeCapabilityBlockVolume()),
    ],
)
def test_p1_an_empty_message_inside_is_sent(message):
    assert bytes(message)[1:] == b"\x00"


def test_p1_google_sees_the_empty_message():
    data = bytes(csi.VolumeCapability(mount=csi.VolumeCapabilityMountVolume()))
    there = RELEASED.message("VolumeCapability").FromString(data)
    assert there.WhichOneof("access_type") == "mount"


def test_p2_an_absent_message_is_none():
    request = decode(b"")
    assert request.capacity_range is None
    assert request.volume_content_source is None
    assert csi.Snapshot().creation_time is None


def test_p2_a_present_empty_message_is_not_none_though_it_is_false():
    request = decode(bytes(csi.CreateVolumeRequest(capacity_range=csi.CapacityRange())))
    assert request.capacity_range is not None
    assert not request.capacity_range


def test_p3_the_other_arm_of_a_oneof_is_none():
    capability = csi.VolumeCapability(block=csi.VolumeCapabilityBlockVolume())
    assert capability.mount is None


def test_p4_both_arms_would_be_sent_so_the_checks_refuse_them():
    both = csi.VolumeCapability(
        block=csi.VolumeCapabilityBlockVolume(), mount=csi.VolumeCapabilityMountVolume()
    )
    assert bytes(both) == b"\x0a\x00\x12\x00"
    # test_requests.py: such a request is INVALID_ARGUMENT.


def test_p5_an_unknown_enum_number_survives_without_a_name():
    mode = CODEC.decode(b"\x08\x63", csi.VolumeCapabilityAccessMode).mode
    assert int(mode) == 99
    assert mode.name == ""
    assert bytes(csi.VolumeCapabilityAccessMode(mode=mode)) == b"\x08\x63"


def test_p6_numbers_out_of_range_do_not_leave_us():
    with pytest.raises(ValueError, match="not representable"):
        bytes(csi.CapacityRange(required_bytes=-(2**63) - 1))


# P8 (secrets in repr): test_requests.py.


def test_p9_a_misspelt_keyword_is_refused():
    with pytest.raises(TypeError):
        csi.CreateVolumeRequest(nmae="x")  # type: ignore[call-arg]  # that is the point


def test_p10_times_are_utc_and_aware():
    moment = dt.datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=dt.UTC)
    data = bytes(csi.Snapshot(creation_time=moment))
    assert CODEC.decode(data, csi.Snapshot).creation_time == moment
    with pytest.raises(ValueError, match="timezone aware"):
        bytes(csi.Snapshot(creation_time=moment.replace(tzinfo=None)))


def test_p10_the_epoch_is_a_time_like_any_other():
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    data = bytes(csi.Snapshot(creation_time=epoch))
    assert RELEASED.message("Snapshot").FromString(data).HasField("creation_time")


def test_p11_a_message_in_two_parts_is_the_last_part():
    # google merges them. No CSI client sends such; this test tells when betterproto2 learns it.
    parts = b"\x12\x02\x08\x05" + b"\x12\x02\x10\x09"
    found = decode(parts).capacity_range
    assert (found.required_bytes, found.limit_bytes) == (0, 9)


def test_p12_wrapped_values_tell_absent_from_zero():
    assert bytes(csi.ProbeResponse(ready=False)) == b"\x0a\x00"
    assert bytes(csi.ProbeResponse(ready=True)) == b"\x0a\x02\x08\x01"
    assert bytes(csi.ProbeResponse()) == b""
    zero = csi.GetCapacityResponse(maximum_volume_size=0)
    assert CODEC.decode(bytes(zero), csi.GetCapacityResponse).maximum_volume_size == 0


def test_maps_with_empty_keys_and_values_survive():
    request = csi.CreateVolumeRequest(parameters={"": "", "a": ""})
    assert decode(bytes(request)).parameters == {"": "", "a": ""}
