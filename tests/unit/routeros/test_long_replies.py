"""Replies that are too long for the memory or for the event loop."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from rds_csi.errors import ReplyTooLong
from rds_csi.routeros import exchange, reply
from rds_csi.routeros.disks import Disks
from rds_csi.routeros.reply import Reply
from rds_csi.routeros.session import Session
from tests.unit.fakes.ssh import FakeRds, Process

OWNER = "rds.csi.mikrotik.com/test"


def disks(session: Session) -> Disks:
    return Disks(session, owner=OWNER, base_path="raid10/csi")


class Padded:
    """Answers a query of disks with no disk and so many spaces; counts who asks at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked = 0
        self.now = 0
        self.most = 0

    async def __call__(self, process: Process, nonce: str, command: str) -> None:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.05)
        heading = "disks" if '"disks"' in command else "disk"
        process.stdout.write(f"{heading}\r\n[{' ' * self.size}]\r\nCSI-OK-{nonce}\r\n".encode())
        self.now -= 1
        process.exit(0)


async def test_a_listing_may_be_longer_than_the_reply_about_one_volume(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings(command_timeout=30.0))
        rds.answer = Padded(2 * 1024**2)
        assert await disks(session).list() == []
        with pytest.raises(ReplyTooLong, match="1048576 bytes"):
            await disks(session).get("pvc-1")
        await session.close()


async def test_a_reply_that_is_too_long_is_not_asked_for_again(tmp_path: Path) -> None:
    """Unlike other reads without an answer: it would be as long again."""
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings(maximum_output=100_000))
        rds.answer = answer = Padded(200_000)
        with pytest.raises(ReplyTooLong, match="100000 bytes"):
            await disks(session).list()
        assert answer.asked == 1
        await session.close()


async def test_there_is_one_listing_at_a_time_and_other_replies_meanwhile(tmp_path: Path) -> None:
    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        rds.answer = answer = Padded(10)
        ours = disks(session)
        assert await asyncio.gather(*(ours.list() for _ in range(4))) == [[]] * 4
        assert answer.most == 1
        await asyncio.gather(ours.list(), *(ours.get("pvc-1") for _ in range(2)),
                             return_exceptions=True)  # fmt: skip
        assert answer.most == 3
        await session.close()


@pytest.mark.parametrize(("size", "in_thread"), [(1000, False), (1_000_000, True)])
async def test_a_long_reply_is_taken_apart_off_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, in_thread: bool
) -> None:
    threads: list[bool] = []
    read = reply.read

    def watched(text: str, nonce: str) -> Reply | None:
        threads.append(threading.current_thread() is not threading.main_thread())
        return read(text, nonce)

    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        rds.answer = Padded(size)
        await session.execute("first")
        monkeypatch.setattr(exchange, "read", watched)
        await session.execute("x")
        assert threads == [in_thread]
        await session.close()


async def test_long_output_that_is_no_reply_is_quoted_in_part(tmp_path: Path) -> None:
    async def garbage(process: Process, _nonce: str, _command: str) -> None:
        process.stdout.write(b"begin " + b"x" * 3_000_000 + b" end")
        process.exit(0)

    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        rds.answer = garbage
        with pytest.raises(
            Exception, match=r"without its marker: 'begin x.* \.\.\. x+ end'"
        ) as told:
            await session.execute("x")
        assert len(str(told.value)) < 3000
        await session.close()


async def test_an_item_in_the_middle_of_a_listing_that_is_none_hides_nothing(
    tmp_path: Path,
) -> None:
    """A listing that is cut raises; it is never taken for a shorter one."""

    async def cut(process: Process, nonce: str, _command: str) -> None:
        text = json.dumps([{"slot": "a", "size": 1}] * 3)[:-5]
        process.stdout.write(f"disks\r\n{text}\r\nCSI-OK-{nonce}\r\n".encode())
        process.exit(0)

    async with FakeRds(tmp_path) as rds:
        session = Session(rds.settings())
        rds.answer = cut
        with pytest.raises(Exception, match="printed no JSON below 'disks'"):
            await disks(session).list()
        await session.close()
