"""Run a program: with a deadline, in a process group of its own, and never leaving it behind.

Every program runs in a session of its own (``setsid``), so that ending it ends whatever it
started; its standard input is ``/dev/null`` and its environment is what we say, nothing else.

Three things make this longer than ``subprocess.run``:

* grpclib cancels a handler several times over, and a cancelled start can orphan a child
  (python/cpython#103847). So a program is watched by a task that nobody cancels; a cancelled
  caller asks it to stop, waits for the end of the clean-up, and only then lets go.
* A child may hold a pipe open after its parent died, or ignore SIGTERM: the whole group gets
  SIGTERM, then SIGKILL.
* A process in uninterruptible sleep (``nvme disconnect`` on a dead network, for one) survives
  SIGKILL. Then the caller gets :class:`CommandStuck`, whose ``gone`` event tells the end of it.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from rds_csi.errors import (
    CommandFailed,
    CommandStuck,
    CommandTimeout,
    NotReady,
    ShuttingDown,
    Unavailable,
)
from rds_csi.runtime.causes import note

log = structlog.get_logger(__name__)

ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
}
"""What a program sees. The C locale keeps error texts in the language we compare with."""

PACKAGES: Final[Mapping[str, str]] = {
    "blkid": "util-linux",
    "blockdev": "util-linux",
    "dmsetup": "dmsetup",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "fsck.ext4": "e2fsprogs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "modprobe": "kmod",
    "mount": "mount",
    "nvme": "nvme-cli",
    "resize2fs": "e2fsprogs",
    "stat": "coreutils",
    "tune2fs": "e2fsprogs",
    "umount": "mount",
    "xfs_admin": "xfsprogs",
    "xfs_growfs": "xfsprogs",
    "xfs_logprint": "xfsprogs",
    "xfs_repair": "xfsprogs",
}
"""Which Debian package brings a program."""

TERM_GRACE: Final = 0.5
"""Seconds a program has to end by itself after SIGTERM."""
KILL_GRACE: Final = 3.0
"""Seconds after SIGKILL until a program counts as stuck. Leaving the kernel takes a while: an
``nvme connect`` that was killed on a busy machine was seen to take more than one."""
OUTPUT_LIMIT: Final = 1024 * 1024
"""Bytes kept of each output; what comes after them is read and dropped."""
STUCK_LIMIT: Final = 32
"""So many stuck programs mean that the node is wedged: starting more only adds to them."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a program left: its exit status (negative: the signal that ended it) and output."""

    returncode: int
    stdout: str
    stderr: str


class Runner(Protocol):
    """Where programs are run."""

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the deadline ends a program, not a coroutine
        volume: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run ``args`` to its end, at most ``timeout`` seconds; ``volume`` is for the error.

        ``environment`` is added to :data:`ENVIRONMENT`. Raises :class:`CommandFailed` for a
        status that is not 0 (unless ``check`` is off), :class:`CommandTimeout` when it had to be
        killed, :class:`CommandStuck` when that did not help, :class:`NotReady` when the program
        is missing. Whatever is raised, cancellation included, no process is left behind, unless
        it is :class:`CommandStuck`.
        """


class _Child(asyncio.SubprocessProtocol):
    """Collects the output of one program and tells of its end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._output = {1: bytearray(), 2: bytearray()}
        self.exited = asyncio.Event()
        self.finished = asyncio.Event()
        """Exited, and nobody holds its output open any more."""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self._output[fd]
        kept += data[: self._limit - len(kept)]

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.finished.set()

    def text(self, fd: int) -> str:
        return self._output[fd].decode(errors="replace")


@dataclass(slots=True, eq=False)
class _Run:
    """One program on its way: what it is, and the wish that it end."""

    args: Sequence[str]
    timeout: float
    volume: str
    stop: asyncio.Event

    @property
    def program(self) -> str:
        return os.path.basename(self.args[0])  # noqa: PTH119 - a name, not a path


class SubprocessRunner:
    """Runs programs on this machine.

    ``signal_group`` sends a signal to a process group; tests replace it to make a program that
    cannot be killed.
    """

    def __init__(
        self,
        *,
        term_grace: float = TERM_GRACE,
        kill_grace: float = KILL_GRACE,
        output_limit: int = OUTPUT_LIMIT,
        stuck_limit: int = STUCK_LIMIT,
        signal_group: Callable[[int, int], None] = os.killpg,
    ) -> None:
        self._graces = ((signal.SIGTERM, term_grace), (signal.SIGKILL, kill_grace))
        self._output_limit = output_limit
        self._stuck_limit = stuck_limit
        self._signal_group = signal_group
        self._running: dict[_Run, asyncio.Task[Result]] = {}
        self._stuck: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def stuck(self) -> int:
        """How many killed programs have not died yet."""
        return len(self._stuck)

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - as above
        volume: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """See :meth:`Runner.run`.

        A cancelled caller gets its ``CancelledError`` after the program is gone; if it is stuck,
        :class:`CommandStuck` instead, for then the volume must stay locked.
        """
        run = _Run(args, timeout, volume, asyncio.Event())
        self._check_ready(run)
        body = asyncio.create_task(
            self._body(run, {**ENVIRONMENT, **(environment or {})}), name=f"run {run.program}"
        )
        self._running[run] = body
        body.add_done_callback(lambda _task: self._running.pop(run, None))
        cancellation: asyncio.CancelledError | None = None
        while not body.done():
            try:
                await asyncio.wait({body})
            except asyncio.CancelledError as error:
                if cancellation is None:
                    note(f"{run.program} had not ended")
                cancellation = cancellation or error
                run.stop.set()
        if cancellation is not None:
            failure = None if body.cancelled() else body.exception()
            if isinstance(failure, CommandStuck):
                raise failure
            raise cancellation
        result = body.result()
        if check and result.returncode != 0:
            raise _failed(run, result)
        return result

    async def close(self) -> None:
        """End every program and take no more. Stuck ones are left to the kernel."""
        self._closed = True
        for run in self._running:
            run.stop.set()
        if self._running:
            await asyncio.wait(set(self._running.values()))
        for waiter in self._stuck:
            waiter.cancel()

    def _check_ready(self, run: _Run) -> None:
        if self._closed:
            raise ShuttingDown(f"{run.program} is not started any more", volume=run.volume)
        if self.stuck >= self._stuck_limit:
            raise NotReady(
                f"{self.stuck} programs hang on this node and cannot be killed; "
                f"{run.program} is not started",
                volume=run.volume,
                advice="see the kernel log of the node; it may have to be restarted",
            )

    async def _body(self, run: _Run, environment: Mapping[str, str]) -> Result:
        """Start, watch, end. Nobody cancels this but the end of the event loop itself."""
        started = time.monotonic()
        transport, child = await self._start(run, environment)
        try:
            finished = await _finishes(child, run)
            if not finished:
                await self._kill(transport, child)
        except asyncio.CancelledError:
            self._signal(transport.get_pid(), signal.SIGKILL)
            await _within(child.exited, self._graces[-1][1])
            transport.close()
            raise
        elapsed = time.monotonic() - started
        if not child.exited.is_set():
            raise self._leave(run, transport, child, elapsed)
        returncode = transport.get_returncode()
        transport.close()
        if finished and returncode is not None:
            log.debug("program ran", program=run.program, status=returncode, seconds=elapsed)
            return Result(returncode, child.text(1), child.text(2))
        if run.stop.is_set():
            raise ShuttingDown(f"{run.program} was ended", volume=run.volume)
        log.warning("program killed", program=run.program, volume=run.volume, seconds=elapsed)
        raise CommandTimeout(
            f"{run.program} took longer than {run.timeout:g} s and was killed"
            f"{_last_line(child.text(2))}",
            volume=run.volume,
        )

    async def _start(
        self, run: _Run, environment: Mapping[str, str]
    ) -> tuple[asyncio.SubprocessTransport, _Child]:
        try:
            return await asyncio.get_running_loop().subprocess_exec(
                lambda: _Child(self._output_limit),
                *run.args,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(environment),
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            package = PACKAGES.get(run.program)
            raise NotReady(
                f"the program {run.program} cannot be run: {error.strerror}",
                volume=run.volume,
                advice=f"it is in the Debian package {package}" if package else "",
            ) from None
        except OSError as error:
            raise Unavailable(
                f"{run.program} could not be started: {error}", volume=run.volume
            ) from error

    async def _kill(self, transport: asyncio.SubprocessTransport, child: _Child) -> None:
        """SIGTERM, then SIGKILL to the group, also when only a grandchild is left of it."""
        for number, grace in self._graces:
            self._signal(transport.get_pid(), number)
            await _within(child.finished, grace)
        # A grandchild with a session of its own may still hold the pipes: let go of them.
        _close_pipes(transport)

    def _signal(self, pid: int, number: int) -> None:
        try:
            self._signal_group(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            log.warning("program cannot be signalled", pid=pid, error=str(error))

    def _leave(
        self, run: _Run, transport: asyncio.SubprocessTransport, child: _Child, elapsed: float
    ) -> CommandStuck:
        gone = asyncio.Event()

        async def wait() -> None:
            await child.exited.wait()
            transport.close()
            gone.set()
            log.warning("stuck program is gone", program=run.program, volume=run.volume)

        waiter = asyncio.create_task(wait(), name=f"wait for stuck {run.program}")
        self._stuck.add(waiter)
        waiter.add_done_callback(self._stuck.discard)
        pid = transport.get_pid()
        log.error(
            "program cannot be killed",
            program=run.program,
            pid=pid,
            volume=run.volume,
            seconds=elapsed,
            stuck=self.stuck,
        )
        return CommandStuck(
            f"{run.program} (process {pid}) hangs in the kernel and cannot be killed",
            gone=gone,
            volume=run.volume,
            advice="the volume stays locked until the process ends; see the node's kernel log",
        )


async def _finishes(child: _Child, run: _Run) -> bool:
    """Whether the program finished by itself: within its time and before it was to stop."""
    waits = {asyncio.create_task(event.wait()) for event in (child.finished, run.stop)}
    try:
        await asyncio.wait(waits, timeout=run.timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return child.finished.is_set()


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _close_pipes(transport: asyncio.SubprocessTransport) -> None:
    for fd in (1, 2):
        pipe = transport.get_pipe_transport(fd)
        if pipe is not None:
            pipe.close()


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return f": {lines[-1].strip()[:500]}" if lines else ""


def _failed(run: _Run, result: Result) -> CommandFailed:
    how = (
        f"was ended by signal {-result.returncode}"
        if result.returncode < 0
        else f"failed with status {result.returncode}"
    )
    return CommandFailed(
        f"{run.program} {how}{_last_line(result.stderr)}",
        returncode=result.returncode,
        stderr=result.stderr,
        volume=run.volume,
    )
