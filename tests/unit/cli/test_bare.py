"""Each command on a machine that has next to nothing: a sentence and its status, no traceback.

No HOME, no USER, no LANG, no terminal, and a PATH that leads to Python alone; the programs that
the system keeps in its own directories are found nevertheless, if they are there.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from tests.unit.cli.test_main import KEYS

ENVIRONMENTS = {
    "nothing": {},
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


@dataclass(frozen=True, slots=True)
class Bare:
    """A folder to work in, and an environment with nothing in it."""

    folder: Path
    environment: Mapping[str, str]

    def command(self, words: Sequence[str]) -> list[str]:
        return [str(self.folder / "bin" / "python"), "-m", "rds_csi", *words]

    def run(self, *words: str, streams: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end; ``streams`` is what a shell redirects."""
        return subprocess.run(
            ["/bin/sh", "-c", f"exec {shlex.join(self.command(words))} {streams}"],
            env=dict(self.environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def serve(self, *words: str, ready: Callable[[str], bool]) -> tuple[int, str]:
        """Run a command until it says it is ready, then SIGTERM; its status and what it said."""
        said = ""
        with subprocess.Popen(
            self.command(words),
            env=dict(self.environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    said += line
                    if ready(line):
                        process.send_signal(signal.SIGTERM)
                return process.wait(60), said
            finally:
                process.kill()


def driver_is_ready(line: str) -> bool:
    return '"event": "ready"' in line


@pytest.fixture(params=ENVIRONMENTS)
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Bare:
    folder = tmp_path / "bin"
    folder.mkdir()
    # A link would not find the virtual environment that it stands for.
    (folder / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (folder / "python").chmod(0o755)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    return Bare(tmp_path, {"PATH": str(folder), **ENVIRONMENTS[request.param]})


def of_controller(folder: Path) -> list[str]:
    return [
        f"--endpoint={folder}/csi.sock",
        "--cluster-id=test",
        "--rds-address=127.0.0.1",
        "--rds-port=1",
        f"--rds-key-file={folder}/key",
        f"--rds-host-key={KEYS[0]}",
        "--nvme-address=127.0.0.1",
        "--volume-path=raid10/csi",
    ]


def of_node(folder: Path) -> list[str]:
    return [
        f"--endpoint={folder}/csi.sock",
        "--cluster-id=test",
        "--node-id=one",
        f"--kubelet-dir={folder}/kubelet",
        f"--state-dir={folder}/state",
    ]


def no_traceback(said: str) -> None:
    for word in ("Traceback", "Error:\n", "Exception ignored"):
        assert word not in said


@pytest.mark.parametrize("command", ["controller", "node", "all"])
def test_the_driver_starts_and_ends(bare: Bare, command: str) -> None:
    words = list(
        dict.fromkeys(
            [
                *(of_controller(bare.folder) if command != "node" else []),
                *(of_node(bare.folder) if command != "controller" else []),
            ]
        )
    )
    status, said = bare.serve(command, *words, ready=driver_is_ready)
    no_traceback(said)
    assert status == 0, said
    assert json.loads(said.splitlines()[-1])["event"] == "stopped"


@pytest.mark.parametrize("command", ["controller", "node", "all", "reap"])
def test_without_settings_it_says_which_is_missing(bare: Bare, command: str) -> None:
    done = bare.run(command)
    no_traceback(done.stderr)
    assert done.returncode == 2
    assert "Missing option '--" in done.stderr.splitlines()[-1]


def test_reap(bare: Bare) -> None:
    socket, state = f"--endpoint={bare.folder}/csi.sock", f"--state-dir={bare.folder}"
    done = bare.run(
        *("reap", "--dry-run", "--cluster-id=test", "--node-id=one", "--settle=0", socket, state)
    )
    no_traceback(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_simulator_starts_and_ends(bare: Bare) -> None:
    status, said = bare.serve(
        *("simulate", "--port=0", f"--root={bare.folder}/rds"), ready=lambda line: line[0] == "{"
    )
    no_traceback(said)
    assert status == 0, said


def test_the_simulator_without_a_target(bare: Bare) -> None:
    """Here by a folder that cannot be; without ``modprobe`` in ``simulator/test_command.py``."""
    done = bare.run("simulate", "--root=/proc/rds")
    no_traceback(done.stderr)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: --root")


def test_the_doctors(bare: Bare) -> None:
    for words in (
        ("node", *of_node(bare.folder), "--nvme-address=127.0.0.1", "--nvme-port=1"),
        ("rds", *of_controller(bare.folder)),
        ("rds", *of_controller(bare.folder), "--json"),
    ):
        done = bare.run("doctor", *words)
        no_traceback(done.stderr)
        assert (done.returncode, done.stderr) == (1, "")
        assert "failed" in done.stdout


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_streams_that_are_closed_or_full(bare: Bare, streams: str) -> None:
    done = bare.run("doctor", "node", *of_node(bare.folder), streams=streams)
    no_traceback(done.stdout + done.stderr)
    assert done.returncode == 1
    if "full" in streams:
        assert done.stderr.splitlines() == ["rds-csi: [Errno 28] No space left on device"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gets as far")
def test_the_demo_where_nothing_can_be_kept(bare: Bare) -> None:
    """The first thing it needs is a folder for what it makes."""
    code = (
        "import tempfile, sys; tempfile._candidate_tempdir_list = lambda: ['/nonexistent'];"
        "sys.argv[1:] = ['demo', '--lab']; import rds_csi.__main__"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(bare.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    no_traceback(done.stderr)
    assert done.returncode == 1
    assert "DEMO FAILED" in done.stdout
    assert "No usable temporary directory" in " ".join(done.stdout.split())
