"""The fake mount table does what the kernel does; checked beside the real one where we may."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rds_csi.filesystem.mounts import parse
from rds_csi.runtime.process import Result
from tests.unit.fakes.mounts import FakeMountTable, FileSystem

Run = Callable[..., Result]


def loop_device(image: Path) -> str:
    with image.open("wb") as file:
        file.truncate(16 * 1024**2)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
    found = subprocess.run(
        ["losetup", "-f", "--show", str(image)], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


class Fake:
    def __init__(self, root: Path) -> None:
        (root / "dev").mkdir()
        self.device = str(root / "dev" / "nvme0n1")
        Path(self.device).touch()
        self._table = FakeMountTable(
            root / "mountinfo",
            dev=root / "dev",
            file_system=lambda _device: FileSystem((259, 0), "ext4"),
        )

    def run(self, *args: str) -> int:
        return self._table.run(args).returncode

    def table(self) -> bytes:
        return self._table.path.read_bytes()


class Real:
    def __init__(self, root: Path) -> None:
        self.device = loop_device(root / "image")

    def run(self, *args: str) -> int:
        return subprocess.run(args, check=False, capture_output=True).returncode

    def table(self) -> bytes:
        return Path("/proc/self/mountinfo").read_bytes()


@pytest.fixture(params=["fake", "real"])
def kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fake | Real]:
    if request.param == "fake":
        yield Fake(tmp_path)
        return
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    try:
        real = Real(tmp_path)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"no loop devices here: {error}")
    yield real
    for mount in reversed(parse(real.table())):
        if Path(mount.point).is_relative_to(tmp_path):
            subprocess.run(["umount", mount.point], check=False)
    subprocess.run(["losetup", "-d", real.device], check=False)


def test_what_the_kernel_allows_and_what_the_table_shows(
    kernel: Fake | Real, tmp_path: Path
) -> None:
    stage, target, file = tmp_path / "stage", tmp_path / "target dir", tmp_path / "file"
    stage.mkdir()
    target.mkdir()
    file.touch()

    def shown(point: Path) -> list[tuple[str, set[str], bool]]:
        kept = {"ro", "rw", "noatime", "nosuid"}
        return [
            (mount.root, set(mount.options) & kept, mount.file_system_read_only)
            for mount in parse(kernel.table())
            if mount.point == str(point)
        ]

    def mount(*args: str) -> bool:
        return kernel.run("mount", *args) == 0

    def unmount(point: Path) -> bool:
        return kernel.run("umount", str(point)) == 0

    options = ("-t", "ext4", "-o", "rw,noatime,nosuid", kernel.device)
    assert not mount(*options, str(tmp_path / "missing"))
    assert not mount("-t", "xfs", "-o", "rw", kernel.device, str(stage))
    assert mount(*options, str(stage))
    assert shown(stage) == [("/", {"rw", "noatime", "nosuid"}, False)]
    if mount(*options, str(stage)):  # from util-linux 2.39 on, which has the kernel's newer calls
        assert isinstance(kernel, Real)
        assert len(shown(stage)) == 2, "the same file system twice at one point is a stack"
        assert unmount(stage)
    assert not mount("-t", "ext4", "-o", "ro", kernel.device, str(target)), "other mode"
    assert mount("--bind", str(stage), str(target))
    assert shown(target) == [("/", {"rw", "noatime", "nosuid"}, False)]
    assert mount("--bind", str(stage), str(target)), "binds do stack"
    assert len(shown(target)) == 2
    assert unmount(target)
    assert mount("-o", "remount,bind,ro,nosuid", str(target))
    (bound,) = shown(target)
    assert bound[1] >= {"ro", "nosuid"}
    assert shown(stage) == [("/", {"rw", "noatime", "nosuid"}, False)]
    assert unmount(target)
    assert not unmount(target), "nothing mounted there any more"
    assert not mount("--bind", str(stage), str(file)), "a directory over a file"
    assert mount("--bind", kernel.device, str(file))
    assert [root for root, _, _ in shown(file)] == [f"/{Path(kernel.device).name}"]
    assert unmount(file)
    assert unmount(stage)
    assert shown(stage) == []
