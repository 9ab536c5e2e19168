"""A small NVMe/TCP host in user space: enough to see what an export really gives to whom.

It needs no kernel module and no root, so it works where the controller runs. One command at a
time; blocks are read and written one by one. It is for scratch volumes, never for data.

Numbers are those of the NVMe Base, NVM Command Set and NVMe/TCP Transport specifications;
little-endian throughout.
"""

import asyncio
import contextlib
import struct
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

TIMEOUT: Final = 5.0
"""Seconds for one command."""

_IC_REQUEST, _COMMAND, _RESPONSE, _TO_TARGET, _TO_HOST, _READY = 0, 4, 5, 6, 7, 9
_TERMINATE: Final = 3
_HEADER: Final = struct.Struct("<BBBBI")
_LAST: Final = 0x04
_SUCCESS: Final = 0x08
_CAPSULE: Final = 72
"""Bytes of a command's header and entry; data in the capsule follows."""

_SHORTEST, _LONGEST = 24, 1024**2
"""Bytes of a PDU that a target may send: no header is shorter, nothing asked for is longer."""

_FABRICS: Final = 0x7F
_IDENTIFY, _SET_FEATURES, _ASYNC_EVENT = 0x06, 0x09, 0x0C
_WRITE, _READ = 0x01, 0x02
_PROPERTY_SET, _CONNECT, _PROPERTY_GET = 0, 1, 4
_CONFIGURATION, _STATUS = 0x14, 0x1C
_ENABLE: Final = 0x00460001
"""CC: enabled, entries of 64 and 16 bytes."""
_CONTROLLER: Final = 1
"""CNS of Identify; 0 is the namespace."""
_QUEUES, _EVENTS = 0x07, 0x0B
_NAMESPACE_EVENTS: Final = 0x100
_IN_CAPSULE, _BY_TRANSPORT = 0x01, 0x5A
_DEPTH: Final = 32


class TargetError(Exception):
    """The target cannot be reached, hung up, or answered with another status than success."""


class Size(NamedTuple):
    """A namespace: how many blocks of how many bytes."""

    blocks: int
    block: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.blocks * self.block


class _Queue:
    """One connection: a queue pair of the controller."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next = 0
        self._waiting: int | None = None
        self.events = 0
        """How many asynchronous events have come."""

    @classmethod
    async def open(cls, host: str, port: int) -> "_Queue":
        reader, writer = await asyncio.open_connection(host, port)
        queue = cls(reader, writer)
        try:
            await queue._begin()
        except BaseException:
            await queue.close()
            raise
        return queue

    async def _begin(self) -> None:
        self._writer.write(_HEADER.pack(_IC_REQUEST, 0, 128, 0, 128).ljust(128, b"\0"))
        kind, _, answer = await self._receive()
        if kind != 1 or len(answer) != 128:
            raise TargetError(f"it answers the first PDU with type {kind}")

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def command(
        self,
        opcode: int,
        body: bytes = b"",
        *,
        nsid: int = 0,
        fabrics: int | None = None,
        capsule: bytes = b"",
        send: bytes = b"",
        receive: int = 0,
    ) -> tuple[int, bytes]:
        """Run a command; its result and what it returned. ``body`` are its dwords 10 to 15."""
        number = self._send(
            opcode,
            body,
            kind=nsid if fabrics is None else fabrics,
            capsule=capsule,
            length=len(send) or receive,
        )
        data = bytearray(receive)
        while True:
            kind, flags, pdu = await self._receive()
            if kind == _RESPONSE:
                result, _, _, found, status = struct.unpack_from("<QHHHH", pdu, 8)
                if found == self._waiting:
                    self._waiting = None
                    self.events += 1
                    continue
                if status >> 1:
                    raise TargetError(f"status {_words(status >> 1)}")
                return result, bytes(data)
            if kind == _TO_HOST:
                offset, length = struct.unpack_from("<II", pdu, 12)
                data[offset : offset + length] = pdu[pdu[3] : pdu[3] + length]
                if flags & _SUCCESS:
                    return 0, bytes(data)
            elif kind == _READY:
                _, tag, offset, length = struct.unpack_from("<HHII", pdu, 8)
                self._send_data(number, tag, offset, send[offset : offset + length])
            elif kind == _TERMINATE:
                raise TargetError("it ended the connection with an error")
            else:
                raise TargetError(f"it sent a PDU of type {kind}")

    def expect_event(self) -> None:
        """Ask for the next asynchronous event; it is counted when it comes."""
        self._waiting = self._send(_ASYNC_EVENT, b"", kind=0, capsule=b"", length=0)

    async def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long; an event is counted."""
        try:
            async with asyncio.timeout(seconds):
                kind, _, pdu = await self._receive()
        except TimeoutError:
            return True
        if kind == _RESPONSE and struct.unpack_from("<H", pdu, 20)[0] == self._waiting:
            self._waiting = None
            self.events += 1
        return False

    def _send(self, opcode: int, body: bytes, *, kind: int, capsule: bytes, length: int) -> int:
        number, self._next = self._next, (self._next + 1) % 0x8000
        # Where the data is: behind the entry, or sent apart.
        where = (_IN_CAPSULE, len(capsule)) if capsule else (_BY_TRANSPORT, length)
        entry = struct.pack("<BBHI16x", opcode, 0x40, number, kind)
        entry += struct.pack("<QI3xB", 0, where[1], where[0])
        entry += body.ljust(24, b"\0")
        offset = _CAPSULE if capsule else 0
        total = _CAPSULE + len(capsule)
        self._writer.write(_HEADER.pack(_COMMAND, 0, _CAPSULE, offset, total) + entry + capsule)
        return number

    def _send_data(self, number: int, tag: int, offset: int, data: bytes) -> None:
        header = _HEADER.pack(_TO_TARGET, _LAST, 24, 24, 24 + len(data))
        self._writer.write(header + struct.pack("<HHII4x", number, tag, offset, len(data)) + data)

    async def _receive(self) -> tuple[int, int, bytes]:
        """One PDU: its type, its flags, and all of it."""
        try:
            head = await self._reader.readexactly(_HEADER.size)
            kind, flags, _, _, length = _HEADER.unpack(head)
            if not _SHORTEST <= length <= _LONGEST:
                raise TargetError(f"it sent a PDU of {length} bytes")
            rest = await self._reader.readexactly(length - _HEADER.size)
        except (OSError, asyncio.IncompleteReadError):
            raise TargetError("it hung up") from None
        return kind, flags, head + rest


class Initiator:
    """A connection to one subsystem, with namespace 1.

    ``room`` is how many bytes the target takes in the capsule of a command.
    """

    def __init__(self, admin: _Queue, io: _Queue, room: int) -> None:
        self._admin = admin
        self._io = io
        self._room = room

    @property
    def events(self) -> int:
        """How many times the target has announced that something changed."""
        return self._admin.events

    async def size(self) -> Size:
        """The namespace's size, asked anew."""
        async with _in_time():
            return await _size(self._admin)

    async def announced(self, seconds: float) -> bool:
        """Whether the target announces a change, within so many seconds if it has not yet."""
        if not self.events:
            await self._admin.silent(seconds)
        return self.events > 0

    async def read(self, block: int) -> bytes:
        """A block's content."""
        size = await self.size()
        body = struct.pack("<QI", block, 0)
        async with _in_time():
            _, data = await self._io.command(_READ, body, nsid=1, receive=size.block)
        return data

    async def write(self, block: int, data: bytes) -> None:
        """Replace a block's content; shorter data is filled up with zeros."""
        size = await self.size()
        body, data = struct.pack("<QI", block, 0), data.ljust(size.block, b"\0")
        # What fits has to go with the command: Linux 6.1's target never asks for it otherwise.
        capsule, send = (data, b"") if len(data) <= self._room else (b"", data)
        async with _in_time():
            await self._io.command(_WRITE, body, nsid=1, capsule=capsule, send=send)


@asynccontextmanager
async def connected(host: str, port: int, nqn: str, hostnqn: str) -> AsyncIterator[Initiator]:
    """A connection while the block runs. Raises :class:`TargetError` where there is none."""
    queues: list[_Queue] = []
    try:
        async with _in_time():
            admin = await _Queue.open(host, port)
            queues.append(admin)
            controller = await _connect(admin, 0, 0xFFFF, nqn, hostnqn)
            await _enable(admin)
            room = await _room(admin)
            await _feature(admin, _QUEUES, 0)
            await _feature(admin, _EVENTS, _NAMESPACE_EVENTS)
            io = await _Queue.open(host, port)
            queues.append(io)
            await _connect(io, 1, controller, nqn, hostnqn)
            admin.expect_event()
        yield Initiator(admin, io, room)
    except OSError as error:
        raise TargetError(f"{host}:{port} cannot be reached: {error}") from None
    finally:
        for queue in reversed(queues):
            await queue.close()


async def _connect(queue: _Queue, number: int, controller: int, nqn: str, hostnqn: str) -> int:
    identity = uuid.uuid5(uuid.NAMESPACE_URL, hostnqn)
    names = nqn.encode().ljust(256, b"\0") + hostnqn.encode().ljust(256, b"\0")
    data = (identity.bytes + struct.pack("<H", controller)).ljust(256, b"\0") + names
    body = struct.pack("<HHHBxI", 0, number, _DEPTH - 1, 0, 0)
    result, _ = await queue.command(
        _FABRICS, body, fabrics=_CONNECT, capsule=data.ljust(1024, b"\0")
    )
    return result & 0xFFFF


async def _enable(admin: _Queue) -> None:
    body = struct.pack("<IIQ", 0, _CONFIGURATION, _ENABLE)
    await admin.command(_FABRICS, body, fabrics=_PROPERTY_SET)
    while True:
        body = struct.pack("<II", 0, _STATUS)
        status, _ = await admin.command(_FABRICS, body, fabrics=_PROPERTY_GET)
        if status & 1:
            return
        await asyncio.sleep(0.05)


async def _feature(admin: _Queue, feature: int, value: int) -> None:
    await admin.command(_SET_FEATURES, struct.pack("<II", feature, value))


async def _room(admin: _Queue) -> int:
    """Bytes of data that a command on the I/O queue may carry: IOCCSZ, less the entry."""
    _, data = await admin.command(_IDENTIFY, struct.pack("<I", _CONTROLLER), receive=4096)
    return int.from_bytes(data[1792:1796], "little") * 16 - 64


async def _size(admin: _Queue) -> Size:
    _, data = await admin.command(_IDENTIFY, b"", nsid=1, receive=4096)
    blocks = int.from_bytes(data[:8], "little")
    form = data[26] & 0xF
    return Size(blocks, 1 << data[128 + 4 * form + 2])


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT):
            yield
    except TimeoutError:
        raise TargetError(f"no answer within {TIMEOUT:g} s") from None


def _words(status: int) -> str:
    known = {0x182: "connect: invalid parameters", 0x184: "connect: invalid host"}
    code = status & 0x7FF
    return f"{code:#x}" + (f" ({known[code]})" if code in known else "")
