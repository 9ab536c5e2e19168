"""The small NVMe/TCP host against targets that misbehave; a good one is in tests/rds."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rds_csi.doctor.rds import initiator
from rds_csi.doctor.rds.initiator import TargetError, connected
from tests.unit.doctor.places import Silent

NQN = "nqn.2000-02.com.mikrotik:x"
HOST = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001"
HEADER = struct.Struct("<BBBBI")
IC_RESPONSE = HEADER.pack(1, 0, 128, 0, 128).ljust(128, b"\0")


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A target that gives one answer to each PDU, and then hangs up; what it was told."""
    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            head = await reader.readexactly(8)
            told.append(head + await reader.readexactly(HEADER.unpack(head)[4] - 8))
            writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], told


def response(status: int = 0, number: int = 0, result: int = 0) -> bytes:
    entry = struct.pack("<QHHHH", result, 0, 0, number, status << 1)
    return HEADER.pack(5, 0, 24, 0, 24) + entry


async def connect(port: int) -> None:
    async with connected("127.0.0.1", port, NQN, HOST):
        pass


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ((), "hung up"),
        ((b"SSH-2.0-x\r\n" + b"\0" * 200,), "a PDU of [0-9]+ bytes"),
        ((b"\0" * 8,), "a PDU of 0 bytes"),
        ((IC_RESPONSE, HEADER.pack(5, 0, 24, 0, 8)), "a PDU of 8 bytes"),
        ((IC_RESPONSE, HEADER.pack(7, 0, 24, 0, 2**31)), "a PDU of 2147483648 bytes"),
        ((response(),), "answers the first PDU with type 5"),
        ((IC_RESPONSE,), "hung up"),
        ((IC_RESPONSE, response(0x4182)), r"0x182 \(connect: invalid parameters\)"),
        ((IC_RESPONSE, response(0x184)), r"0x184 \(connect: invalid host\)"),
        ((IC_RESPONSE, response(0x006)), "status 0x6$"),
        ((IC_RESPONSE, HEADER.pack(3, 0, 24, 0, 24).ljust(24, b"\0")), "ended the connection"),
        ((IC_RESPONSE, HEADER.pack(99, 0, 24, 0, 24).ljust(24, b"\0")), "type 99"),
        ((IC_RESPONSE, response(), response(0x002, 1)), "status 0x2"),
    ],
)
async def test_whatever_a_target_does_is_one_kind_of_error(
    answers: tuple[bytes, ...], says: str
) -> None:
    async with answering(*answers) as (port, _):
        with pytest.raises(TargetError, match=says):
            await connect(port)


async def test_nobody_listens(unused_tcp_port: int) -> None:
    with pytest.raises(TargetError, match="cannot be reached"):
        await connect(unused_tcp_port)


async def test_a_target_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(initiator, "TIMEOUT", 0.05)
    silent = Silent()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        with pytest.raises(TargetError, match="no answer within"):
            await connect(server.sockets[0].getsockname()[1])
        await silent.gone.wait()


async def test_the_connect_command_byte_by_byte() -> None:
    """NVMe over Fabrics: offsets of the command and of its data."""
    async with answering(IC_RESPONSE, response(0x184)) as (port, told):
        with pytest.raises(TargetError):
            await connect(port)
    request, command = told
    assert request == HEADER.pack(0, 0, 128, 0, 128).ljust(128, b"\0")
    assert HEADER.unpack(command[:8]) == (4, 0, 72, 72, 72 + 1024)
    entry, data = command[8:72], command[72:]
    assert entry[0] == 0x7F
    assert entry[1] == 0x40
    assert entry[4] == 1
    assert struct.unpack_from("<QI", entry, 24) == (0, 1024)
    assert entry[39] == 0x01
    assert struct.unpack_from("<HHH", entry, 40) == (0, 0, 31)
    assert data[:16] != bytes(16)
    assert struct.unpack_from("<H", data, 16) == (0xFFFF,)
    assert data[256:512].rstrip(b"\0").decode() == NQN
    assert data[512:768].rstrip(b"\0").decode() == HOST


async def test_two_hosts_have_two_host_ids() -> None:
    """The kernel's target refuses one id under two names; so does RouterOS, if it is that."""
    seen = []
    for host in (HOST, HOST[:-1] + "2"):
        async with answering(IC_RESPONSE, response(0x184)) as (port, told):
            with pytest.raises(TargetError):
                async with connected("127.0.0.1", port, NQN, host):
                    pass
        seen.append(told[1][72:88])
    assert seen[0] != seen[1]
