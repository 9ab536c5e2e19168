"""One command on one channel: what was printed, whether it was sent, and what that proves.

Against a channel of the test's own; with real SSH it is proven in test_session_traps.py.
"""

import asyncio
from typing import Any, cast

import asyncssh
import pytest

from rds_csi.errors import (
    NotReady,
    OutcomeUnknown,
    ReplyTooLong,
    RouterOSError,
    Unavailable,
)
from rds_csi.routeros.exchange import Exchange
from rds_csi.routeros.reply import Reply

NONCE = "0123456789abcdef"


class FakeChannel:
    """Notes whether it was closed."""

    def __init__(self) -> None:
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


class FakeConnection:
    """Opens a channel when the test says so."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.made = asyncio.Event()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.channel = FakeChannel()
        self.refusal: Exception | None = None
        self.after: Exception | None = None
        self.exchange: Exchange | None = None

    async def create_session(self, factory: Any, line: str, **options: Any) -> None:
        self.asked.append((line, options))
        await self.opened.wait()
        if self.refusal is not None:
            raise self.refusal
        self.exchange = factory()
        self.exchange.connection_made(cast("Any", self.channel))
        self.made.set()
        if self.after is not None:
            raise self.after


def started(limit: int = 100) -> tuple[Exchange, FakeConnection, asyncio.Task[None]]:
    exchange, connection = Exchange(limit), FakeConnection()
    task = asyncio.create_task(exchange.run(cast("Any", connection), "LINE"))
    return exchange, connection, task


async def opened(limit: int = 100) -> tuple[Exchange, FakeConnection, asyncio.Task[None]]:
    exchange, connection, task = started(limit)
    connection.opened.set()
    await connection.made.wait()
    return exchange, connection, task


async def test_output_of_both_streams_is_kept_in_its_order() -> None:
    exchange, connection, task = await opened()
    assert connection.asked == [("LINE", {"encoding": None, "request_pty": False})]
    exchange.data_received(b"a", None)
    exchange.data_received(b"b", asyncssh.EXTENDED_DATA_STDERR)
    exchange.data_received(b"c", None)
    exchange.exit_status_received(0)
    exchange.connection_lost(None)
    await task
    assert bytes(exchange.output) == b"abc"
    assert (exchange.complete, exchange.status) == (True, 0)


async def test_nothing_counts_as_sent_before_the_channel_is_open() -> None:
    exchange, connection, task = started()
    await asyncio.sleep(0)
    assert not exchange.sent
    connection.refusal = asyncssh.ChannelOpenError(4, "too many")
    connection.opened.set()
    with pytest.raises(Unavailable, match="no channel to the RDS: too many") as caught:
        await task
    assert not isinstance(caught.value, OutcomeUnknown)
    assert exchange.closed.done()


@pytest.mark.parametrize("error", [asyncssh.ConnectionLost("gone"), OSError("reset")])
async def test_what_breaks_after_it_was_sent_leaves_the_outcome_open(error: Exception) -> None:
    _, connection, task = started()
    connection.after = error
    connection.opened.set()
    with pytest.raises(OutcomeUnknown, match="broke after sending"):
        await task


async def test_up_to_the_limit_and_no_byte_more() -> None:
    exchange, connection, task = await opened(limit=4)
    exchange.data_received(b"ab", None)
    exchange.data_received(b"cd", None)
    assert bytes(exchange.output) == b"abcd"
    assert connection.channel.aborted == 0
    exchange.data_received(b"e", None)
    assert connection.channel.aborted == 1
    # What nobody will read is not kept while the channel closes.
    assert not exchange.output
    exchange.connection_lost(None)
    with pytest.raises(ReplyTooLong, match="more than 4 bytes"):
        await task


async def test_cancelled_it_closes_its_channel() -> None:
    exchange, connection, task = await opened()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert connection.channel.aborted == 1
    assert exchange.sent


async def test_cancelled_while_the_channel_opens_nothing_is_sent_later() -> None:
    exchange, connection, task = started()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    connection.opened.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert connection.channel.aborted == 1
    assert not exchange.sent


async def test_cancelled_while_it_is_refused_nobody_misses_the_error() -> None:
    exchange, connection, task = started()
    await asyncio.sleep(0)
    connection.refusal = asyncssh.ConnectionLost("gone")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    connection.opened.set()
    await exchange.closed


async def ended(output: bytes, *, complete: bool) -> Exchange:
    """An exchange whose channel closed after this output."""
    exchange = Exchange(10**6)
    exchange.data_received(output, None)
    if complete:
        exchange.exit_status_received(0)
    exchange.connection_lost(None)
    # asyncssh may tell it twice.
    exchange.connection_lost(None)
    return exchange


@pytest.mark.parametrize("complete", [True, False])
class TestConclusion:
    async def test_the_marker_is_proof_by_itself(self, complete: bool) -> None:
        good = await ended(f"disk\r\n[]\r\nCSI-OK-{NONCE}\r\n".encode(), complete=complete)
        assert good.conclude(NONCE) == Reply(("disk", "[]"))
        bad = await ended(f"CSI-ERR-{NONCE} no such item\r\n".encode(), complete=complete)
        assert bad.conclude(NONCE) == Reply((), "no such item")

    @pytest.mark.parametrize(
        "output", [b"", b"disk\r\n[]\r\n", b"CSI-OK-fedcba9876543210", b"\xff\xfe", b"interrupted"]
    )
    async def test_anything_else_leaves_the_outcome_open(
        self, complete: bool, output: bytes
    ) -> None:
        exchange = await ended(output, complete=complete)
        with pytest.raises(OutcomeUnknown, match="without its marker") as caught:
            exchange.conclude(NONCE)
        assert ("connection lost" in str(caught.value)) is not complete

    async def test_a_line_that_was_refused_as_a_whole_is_an_answer_only_to_its_end(
        self, complete: bool
    ) -> None:
        exchange = await ended(b"bad command name disk (line 1 column 2)\r\n", complete=complete)
        with pytest.raises(NotReady if complete else OutcomeUnknown):
            exchange.conclude(NONCE)

    async def test_one_that_had_begun_was_not_refused(self, complete: bool) -> None:
        """Text of ours before it: the line ran, so nobody knows how far."""
        exchange = await ended(b"adding\r\nsyntax error (line 1 column 2)\r\n", complete=complete)
        with pytest.raises(OutcomeUnknown):
            exchange.conclude(NONCE)

    async def test_a_long_output_is_told_by_its_beginning_and_its_end(self, complete: bool) -> None:
        exchange = await ended(b"BEGIN" + b"x" * 500_000 + b"END", complete=complete)
        with pytest.raises(OutcomeUnknown) as caught:
            exchange.conclude(NONCE)
        text = str(caught.value)
        assert "BEGIN" in text
        assert "END" in text
        assert len(text) < 3000

    async def test_the_output_is_not_kept_beside_the_reply(self, complete: bool) -> None:
        exchange = await ended(f"CSI-OK-{NONCE}".encode(), complete=complete)
        exchange.conclude(NONCE)
        assert not exchange.output


async def test_an_unknown_refusal_is_kept_as_it_came() -> None:
    exchange = await ended(b"expected end of command (line 1 column 9)", complete=True)
    with pytest.raises(RouterOSError, match="expected end of command"):
        exchange.conclude(NONCE)
