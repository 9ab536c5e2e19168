"""The guest's side: a node's image, run as the chart runs it, on a real kernel.

``nox -s image`` builds the images first. The root of the image is read-only; the kubelet's
directory is shared in both directions, ``/dev`` and ``/sys`` are the machine's.
"""

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.guard import skip_outside_the_lab
from tests.lab.world import (
    KUBELET,
    STATE,
    client_key,
    driver,
    flags,
    kubernetes,
    listening,
    world,
)

__all__ = ["client_key", "driver", "flags", "kubernetes", "listening", "world"]
IMAGE = Path(__file__).parents[3] / "build" / "image" / "node"
ROOT = Path("/run/image")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    skip_outside_the_lab([item for item in items if item.path.is_relative_to(here)])


class Container:
    """Starts programs in the image, as :class:`tests.lab.processes.Zygote` does beside it."""

    def __init__(self) -> None:
        for folder in (KUBELET, STATE, ROOT):
            folder.mkdir(parents=True, exist_ok=True)
        _mount("--bind", str(KUBELET), str(KUBELET))
        _mount("--make-shared", str(KUBELET))
        # The image's root is the guest's read-only file system: places to mount at need a layer.
        layers = "lowerdir={},upperdir=/run/layer/upper,workdir=/run/layer/work"
        for name in ("upper", "work"):
            (Path("/run/layer") / name).mkdir(parents=True, exist_ok=True)
        _mount("-t", "overlay", "overlay", "-o", layers.format(IMAGE), str(ROOT))
        for shared in ("/proc", "/dev", "/sys", "/tmp", str(STATE), str(KUBELET)):
            inside = ROOT / shared.lstrip("/")
            inside.mkdir(parents=True, exist_ok=True)
            _mount("--rbind", shared, str(inside))
        _mount("-o", "remount,ro", str(ROOT))

    def fork(self, arguments: Sequence[str], *, log: Path, plan: Path) -> int:
        """Start the image's entry point with these arguments; its pid."""
        del plan
        with log.open("ab") as file:
            process = subprocess.Popen(
                ["chroot", str(ROOT), "/opt/venv/bin/rds-csi", *arguments],
                env={"PATH": "/opt/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie
        return process.pid


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Container]:
    yield Container()
    os.sync()
