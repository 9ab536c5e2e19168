"""Whether an address answers, and as what.

An NVMe/TCP port is asked with the first PDU of the protocol (ICReq; NVMe/TCP Transport
Specification, "Initialize Connection"): a target answers it with ICResp, or refuses it with
C2HTermReq, and nothing has begun yet that would have to be ended.
"""

import asyncio
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NamedTuple

TIMEOUT: Final = 3.0
"""Seconds for one address."""

_HEADER: Final = 8
"""Bytes of a PDU's header: type, flags, header length, data offset, length of it all."""
_IC_REQUEST: Final = struct.pack("<BBBBI", 0x00, 0, 128, 0, 128).ljust(128, b"\0")
_IC_RESPONSE: Final = (0x01, 128)
_TERM_REQUEST: Final = (0x03, 24)


class Answer(Enum):
    """What an address does."""

    OPEN = auto()
    """It answers as it should."""
    OTHER = auto()
    """Something is there that is not what was looked for."""
    REFUSED = auto()
    """The machine is there, and nobody listens."""
    SILENT = auto()
    """No answer within the time, or no way there."""


class Reach(NamedTuple):
    """What an address does, in one word and in words."""

    answer: Answer
    found: str


@dataclass(frozen=True, slots=True)
class Service:
    """What is looked for: its name, what to say to it, and how to know it by its first bytes."""

    name: str
    question: bytes
    length: int
    known: Callable[[bytes], bool]


def _is_target(header: bytes) -> bool:
    kind, _, length, _, _ = struct.unpack("<BBBBI", header)
    return (kind, length) in (_IC_RESPONSE, _TERM_REQUEST)


SSH: Final = Service("SSH server", b"", 4, lambda first: first == b"SSH-")
NVME: Final = Service("NVMe/TCP target", _IC_REQUEST, _HEADER, _is_target)


async def reach(host: str, port: int, service: Service, *, seconds: float = TIMEOUT) -> Reach:
    """Whether the service answers at the address, within so many seconds."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(service.question)
            await writer.drain()
            first = await reader.readexactly(service.length)
    except ConnectionRefusedError:
        return Reach(Answer.REFUSED, f"{where} refuses connections")
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        if writer is not None:
            return Reach(Answer.OTHER, f"{where} accepts connections, but is no {service.name}")
        why = "does not answer" if isinstance(error, TimeoutError) else f"is out of reach: {error}"
        return Reach(Answer.SILENT, f"{where} {why}")
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    if not service.known(first):
        return Reach(Answer.OTHER, f"what answers at {where} is no {service.name}")
    return Reach(Answer.OPEN, f"{service.name} answers at {where}")
