"""The README's first command ends well where next to nothing is there; the second is .ci/run.

What runs is what is printed there, from a clean clone, in an environment with nothing in it.
"""

import ast
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, ROOT, marked
from tests.docs.clone import stripped

README = ROOT / "README.md"
BUDGET = 900
"""Seconds: an emulated processor, and everything to be downloaded."""
MIRROR = "http://deb.debian.org/debian"
BARE = """
mount --make-rprivate / && mount --bind "$0" "$0" && mount -t proc proc "$0/proc" &&
mount -t sysfs sysfs "$0/sys" && mount -t tmpfs tmpfs "$0/run" && mount --rbind /dev "$0/dev" &&
mount --bind /etc/resolv.conf "$0/etc/resolv.conf" &&
mount --bind /etc/ssl/certs "$0/etc/ssl/certs" && exec chroot "$0" /bin/sh -ec "$1"
"""


def lines() -> list[str]:
    [block] = marked(README, "lab")
    return block.splitlines()


def ends_well(words: list[str], log: Path, *, environment: dict[str, str], folder: Path) -> str:
    """What the command said. It and all it started are ended, whatever happens."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(BUDGET)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = log.read_text(errors="replace")
    assert status == 0, said[-5000:]
    return said


def is_demo(said: str) -> None:
    """It was shown to its end, and to everybody."""
    assert re.search(r"^DEMO OK [0-9]+ s$", said, re.MULTILINE), said[-5000:]
    shown = re.findall(r"^(\S) (.*) [0-9.]+ s$", said, re.MULTILINE)
    printed = re.findall(r"^(\S) (.*) [0-9.]+ s$", README.read_text(), re.MULTILINE)
    assert shown == printed
    assert "Traceback" not in said
    assert "NOT RUN" not in said


def test_the_first_command(clone: Path) -> None:
    first, _ = lines()
    said = ends_well(
        ["/bin/sh", "-ec", first],
        ROOT / "build" / "readme" / "demo.log",
        environment=stripped(),
        folder=clone,
    )
    is_demo(said)


def test_the_quick_start_has_the_same() -> None:
    [block] = marked(DOCS / "quick-start.md", "lab")
    assert block.splitlines() == lines()[:1]


def test_the_second_command_is_what_a_pipeline_runs() -> None:
    _, second = lines()
    assert second in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_second_command_runs_what_the_page_says() -> None:
    told = re.search(r"The second runs everything: ([\w\s,-]+)\.", README.read_text())
    assert told is not None
    names = {"csi-sanity": "sanity"}
    assert [names.get(name, name) for name in re.split(r",\s+", told[1])] == sessions()


def sessions() -> list[str]:
    """What ``nox`` alone runs, in its order."""
    for node in ast.parse((ROOT / "noxfile.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "nox.options.sessions":
            names = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
            return [str(each.value) for each in sorted(names, key=place)]
    raise AssertionError("noxfile.py names no sessions")


def place(node: ast.Constant) -> tuple[int, int]:
    """Where it stands in the file."""
    return node.lineno, node.col_offset


@pytest.mark.exhaustive
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_on_a_bare_debian(clone: Path, tmp_path: Path, suite: str) -> None:
    """A root file system of Debian's least, Python and venv: no kmod, no ip, no git, no sudo."""
    root = tmp_path / "debian"
    packages = "--include=python3,python3-venv,ca-certificates"
    made = ["debootstrap", "--variant=minbase", packages, suite, str(root), MIRROR]
    subprocess.run(made, check=True, capture_output=True)
    assert not (root / "usr/sbin/modprobe").exists()
    clone.rename(root / "srv" / "clone")
    first, _ = lines()
    own = {**stripped(), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    inside = f"cd /srv/clone; exec env -i {shlex.join(f'{k}={v}' for k, v in own.items())} sh -ec "
    said = ends_well(
        ["unshare", "--mount", "sh", "-c", BARE, str(root), inside + shlex.quote(first)],
        ROOT / "build" / "readme" / f"demo-{suite}.log",
        environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        folder=root,
    )
    is_demo(said)
    assert "installing Debian packages" in said
