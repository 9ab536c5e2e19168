"""Every shell block that needs no cluster does what the page says, as it is printed."""

import ast
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, ROOT, blocks, marked
from tests.docs.conftest import Run

QUICK_START = DOCS / "quick-start.md"
README = ROOT / "README.md"
BOTH = pytest.mark.parametrize("page", [QUICK_START, README], ids=lambda page: page.name)
PORT = 2222
"""Where the simulator listens when nobody says otherwise."""


@BOTH
def test_every_block_says_what_it_needs(page: Path) -> None:
    shell = blocks(page, "sh")
    assert shell
    assert [block for block in shell if block.mark not in {"run", "lab", "cluster"}] == []
    assert page.read_text().count("```sh\n") == len(shell)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
@pytest.mark.timeout(600)
def test_without_a_cluster(shell: Run, clone: Path) -> None:
    assert not answers(PORT), f"something else listens on port {PORT} of this machine"
    done = shell("\n".join(marked(QUICK_START, "run")), timeout=500)
    said = done.stdout
    assert done.returncode == 0, said
    order = [
        "Flags: B - BLOCK-DEVICE",
        "made: pvc-",
        "attached to the node",
        "nqn.2000-02.com.mikrotik:pvc-",
        "rds-csi/2 owner=csi.rds-csi.io%2Ftry name=first",
        "UNAVAILABLE",
        "cannot be reached",
        "made: pvc-",
        # A machine may have NVMe connections of its own.
        "No NVMe subsystem is connected" if "No NVMe subsystem" in said else "    kept: ",
        "detached and deleted",
        "detached and deleted",
    ]
    place = 0
    for text in order:
        place = said.find(text, place) + 1
        assert place > 0, f"{text!r} is not there, or not in its place:\n{said}"
    assert not (clone / "try").exists()
    assert not answers(PORT)


def sessions() -> Iterator[str]:
    """The names of the sessions of the noxfile."""
    for node in ast.parse((ROOT / "noxfile.py").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            for decorator in map(ast.unparse, node.decorator_list):
                if decorator.startswith("nox.session"):
                    named = re.search(r"name='([^']+)'", decorator)
                    yield named[1] if named else node.name


@BOTH
def test_the_sessions_it_names_exist(page: Path) -> None:
    named = re.findall(r"nox -s ([\w-]+)", page.read_text())
    assert named
    assert set(named) <= set(sessions())
