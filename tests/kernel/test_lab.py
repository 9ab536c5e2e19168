"""The lab itself: what the other tests take for granted of this kernel and its tools."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.target import Target

pytestmark = pytest.mark.kernels

NQN = "nqn.2000-02.com.mikrotik:lab"
MIB = 1024**2


def run(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=120).stdout


def controllers() -> list[Path]:
    return [
        path
        for path in Path("/sys/class/nvme").iterdir()
        if (path / "subsysnqn").read_text().strip() == NQN
    ]


def wait_until(what: str, check: object, seconds: float = 60) -> None:
    assert callable(check)
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    file = tmp_path / "volume.img"
    with file.open("wb") as content:
        content.truncate(256 * MIB)
    target = Target(NQN, file, port=4499)
    target.start()
    yield target
    subprocess.run(["nvme", "disconnect", "-n", NQN], check=False, capture_output=True)
    target.stop()


@pytest.fixture
def device(target: Target) -> Path:
    run("nvme", "connect", "-t", "tcp", "-a", "127.0.0.1", "-s", "4499", "-n", NQN,
        "-l", "-1", "-c", "1")  # fmt: skip
    (controller,) = controllers()
    head = controller.name.replace("nvme", "") + "n1"
    path = Path(f"/dev/nvme{head}")
    wait_until("the device is there", path.exists)
    return path


def test_the_timers_asked_for_are_the_kernels(device: Path) -> None:
    (controller,) = controllers()
    assert (controller / "ctrl_loss_tmo").read_text().strip() == "off"
    assert (controller / "reconnect_delay").read_text().strip() == "1"
    assert (controller / "state").read_text().strip() == "live"


def test_a_grown_file_is_a_grown_device_at_once(target: Target, device: Path) -> None:
    target.grow(512 * MIB)
    size = Path(f"/sys/class/block/{device.name}/size")
    wait_until("the new size is seen", lambda: int(size.read_text()) * 512 == 512 * MIB)


def test_a_write_waits_for_the_target_to_come_back(
    target: Target, device: Path, tmp_path: Path
) -> None:
    run("mkfs.ext4", "-q", str(device))
    mount = tmp_path / "mount"
    mount.mkdir()
    run("mount", str(device), str(mount))
    try:
        target.cut()
        (controller,) = controllers()
        wait_until(
            "the kernel notices",
            lambda: (controller / "state").read_text().strip() == "connecting",
        )
        done = threading.Event()
        threading.Thread(target=_write, args=(mount / "file", done), daemon=True).start()
        assert not done.wait(timeout=2), "a write ended while the target was away"
        target.restore()
        assert done.wait(timeout=60)
        assert (mount / "file").read_bytes() == b"x" * MIB
    finally:
        run("umount", str(mount))


def _write(path: Path, done: threading.Event) -> None:
    with path.open("wb") as file:
        file.write(b"x" * MIB)
        file.flush()
        os.fsync(file.fileno())
    done.set()


def test_the_guest_has_what_the_driver_calls() -> None:
    for program in ("nvme", "mkfs.ext4", "mkfs.xfs", "blkid", "resize2fs", "xfs_growfs", "fsck"):
        run("which", program)
    version = run("nvme", "version")
    assert "nvme version" in version
    assert json.loads(run("findmnt", "--json", "/var/lib/kubelet"))


def test_the_kernel_that_was_asked_for_is_the_one_that_runs() -> None:
    assert os.uname().release == os.environ["RDS_CSI_LAB_RELEASE"]
