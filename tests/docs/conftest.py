"""The documents, as a reader would use them."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.clone import clone as copy
from tests.docs.clone import stripped

Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--helm", type=Path, help="the program helm")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository as a user has it."""
    return copy(tmp_path / "clone")


@pytest.fixture
def shell(clone: Path) -> Iterator[Run]:
    """Runs lines as one shell would, in the clone; what they leave running is ended."""
    groups = []

    def run(script: str, *, timeout: float) -> subprocess.CompletedProcess[str]:
        # Output into a file: what runs on in the background holds a pipe open.
        log = clone.parent / "output"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-eu", "-c", script],
                cwd=clone,
                env=stripped(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            groups.append(process)
            status = process.wait(timeout)
        return subprocess.CompletedProcess(script, status, log.read_text())

    yield run
    for process in groups:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        process.wait()
