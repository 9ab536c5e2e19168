"""The text of one or several data addresses: each wrong form has its sentence."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import Code, InvalidParameter
from rds_csi.model.data_addresses import MOST, read_addresses, write_addresses

USABLE = st.ip_addresses().filter(
    lambda each: not (each.is_unspecified or each.is_multicast or getattr(each, "scope_id", None))
)


@given(st.lists(USABLE, min_size=1, max_size=MOST, unique_by=str))
def test_what_is_written_is_read(found: list[ipaddress.IPv4Address]) -> None:
    written = write_addresses([str(each) for each in found])
    same = {getattr(each, "ipv4_mapped", None) or each for each in found}
    if len(same) < len(found):
        with pytest.raises(InvalidParameter, match="twice"):
            read_addresses("nvmeAddress", written)
    else:
        assert read_addresses("nvmeAddress", written) == tuple(map(str, found))


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("10.0.1.5", ("10.0.1.5",)),
        ("10.0.2.5,10.0.1.5", ("10.0.2.5", "10.0.1.5")),
        ("FD00:0::5,10.0.1.5", ("fd00::5", "10.0.1.5")),
    ],
)
def test_addresses_keep_their_order_and_get_the_kernels_spelling(
    text: str, addresses: tuple[str, ...]
) -> None:
    assert read_addresses("nvmeAddress", text) == addresses


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no IP address is given"),
        (",", "comma without an IP address"),
        ("10.0.1.5,", "comma without an IP address"),
        (",10.0.1.5", "comma without an IP address"),
        ("10.0.1.5,,10.0.2.5", "comma without an IP address"),
        ("10.0.1.5, 10.0.2.5", "' 10.0.2.5' is not an IP address: it has a blank in it"),
        ("10.0.1.5\n", "has a blank"),
        ("10.0.1.5 10.0.2.5", "has a blank"),
        ("10.0.1.5,10.0.1.5", "10.0.1.5 is named twice"),
        ("fd00::5,10.0.1.5,fd00:0::5", "fd00::5 is named twice"),
        ("10.0.1.5,::ffff:10.0.1.5", "::ffff:.* is named twice"),
        ("10.0.1.5:4420", "it has a port.*nvmePort"),
        ("10.0.1.5,10.0.2.5:4420", "'10.0.2.5:4420' is not an IP address: it has a port"),
        ("[fd00::5]:4420", "has a port"),
        ("[fd00::5]", "it has brackets"),
        ("tcp://10.0.1.5", "it is a URL"),
        ("nvme+tcp://10.0.1.5:4420", "it is a URL"),
        ("10.0.1.5/24", "it has a prefix length"),
        ("fd00::5/64", "it has a prefix length"),
        ("10.0.1.5;10.0.2.5", "is not an IP address"),
        ("rds.example", "'rds.example' is not an IP address.*DNS"),
        ("10.0.1.5,rds", "'rds' is not an IP address"),
        ("10.0.1.300", "is not an IP address"),
        ("10.0.1.5,0.0.0.0", "0.0.0.0' is no address that a machine can have"),
        ("::", "is no address that a machine can have"),
        ("224.0.0.1", "is no address that a machine can have"),
        ("ff02::1,10.0.1.5", "is no address that a machine can have"),
        (",".join(f"10.0.1.{number}" for number in range(MOST + 1)), "9 addresses are too many"),
    ],
)
def test_each_wrong_form_is_told(text: str, why: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"^nvmeAddress: .*{why}") as caught:
        read_addresses("nvmeAddress", text)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_addresses("nvmeAddress", "x" * 10_000)
    assert len(str(caught.value)) < 300
