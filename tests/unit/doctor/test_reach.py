"""What answers at an address, and what only seems to."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from rds_csi.doctor.check import Checks, Status
from rds_csi.doctor.node.checks import check_nvme
from rds_csi.doctor.reach import NVME, SSH, Answer, Service, reach
from tests.unit.doctor.places import Silent

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
IC_RESPONSE = struct.pack("<BBBBI", 1, 0, 128, 0, 128).ljust(128, b"\0")
TERM_REQUEST = struct.pack("<BBBBI", 3, 0, 24, 0, 24).ljust(24, b"\0")


@asynccontextmanager
async def serving(answer: bytes, *, heard: list[bytes] | None = None) -> AsyncIterator[int]:
    """A port that answers so; None of it where the answer is empty, and then it hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if heard is not None:
            heard.append(await reader.readexactly(128))
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("service", "answer", "expected"),
    [
        (SSH, b"SSH-2.0-ROSSSH\r\n", Answer.OPEN),
        (SSH, b"220 ftp\r\n", Answer.OTHER),
        (SSH, b"", Answer.OTHER),
        (NVME, IC_RESPONSE, Answer.OPEN),
        (NVME, TERM_REQUEST, Answer.OPEN),
        (NVME, b"HTTP/1.1 400 Bad Request\r\n", Answer.OTHER),
        (NVME, IC_RESPONSE[:4], Answer.OTHER),
        (NVME, b"\x01" * 8, Answer.OTHER),
    ],
)
async def test_what_answers(service: Service, answer: bytes, expected: Answer) -> None:
    async with serving(answer) as port:
        found = await reach("127.0.0.1", port, service)
    assert found.answer is expected
    assert f"127.0.0.1:{port}" in found.found


async def test_a_target_is_asked_with_the_first_pdu_of_the_protocol() -> None:
    heard: list[bytes] = []
    async with serving(IC_RESPONSE, heard=heard) as port:
        await reach("127.0.0.1", port, NVME)
    [request] = heard
    assert struct.unpack("<BBBBI", request[:8]) == (0, 0, 128, 0, 128)
    assert request[8:] == bytes(120)


async def test_nobody_listens(unused_tcp_port: int) -> None:
    found = await reach("127.0.0.1", unused_tcp_port, SSH)
    assert found.answer is Answer.REFUSED


async def test_a_port_that_says_nothing_is_not_waited_for() -> None:
    silent = Silent()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await reach("127.0.0.1", port, SSH, seconds=0.05)
        await silent.gone.wait()
    assert found.answer is Answer.OTHER


async def test_no_way_there() -> None:
    found = await reach("name.invalid", 22, SSH)
    assert found.answer is Answer.SILENT
    assert "name.invalid:22" in found.found


async def test_an_address_of_version_6_is_written_with_brackets() -> None:
    found = await reach("::1", 1, SSH)
    assert found.found.startswith("[::1]:1 ")


@pytest.mark.parametrize(("exported", "status"), [(False, Status.WARNING), (True, Status.FAILED)])
async def test_a_closed_nvme_port_is_a_fault_only_if_something_is_exported(
    unused_tcp_port: int, *, exported: bool, status: Status
) -> None:
    checks = Checks()
    await check_nvme(checks, (("127.0.0.1", unused_tcp_port),), exported=exported)
    assert [check.status for check in checks] == [status]


async def test_another_service_at_the_nvme_port_is_a_fault() -> None:
    checks = Checks()
    async with serving(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        await check_nvme(checks, (("127.0.0.1", port),), exported=False)
    assert checks.failed


async def test_each_address_is_tried_and_those_that_answer_are_told(unused_tcp_port: int) -> None:
    """One is enough for the volumes; that another does not answer is a failure all the same."""
    checks = Checks()
    async with serving(IC_RESPONSE) as port:
        addresses = (("127.0.0.1", unused_tcp_port), ("127.0.0.1", port))
        assert await check_nvme(checks, addresses, exported=True) == [("127.0.0.1", port)]
    assert [check.status for check in checks] == [Status.FAILED, Status.OK]
