"""The real runner, with real programs: whatever happens, no process and no descriptor is left."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rds_csi.errors import (
    CommandFailed,
    CommandStuck,
    CommandTimeout,
    NotReady,
    ShuttingDown,
    Unavailable,
)
from rds_csi.runtime.causes import collect
from rds_csi.runtime.process import ENVIRONMENT, SubprocessRunner


@pytest.fixture
async def runner() -> AsyncIterator[SubprocessRunner]:
    """Short graces, so that the tests are quick; closed at the end."""
    runner = SubprocessRunner(term_grace=0.2, kill_grace=1.0)
    yield runner
    await runner.close()


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie waiting for its new parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def processes(marker: str) -> list[Path]:
    """The processes with the marker in their command line."""
    found = Path("/proc").glob("[0-9]*/cmdline")
    return [entry for entry in found if marker.encode() in _read(entry)]


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something that the kernel does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.01)


async def written(path: Path) -> int:
    """The process id that a program has written into ``path``."""
    await eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(_read(path))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_output_and_status(runner: SubprocessRunner) -> None:
    result = await runner.run(
        ["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=5, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")


async def test_a_failure_carries_status_and_error_text(runner: SubprocessRunner) -> None:
    with pytest.raises(CommandFailed) as caught:
        await runner.run(["sh", "-c", "echo a >&2; echo b >&2; exit 4"], timeout=5, volume="pvc-1")
    assert (caught.value.returncode, caught.value.stderr) == (4, "a\nb\n")
    assert str(caught.value) == "volume pvc-1: sh failed with status 4: b"


async def test_death_by_signal(runner: SubprocessRunner) -> None:
    with pytest.raises(CommandFailed, match="signal 9") as caught:
        await runner.run(["sh", "-c", "kill -9 $$"], timeout=5)
    assert caught.value.returncode == -9


async def test_environment_is_minimal_and_can_be_added_to(runner: SubprocessRunner) -> None:
    os.environ["RDS_CSI_TEST_SECRET"] = "x"
    try:
        result = await runner.run(["env"], timeout=5, environment={"EXTRA": "1"})
    finally:
        del os.environ["RDS_CSI_TEST_SECRET"]
    lines = set(result.stdout.splitlines())
    assert lines == {*(f"{key}={value}" for key, value in ENVIRONMENT.items()), "EXTRA=1"}


async def test_standard_input_is_empty_and_the_session_its_own(runner: SubprocessRunner) -> None:
    result = await runner.run(
        ["sh", "-c", "cat; cut -d' ' -f6 /proc/self/stat; echo $$"], timeout=5
    )
    session, pid = result.stdout.split()
    assert session == pid


async def test_output_is_capped_and_the_program_still_ends(runner: SubprocessRunner) -> None:
    small = SubprocessRunner(output_limit=1000)
    result = await small.run(["head", "-c", "5000000", "/dev/zero"], timeout=10)
    assert len(result.stdout) == 1000
    await small.close()


async def test_undecodable_output_is_replaced(runner: SubprocessRunner) -> None:
    result = await runner.run(["printf", "\\377ok"], timeout=5)
    assert result.stdout == "\N{REPLACEMENT CHARACTER}ok"


async def test_a_missing_program_names_its_package(runner: SubprocessRunner) -> None:
    with pytest.raises(NotReady, match=r"nvme cannot be run: No such file.*nvme-cli"):
        await runner.run(["/nowhere/nvme"], timeout=5)
    with pytest.raises(NotReady, match="unheard-of"):
        await runner.run(["unheard-of"], timeout=5)


async def test_a_program_that_may_not_be_run(runner: SubprocessRunner, tmp_path: Path) -> None:
    (tmp_path / "nvme").write_text("#!/bin/sh\n")
    with pytest.raises(NotReady, match="Permission denied"):
        await runner.run([str(tmp_path / "nvme")], timeout=5)


async def test_a_start_that_the_system_refuses_is_transient(runner: SubprocessRunner) -> None:
    with pytest.raises(Unavailable, match="Argument list too long") as caught:
        await runner.run(["echo", "x" * 4_000_000], timeout=5)
    assert caught.value.transient


async def test_timeout_kills(runner: SubprocessRunner, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"longer than 0\.3 s.*: last words") as caught:
        await runner.run(
            ["sh", "-c", f"echo last words >&2; echo $$ >{pid_file}; exec sleep 60"],
            timeout=0.3,
            volume="pvc-1",
        )
    assert time.monotonic() - started < 2
    assert caught.value.volume == "pvc-1"
    assert not alive(await written(pid_file))


async def test_a_program_that_ignores_sigterm_is_killed(
    runner: SubprocessRunner, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(CommandTimeout):
        await runner.run(
            ["sh", "-c", f"trap '' TERM; echo $$ >{pid_file}; while :; do sleep 1; done"],
            timeout=0.3,
        )
    assert not alive(await written(pid_file))


async def test_a_program_may_clean_up_after_sigterm(
    runner: SubprocessRunner, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(CommandTimeout):
        await runner.run(
            ["sh", "-c", f"trap 'echo clean >{trace}; exit' TERM; sleep 60 & wait"], timeout=0.3
        )
    assert trace.read_text() == "clean\n"


async def test_a_grandchild_that_holds_the_pipe_dies_too(
    runner: SubprocessRunner, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(CommandTimeout):
        await runner.run(["sh", "-c", f"sleep 60 & echo $! >{pid_file}"], timeout=0.3)
    assert time.monotonic() - started < 2
    await eventually(lambda: not alive(int(pid_file.read_text())))


async def test_a_grandchild_that_ignores_sigterm_dies_too(
    runner: SubprocessRunner, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    script = (
        f"(trap '' TERM; while :; do sleep 1; done) >/dev/null 2>&1 & echo $! >{pid_file}; wait"
    )
    with pytest.raises(CommandTimeout):
        await runner.run(["sh", "-c", script], timeout=0.3)
    pid = await written(pid_file)
    await eventually(lambda: not alive(pid))


async def test_a_grandchild_with_its_own_session_holds_nothing_up(
    runner: SubprocessRunner, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    before = descriptors()
    with pytest.raises(CommandTimeout):
        await runner.run(
            ["sh", "-c", f"setsid sh -c 'echo $$ >{pid_file}; exec sleep 60'"], timeout=0.3
        )
    pid = await written(pid_file)
    assert alive(pid)  # only a cgroup could end it; our descriptors are free all the same
    os.kill(pid, signal.SIGKILL)
    assert descriptors() == before


async def test_cancelling_ends_the_program_first(runner: SubprocessRunner, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(
        runner.run(["sh", "-c", f"echo $$ >{pid_file}; exec sleep 60"], timeout=60)
    )
    pid = await written(pid_file)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)


async def test_three_cancels_do_not_shorten_the_clean_up(
    runner: SubprocessRunner, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(
        runner.run(
            ["sh", "-c", f"trap '' TERM; echo $$ >{pid_file}; while :; do sleep 1; done"],
            timeout=60,
        )
    )
    pid = await written(pid_file)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pid)


async def test_a_deadline_of_the_caller_becomes_a_timeout(runner: SubprocessRunner) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await runner.run(["sleep", "60"], timeout=60)


async def test_cancelled_at_any_moment_nothing_is_left(runner: SubprocessRunner) -> None:
    marker = f"61.{os.getpid():07d}"
    await runner.run(["true"], timeout=5)
    before = descriptors()
    for step in range(40):
        task = asyncio.create_task(runner.run(["sleep", marker], timeout=60))
        await asyncio.sleep(step * 0.00015)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert descriptors() == before
    assert not processes(marker)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Unkillable:
    """Stands between the runner and ``killpg``: drops signals, like a process in D state."""

    def __init__(self) -> None:
        self.pids: set[int] = set()

    def __call__(self, pid: int, _number: int) -> None:
        self.pids.add(pid)

    def die(self) -> None:
        for pid in self.pids:
            os.killpg(pid, signal.SIGKILL)


async def test_a_program_that_cannot_be_killed_is_stuck_until_it_is_gone() -> None:
    unkillable = Unkillable()
    runner = SubprocessRunner(term_grace=0.05, kill_grace=0.05, signal_group=unkillable)
    before = descriptors()
    with pytest.raises(CommandStuck, match=r"sleep \(process \d+\) hangs") as caught:
        await runner.run(["sleep", "60"], timeout=0.05, volume="pvc-1")
    assert runner.stuck == 1
    assert not caught.value.gone.is_set()
    assert all(alive(pid) for pid in unkillable.pids)
    unkillable.die()
    async with asyncio.timeout(5):
        await caught.value.gone.wait()
    await eventually(lambda: runner.stuck == 0)
    assert descriptors() == before
    await runner.close()


async def test_a_stuck_program_is_told_even_to_a_cancelled_caller() -> None:
    unkillable = Unkillable()
    runner = SubprocessRunner(term_grace=0.05, kill_grace=0.05, signal_group=unkillable)
    task = asyncio.create_task(runner.run(["sleep", "60"], timeout=60))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(CommandStuck) as caught:
        await task
    unkillable.die()
    async with asyncio.timeout(5):
        await caught.value.gone.wait()
    await runner.close()


async def test_a_stuck_program_holds_up_nobody_else_until_there_are_too_many() -> None:
    unkillable = Unkillable()
    runner = SubprocessRunner(
        term_grace=0.02, kill_grace=0.02, stuck_limit=2, signal_group=unkillable
    )
    stuck = []
    for _ in range(2):
        assert (await runner.run(["true"], timeout=5)).returncode == 0
        with pytest.raises(CommandStuck) as caught:
            await runner.run(["sleep", "60"], timeout=0.02)
        stuck.append(caught.value)
    with pytest.raises(NotReady, match="2 programs hang"):
        await runner.run(["true"], timeout=5)
    unkillable.die()
    for error in stuck:
        await error.gone.wait()
    await eventually(lambda: runner.stuck == 0)
    assert (await runner.run(["true"], timeout=5)).returncode == 0
    await runner.close()


async def test_close_ends_programs_and_takes_no_more() -> None:
    runner = SubprocessRunner(term_grace=0.2)
    task = asyncio.create_task(runner.run(["sleep", "60"], timeout=60, volume="pvc-1"))
    await asyncio.sleep(0.05)
    await runner.close()
    with pytest.raises(ShuttingDown, match="sleep was ended"):
        await task
    with pytest.raises(ShuttingDown, match="not started"):
        await runner.run(["true"], timeout=5)


LEAVES_WHILE_RUNNING = """
import asyncio, pathlib, sys
from rds_csi.runtime.process import SubprocessRunner

async def main():
    runner = SubprocessRunner()
    file = pathlib.Path(sys.argv[1])
    script = f"echo $$ >{file}; exec sleep 60"
    task = asyncio.create_task(runner.run(["sh", "-c", script], timeout=60))
    while not (file.exists() and file.read_text()):
        await asyncio.sleep(0.01)
    # The program may run before asyncio has its pipes; cancelled just then, asyncio 3.11 itself
    # waits for ever. Only the end of the loop can do that, and close() comes before it.
    await asyncio.sleep(0.5)

asyncio.run(main())
"""


def test_the_end_of_the_event_loop_leaves_no_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", LEAVES_WHILE_RUNNING, str(pid_file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stderr == ""
    assert not alive(int(pid_file.read_text()))


async def test_what_ran_when_its_caller_was_cancelled_is_noted(runner: SubprocessRunner) -> None:
    causes = collect()
    task = asyncio.create_task(runner.run(["sleep", "60"], timeout=60))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert causes.texts == ["sleep had not ended"]
