"""Starts an image as a container engine does, without one.

Process 1 of its namespaces is the entry point, as the image's user, on a root that cannot be
written, with the mounts it is given and an environment of which nothing comes from this machine.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.image.recipe import Image

PATIENCE = 60.0
_ENTER = """
merged=$1 root=$2; shift 2
mount -t tmpfs layers "$merged"
mkdir "$merged/upper" "$merged/work" "$merged/root"
layers="lowerdir=$root,upperdir=$merged/upper,workdir=$merged/work"
root=$merged/root
mount -t overlay overlay -o "$layers" "$root"
while [ "$1" != -- ]; do
    mkdir -p "$(dirname "$root$2")"
    if [ -d "$1" ]; then mkdir -p "$root$2"; else touch "$root$2"; fi
    mount --rbind "$1" "$root$2"; shift 2
done
shift
mount -t proc proc "$root/proc"
[ -c "$root/dev/tty" ] || {
    mount -t tmpfs dev "$root/dev"
    for each in null zero full random urandom; do
        touch "$root/dev/$each"; mount --bind "/dev/$each" "$root/dev/$each"
    done
}
mount -o remount,ro "$root"
exec chroot "$root" "$@"
"""
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_NOBODY = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")


@dataclass(frozen=True, slots=True)
class Container:
    """A started image: ``init`` is the process id of its process 1 on this machine."""

    process: subprocess.Popen[bytes]
    init: int
    log: Path
    as_user: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def start(
        cls,
        image: Image,
        *arguments: str,
        folder: Path,
        mounts: Mapping[str, Path],
        environment: Mapping[str, str],
    ) -> Self:
        """Start the entry point with ``arguments``; ``folder`` is for the log and the layers.

        ``mounts`` are the paths in the container of files and directories. To the image's own
        environment only ``environment`` is added. Root is privileged, everybody else is nobody.
        """
        user = image.user.partition(":")[0]
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={user}"]
        as_user += [] if user == "0" else _NOBODY
        (folder / "layers").mkdir(exist_ok=True)
        words = [str(folder / "layers"), str(image.root)]
        for inside, outside in mounts.items():
            words += [str(outside), inside]
        words += ["--", *as_user, *image.entrypoint, *arguments]
        log = folder / "container.log"
        seen = {**image.environment, **environment}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*_NAMESPACES, "sh", "-ec", _ENTER, "container", *words],
                env=seen,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        return cls(process, _child(process), log, as_user, seen)

    async def until(self, path: Path) -> None:
        """Wait until the file is there."""
        async with asyncio.timeout(PATIENCE):
            while not path.exists():  # noqa: ASYNC240 - in memory
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)

    def enter(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program beside the entry point, as ``kubectl exec`` does."""
        inside = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--root", "--wdns=/"]
        return subprocess.run(
            [*inside, *self.as_user, *words],
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def processes(self) -> dict[int, tuple[str, int]]:
        """State and parent of each process, as the container numbers them."""
        found = {}
        for entry in Path(f"/proc/{self.init}/root/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, parent, *_ = entry.read_text().rpartition(")")[2].split()
                found[int(entry.parent.name)] = state, int(parent)
        return found

    async def stop(self) -> tuple[int, float]:
        """SIGTERM to process 1; the exit status, and the seconds it took."""
        started = time.monotonic()
        os.kill(self.init, signal.SIGTERM)
        status = await asyncio.to_thread(self.process.wait, PATIENCE)
        return status, time.monotonic() - started

    def kill(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.wait()


def _child(process: subprocess.Popen[bytes]) -> int:
    """The only child of a process, once it has one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.01)
    raise TimeoutError("unshare has no child")
