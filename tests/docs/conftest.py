"""The documents, as a reader would use them."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--helm", type=Path, help="the program helm")
    parser.addoption("--exhaustive", action="store_true", help="also the demo in the lab")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--exhaustive"):
        return
    long = [item for item in items if item.get_closest_marker("exhaustive")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The repository as a user has it: what git knows or would take, and nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            target = tmp_path / "clone" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((ROOT / name).stat().st_mode)
    return tmp_path / "clone"


@pytest.fixture
def shell(clone: Path) -> Iterator[Run]:
    """Runs lines as one shell would, in the clone; what they leave running is ended."""
    groups = []

    def run(script: str, *, timeout: float) -> subprocess.CompletedProcess[str]:
        # Output into a file: what runs on in the background holds a pipe open.
        log = clone.parent / "output"
        environment = {key: text for key, text in os.environ.items() if "RDS_CSI" not in key}
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-eu", "-c", script],
                cwd=clone,
                env=environment,
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
