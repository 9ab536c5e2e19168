"""The data addresses of an RDS as one text: ``10.0.1.5``, or ``10.0.1.5,10.0.2.5`` for several.

So a StorageClass, the driver's own setting, both contexts and the staging record have them, and
here alone such a text is read and written. A text of one address is what versions wrote that knew
only one.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from rds_csi.errors import InvalidParameter

MOST: Final = 8
"""Addresses of one target: each is a connection of each volume, and has to be tried."""

_FORMS: Final = (
    (re.compile(r"\s"), "has a blank in it", "several addresses have a comma between them, alone"),
    (re.compile(r"://"), "is a URL", "write the address alone"),
    (
        re.compile(r"[0-9.]+:[0-9]+|\[.*\]:[0-9]+"),
        "has a port",
        "the port stands in nvmePort, and is the same at every address",
    ),
    (re.compile(r"\[.*\]"), "has brackets", "IPv6 addresses stand here without them"),
    (re.compile(r"/"), "has a prefix length", "write the address alone"),
)
"""What an address is often mistaken for: how it is known, what it is, what to write instead."""


def read_addresses(key: str, value: str) -> tuple[str, ...]:
    """The IP addresses in the text, each as the kernel spells it, in their order.

    :class:`InvalidParameter` for any that is none or stands there twice, and for none or too many.
    """
    if not value:
        raise InvalidParameter(f"{key}: no IP address is given")
    addresses = [_read_address(key, each) for each in value.split(",")]
    same = [_comparable(each) for each in addresses]
    for number, address in enumerate(addresses):
        if same[number] in same[:number]:
            raise InvalidParameter(
                f"{key}: {address} is named twice",
                advice="each address is one connection; a second one to it is no second way",
            )
    if len(addresses) > MOST:
        raise InvalidParameter(f"{key}: {len(addresses)} addresses are too many, at most {MOST}")
    return tuple(addresses)


def write_addresses(addresses: Sequence[str]) -> str:
    """The text that :func:`read_addresses` reads."""
    return ",".join(addresses)


def _read_address(key: str, value: str) -> str:
    # An address, never a name: the node must not depend on DNS to get its disks back.
    if not value:
        raise InvalidParameter(f"{key}: there is a comma without an IP address beside it")
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise _not_an_address(key, value) from None
    if address.is_unspecified or address.is_multicast:
        raise InvalidParameter(f"{key}: {value[:64]!r} is no address that a machine can have")
    return str(address)


def _not_an_address(key: str, value: str) -> InvalidParameter:
    for form, what, advice in _FORMS:
        if form.search(value):
            return InvalidParameter(
                f"{key}: {value[:64]!r} is not an IP address: it {what}", advice=advice
            )
    return InvalidParameter(
        f"{key}: {value[:64]!r} is not an IP address",
        advice="a name will not do: a node has to get its disks back without DNS",
    )


def _comparable(address: str) -> str:
    """One text for all spellings of the same address; IPv4 may be written as IPv6."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
