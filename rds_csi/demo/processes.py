"""The demo's processes: the simulator, the controller and the node plugin, each on its own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_START_BUDGET: Final = 120.0
"""Seconds a process may take until it is ready; emulated machines are slow."""
_STOP_BUDGET: Final = 30.0


class ProcessError(Exception):
    """A process of the demo did not start, or ended by itself."""


@dataclass(frozen=True, slots=True)
class Program:
    """One ``rds-csi`` command: its words, and the socket that shows that it is ready."""

    name: str
    arguments: Sequence[str]
    ready: Path


@asynccontextmanager
async def running(program: Program, logs: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The program, ready; ended by SIGTERM when the block is left."""
    log = logs / f"{program.name}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rds_csi",
            *program.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        await _until_ready(program, process, log)
        yield process
    finally:
        await _stop(process)


async def _until_ready(program: Program, process: asyncio.subprocess.Process, log: Path) -> None:
    try:
        async with asyncio.timeout(_START_BUDGET):
            while not program.ready.exists():
                if process.returncode is not None:
                    raise ProcessError(
                        f"{program.name} ended with status {process.returncode}:\n{_tail(log)}"
                    )
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise ProcessError(
            f"{program.name} was not ready after {_START_BUDGET:.0f} s:\n{_tail(log)}"
        ) from None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_BUDGET):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
