"""``python -m tests.image.inside COMMAND...``: run it with the images' Python, on this source tree.

A root file system like that of the images gets what the tests need beside it: the locked packages
and the programs that make file systems. The source tree is seen in it at its own path, this
machine's ``/dev`` and ``/sys`` as well. Needs root and mmdebstrap; made once, in ``build/image``.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.image.recipe import copy, debian, run

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "image"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "btrfs-progs e2fsprogs mount python3 python3-venv util-linux xfsprogs"
_PREPARE = (
    f"apt-get update -q && apt-get install -q -y --no-install-recommends {PACKAGES} && "
    "python3 -m venv /opt/tests && /opt/tests/bin/pip install --quiet 'uv>=0.9'"
)
_SYNC = (
    "UV_PROJECT_ENVIRONMENT=/opt/tests UV_LINK_MODE=copy /opt/tests/bin/uv sync --quiet --frozen "
    "--no-default-groups --inexact --compile-bytecode --group=test --group=proto "
    "--no-install-project --directory=/opt/locked"
)
_ENTER = """
root=$1 tree=$2; shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$tree"
mount --bind "$tree" "$root$tree"
exec chroot "$root" /bin/sh -ec 'cd "$0"; exec "$@"' "$tree" "$@"
"""


def prepared() -> Path:
    """The root file system, made or brought to what ``uv.lock`` says."""
    root = BUILD / "tests"
    ready = root / "made-of"
    locked = [ROOT / "pyproject.toml", ROOT / "uv.lock"]
    if not ready.exists() or ready.read_text() != _PREPARE:
        print("*** making a root file system with the images' Python ***", flush=True)  # noqa: T201
        copy(debian(BUILD), root)
        run(root, _PREPARE, {"PATH": _PATH})
        ready.write_text(_PREPARE)
    (root / "opt/locked").mkdir(exist_ok=True)
    for file in locked:
        (root / "opt/locked" / file.name).write_bytes(file.read_bytes())
    run(root, _SYNC, {"PATH": _PATH})
    [packages] = root.glob("opt/tests/lib/python3.*/site-packages")
    (packages / "tree.pth").write_text(f"{ROOT}\n")
    return root


def main(command: list[str]) -> int:
    """Run it; its exit status."""
    root = prepared()
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    words = [*namespaces, "sh", "-ec", _ENTER, "inside", str(root), str(ROOT), *command]
    environment = {
        "PATH": f"/opt/tests/bin:{_PATH}",
        "HOME": "/root",
        # Not CI: what of the tests needs more than Python, as Go, is for the other sessions.
        **{name: os.environ[name] for name in ("TERM",) if name in os.environ},
    }
    return subprocess.run(words, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
