"""The demo's processes: ready before they are used, ended when the block is left."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from rds_csi.demo import processes
from rds_csi.demo.processes import ProcessError, Program, running


def simulator(folder: Path, *more: str) -> Program:
    ready = folder / "ready.json"
    words = ["simulate", f"--root={folder / 'rds'}", "--port=0", f"--ready-file={ready}", *more]
    return Program("simulator", words, ready)


async def test_it_runs_in_the_block_and_ends_with_it_whatever_happens(tmp_path: Path) -> None:
    program = simulator(tmp_path)
    with pytest.raises(KeyError):  # noqa: PT012 (what is raised inside is the test)
        async with running(program, tmp_path) as process:
            assert process.returncode is None
            os.kill(process.pid, 0)
            raise KeyError
    assert process.returncode == 0


async def test_one_that_ends_by_itself_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"simulator ended with status \d+:\n[^$]*--pool"):
        async with running(simulator(tmp_path, "--pool=nonsense"), tmp_path):
            pytest.fail("it never was ready")


async def test_one_that_is_never_ready_is_not_waited_for_and_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_START_BUDGET", 0.2)
    ended: list[int | None] = []
    stop = processes._stop

    async def watched(process: asyncio.subprocess.Process) -> None:
        await stop(process)
        ended.append(process.returncode)

    monkeypatch.setattr(processes, "_stop", watched)
    program = simulator(tmp_path)
    never = Program(program.name, program.arguments, tmp_path / "never")
    with pytest.raises(ProcessError, match="simulator was not ready after 0 s"):
        async with running(never, tmp_path):
            pytest.fail("it never was ready")
    [status] = ended
    assert status in (0, -signal.SIGTERM)


def test_the_last_lines_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"\xff\n" + b"".join(b"line %d\n" % n for n in range(50)))
    shown = processes._tail(log)
    assert shown.splitlines() == [f"line {n}" for n in range(30, 50)]
