"""An NVMe/TCP target in user space, as the simulator's exporter: for machines without nvmet.

As much of one as the doctor's host speaks to; the kernel tests have the same host speak to the
real one. It allows what the specifications allow and nothing more: what is malformed ends the
connection with an error, so that a sloppy host fails here.
"""

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Final

from rds_csi.simulator.device.export import Bookkeeper, Export

HEADER: Final = struct.Struct("<BBBBI")
BLOCK: Final = 512
CONNECT_INVALID_PARAMETERS, CONNECT_INVALID_HOST, INVALID_OPCODE = 0x182, 0x184, 0x001
LBA_OUT_OF_RANGE: Final = 0x080


class Malformed(Exception):
    """The host did what no host may."""


@dataclass
class Session:
    """One controller: the queues of one host."""

    export: Export
    host: bytes
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    enabled: bool = False
    waiting: int | None = None
    """The id of the command that waits for an event."""


class UserTarget(Bookkeeper):
    """``Simulator(export=UserTarget())``; ``port`` is known once it started.

    ``room``: bytes of data that commands carry; like Linux 6.1's target, it waits for what fits
    to come so, for ever. ``host``: where it listens.
    """

    def __init__(self, *, room: int = 0, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.room = room
        self.host = host
        self.port = 0
        self._server: asyncio.Server | None = None
        self._sessions: dict[int, Session] = {}
        self._writers: set[asyncio.StreamWriter] = set()

    # The simulator's side

    async def start(self, boot: int) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        await super().stop()
        if self._server:
            self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def export(self, export: Export) -> None:
        await super().export(export)
        for session in self._of(export.disk):
            if session.export.nqn != export.nqn:
                self._end(session)
            session.export = export

    async def unexport(self, disk: int) -> None:
        await super().unexport(disk)
        for session in self._of(disk):
            self._end(session)

    async def announce(self, disk: int) -> None:
        await super().announce(disk)
        for session in self._of(disk):
            if session.waiting is not None:
                self._respond(session.writers[0], session.waiting, 0x02 | 4 << 16)
                session.waiting = None

    async def sever(self, disk: int) -> None:
        for session in self._of(disk):
            if not self._admits(session.export, session.host):
                self._end(session)

    def _of(self, disk: int) -> list[Session]:
        return [each for each in self._sessions.values() if each.export.disk == disk]

    # The host's side

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except Malformed:
            writer.write(HEADER.pack(3, 0, 24, 0, 24).ljust(24, b"\0"))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, request = await self._pdu(reader)
        if kind != 0 or len(request) != 128:
            raise Malformed
        writer.write(HEADER.pack(1, 0, 128, 0, 128).ljust(128, b"\0"))
        session: Session | None = None
        while True:
            kind, pdu = await self._pdu(reader)
            if kind != 4 or pdu[2] != 72:
                raise Malformed
            opcode, flags, number = struct.unpack_from("<BBH", pdu, 8)
            if flags != 0x40:
                raise Malformed
            if opcode == 0x7F and pdu[12] == 1:
                session = self._connect(writer, number, pdu)
            elif session is None:
                raise Malformed
            else:
                await self._command(session, reader, writer, pdu)

    def _connect(self, writer: asyncio.StreamWriter, number: int, pdu: bytes) -> Session | None:
        kind, queue, size = struct.unpack_from("<HHH", pdu, 8 + 40)
        data = pdu[pdu[3] :]
        if kind != 0 or size == 0 or len(data) != 1024 or pdu[8 + 39] != 0x01:
            raise Malformed
        controller = struct.unpack_from("<H", data, 16)[0]
        nqn, host = (data[at : at + 256].rstrip(b"\0") for at in (256, 512))
        found = next((each for each in self.exports.values() if each.nqn == nqn.decode()), None)
        if found is None:
            return self._respond(writer, number, 0, CONNECT_INVALID_PARAMETERS)
        if not self._admits(found, host):
            return self._respond(writer, number, 0, CONNECT_INVALID_HOST)
        if queue:
            session = self._sessions[controller]
            if session.host != host or not session.enabled:
                raise Malformed
        elif controller != 0xFFFF:
            raise Malformed
        else:
            controller = len(self._sessions) + 1
            session = self._sessions[controller] = Session(found, host)
        session.writers.append(writer)
        self._respond(writer, number, controller)
        return session

    async def _command(
        self,
        session: Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pdu: bytes,
    ) -> None:
        opcode, _, number = struct.unpack_from("<BBH", pdu, 8)
        admin = writer is session.writers[0]
        first, second = struct.unpack_from("<II", pdu, 8 + 40)
        match (admin, opcode):
            case (True, 0x7F) if pdu[12] == 0:
                session.enabled = second == 0x14 and pdu[8 + 48] & 1 == 1
                self._respond(writer, number)
            case (True, 0x7F) if pdu[12] == 4:
                self._respond(writer, number, int(session.enabled and second == 0x1C))
            case (True, 0x09) if session.enabled:
                self._respond(writer, number)
            case (True, 0x0C) if session.enabled:
                session.waiting = number
            case (True, 0x06) if session.enabled and first == 0:
                blocks = self._size(session) // BLOCK
                data = bytearray(4096)
                data[:8] = blocks.to_bytes(8, "little")
                data[130] = 9
                self._send(writer, number, bytes(data))
            case (True, 0x06) if session.enabled and first == 1:
                data = bytearray(4096)
                data[1792:1796] = ((64 + self.room) // 16).to_bytes(4, "little")
                self._send(writer, number, bytes(data))
            case (False, 0x01 | 0x02):
                await self._block(session, reader, writer, pdu)
            case _:
                self._respond(writer, number, 0, INVALID_OPCODE)

    async def _block(
        self,
        session: Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pdu: bytes,
    ) -> None:
        opcode, _, number = struct.unpack_from("<BBH", pdu, 8)
        block, count = struct.unpack_from("<QH", pdu, 8 + 40)
        length = struct.unpack_from("<I", pdu, 8 + 32)[0]
        if length != (count + 1) * BLOCK or pdu[12] != 1:
            raise Malformed
        with session.export.path.open("r+b") as file:
            if (block + 1) * BLOCK > self._size(session):
                self._respond(writer, number, 0, LBA_OUT_OF_RANGE)
                return
            file.seek(block * BLOCK)
            if opcode == 0x02:
                self._send(writer, number, file.read(length))
                return
            file.write(await self._written(reader, writer, pdu, length))
        self._respond(writer, number)

    def _size(self, session: Session) -> int:
        return self.namespaces[session.export.disk].size

    async def _written(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pdu: bytes, length: int
    ) -> bytes:
        """What the host writes: in the capsule, or sent when it is told to."""
        if pdu[8 + 39] == 0x01:
            if length > self.room or len(pdu) != pdu[3] + length:
                raise Malformed
            return pdu[pdu[3] :]
        if length <= self.room:
            await reader.read()
            raise Malformed
        (number,) = struct.unpack_from("<H", pdu, 10)
        writer.write(HEADER.pack(9, 0, 24, 0, 24) + struct.pack("<HHII4x", number, 7, 0, length))
        kind, data = await self._pdu(reader)
        if kind != 6 or struct.unpack_from("<HHII", data, 8) != (number, 7, 0, length):
            raise Malformed
        return data[data[3] :]

    @staticmethod
    async def _pdu(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = await reader.readexactly(8)
        kind, _, _, _, length = HEADER.unpack(head)
        return kind, head + await reader.readexactly(length - 8)

    @staticmethod
    def _admits(export: Export, host: bytes) -> bool:
        return not export.hosts or host.decode() in export.hosts

    @staticmethod
    def _respond(
        writer: asyncio.StreamWriter, number: int, result: int = 0, status: int = 0
    ) -> None:
        entry = struct.pack("<QHHHH", result, 0, 0, number, status << 1)
        writer.write(HEADER.pack(5, 0, 24, 0, 24) + entry)

    def _send(self, writer: asyncio.StreamWriter, number: int, data: bytes) -> None:
        """In two parts, and a response of its own: what a host must be able to take."""
        half = len(data) // 2
        for offset in (0, half):
            part = data[offset : offset + half]
            header = struct.pack("<HxxII4x", number, offset, len(part))
            last = 0x04 if offset else 0
            writer.write(HEADER.pack(7, last, 24, 24, 24 + len(part)) + header + part)
        self._respond(writer, number)

    @staticmethod
    def _end(session: Session) -> None:
        for writer in session.writers:
            writer.close()
