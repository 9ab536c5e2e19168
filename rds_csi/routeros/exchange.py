"""One command on one channel: what was printed, and whether it was sent at all.

A callback session instead of asyncssh's process object: it tells the moment between "channel
open" and "command sent", bounds the output as it arrives, and lets a cancelled caller leave
without leaving the channel behind.
"""

import asyncio
from typing import Final

import asyncssh

from rds_csi.errors import OutcomeUnknown, ReplyTooLong, Unavailable
from rds_csi.routeros.failures import explain, rejected
from rds_csi.routeros.reply import Reply, decode, excerpt, read

_SAMPLE: Final = 64 * 1024
"""Bytes of the beginning and of the end of an output that is no reply."""


class Exchange(asyncssh.SSHClientSession[bytes]):
    """One command and its output. Use once."""

    def __init__(self, maximum_output: int) -> None:
        self.sent = False
        """Whether the command may have reached the other side."""
        self.complete = False
        """Whether the other side ended the command itself and said so."""
        self.status: int | None = None
        """The exit status, where one came. Proves nothing: RouterOS says 0 to failures too."""
        self.output = bytearray()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the channel is gone, or never came to be."""
        self._maximum = maximum_output
        self._overflow = False
        self._abandoned = False
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._opening: asyncio.Task[object] | None = None

    async def run(self, connection: asyncssh.SSHClientConnection, line: str) -> None:
        """Send ``line`` and wait until the channel closes; ``output`` holds what came.

        Raises :class:`Unavailable` if the line was not sent, :class:`OutcomeUnknown` if the
        channel broke after it was. A lost connection does not always raise: asyncssh then just
        ends the channel without an exit status (``complete`` stays false).
        Cancelled, it closes the channel, if need be as soon as it opens.
        """
        self._opening = asyncio.ensure_future(
            connection.create_session(lambda: self, line, encoding=None, request_pty=False)
        )
        self._opening.add_done_callback(self._opened)
        try:
            await asyncio.shield(self._opening)
            await asyncio.shield(self.closed)
        except asyncio.CancelledError:
            self._abandon()
            raise
        except (asyncssh.Error, OSError) as error:
            if self.sent:
                raise OutcomeUnknown(f"the connection broke after sending: {error}") from error
            raise Unavailable(f"no channel to the RDS: {error}") from error
        if self._overflow:
            raise ReplyTooLong(
                f"the RDS printed more than {self._maximum} bytes in answer to one command",
                advice="10,000 volumes take half of what a listing may: how many disks does "
                "/disk/print count-only say it has, and is it the RDS that answers there?",
            )

    def conclude(self, nonce: str) -> Reply:
        """The reply, if the output proves how the command ended.

        The marker is proof by itself, with or without an exit status. Without it, only RouterOS's
        refusal to run the line is an answer, raised as ``failures.explain`` has it. Everything
        else raises :class:`OutcomeUnknown`, with the output as it came. To be called once: a long
        output is not kept beside what is made of it.
        """
        sample = self.output
        if len(sample) > 2 * _SAMPLE:
            sample = sample[:_SAMPLE] + b" ... " + sample[-_SAMPLE:]
        reply = read(decode(self._taken()), nonce)
        if reply is not None:
            return reply
        text = decode(sample)
        if self.complete and rejected(text):
            raise explain(text)
        raise OutcomeUnknown(
            "the reply of the RDS ended without its marker"
            f"{'' if self.complete else ' (connection lost)'}: {excerpt(text)!r}"
        )

    def _taken(self) -> bytearray:
        output, self.output = self.output, bytearray()
        return output

    def _abandon(self) -> None:
        self._abandoned = True
        if self._channel is not None:
            self._channel.abort()

    def _opened(self, opening: "asyncio.Task[object]") -> None:
        # Retrieves the exception, which nobody else does once the caller has left.
        failed = opening.cancelled() or opening.exception() is not None
        if failed and self._channel is None and not self.closed.done():
            self.closed.set_result(None)

    # asyncssh's side

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """The channel is open; asyncssh sends the command when this returns."""
        self._channel = chan
        if self._abandoned:
            chan.abort()
        else:
            self.sent = True

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:  # noqa: ARG002
        """Keep what is printed, on either stream, up to the limit."""
        if len(self.output) + len(data) > self._maximum:
            self._overflow = True
            self.output = bytearray()
            if self._channel is not None:
                self._channel.abort()
        else:
            self.output += data

    def exit_status_received(self, status: int) -> None:
        """The command ended."""
        self.status = status
        self.complete = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - see ``complete``
        """The channel is gone."""
        if not self.closed.done():
            self.closed.set_result(None)
