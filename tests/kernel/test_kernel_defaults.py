"""What a connection is like when nobody asks for anything: docs/kernel-defaults.md, measured.

The page has a column per kernel. The one that runs is held against its own, else the one before.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from rds_csi.model.contexts import Endpoint
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.arguments import connect_arguments
from tests.lab.application import tell
from tests.lab.kernel_log import KernelLog
from tests.lab.target import Target

pytestmark = pytest.mark.kernels

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "kernel-defaults.md"
PARAMETERS: Final = Path("/sys/module/nvme_core/parameters")
NQN: Final = "nqn.2000-02.com.mikrotik:defaults"
PORT: Final = 4498
RELEASE: Final = tuple(int(part) for part in os.uname().release.split(".")[:2])
PATIENCE: Final = 60
"""Seconds; the emulated processor is slow."""
# Of the options that `connect_arguments` gives to nvme, the kernel's own names (fabrics.c).
OPTIONS: Final = {
    "ctrl_loss_tmo",
    "reconnect_delay",
    "keep_alive_tmo",
    "fast_io_fail_tmo",
    "nr_io_queues",
    "queue_size",
    "hostnqn",
    "hostid",
}


def documented() -> dict[str, str]:
    """What the page says of this kernel: the cell by the row's first one."""
    said: dict[str, str] = {}
    column = 0
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if not line.startswith("|") or set(line) <= set("|-"):
            continue
        found = {
            (int(match[1]), int(match[2])): index
            for index, cell in enumerate(cells)
            if (match := re.fullmatch(r"Linux (\d+)\.(\d+)", cell))
        }
        if found:
            assert min(found) <= RELEASE, f"the page has no column for Linux {RELEASE}"
            column = found[max(version for version in found if version <= RELEASE)]
        elif column:
            said[cells[0]] = cells[column]
    assert said
    return said


def read(path: Path) -> str:
    return path.read_text().strip()


def wait_for(what: str, found: Callable[[], list[Path]]) -> Path:
    end = time.monotonic() + PATIENCE
    while not (paths := found()):
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.1)
    return paths[0]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    file = tmp_path / "volume.img"
    with file.open("wb") as content:
        content.truncate(64 << 20)
    target = Target(NQN, file, port=PORT)
    target.start()
    yield target
    target.stop()


@contextmanager
def connected(*options: str) -> Iterator[tuple[Path, Path]]:
    """The controller's and the block device's directories in sysfs."""
    address = ["-t", "tcp", "-a", "127.0.0.1", "-s", str(PORT), "-n", NQN]
    subprocess.run(["nvme", "connect", *address, *options], check=True, timeout=60)
    try:
        controller = wait_for(
            "the controller",
            lambda: [
                path
                for path in Path("/sys/class/nvme").iterdir()
                if read(path / "subsysnqn") == NQN
            ],
        )
        # With multipath the requests are the path's, nvmeXcYnZ; its head has no such timer.
        queue = wait_for(
            "the device's timer", lambda: [*controller.glob("nvme*n*/queue/io_timeout")]
        )
        yield controller, queue.parent.parent
    finally:
        subprocess.run(["nvme", "disconnect", "-n", NQN], check=True, capture_output=True)


def disk() -> Path | None:
    """The block device that applications use, in sysfs; with multipath the head."""
    for subsystem in Path("/sys/class/nvme-subsystem").iterdir():
        if read(subsystem / "subsysnqn") == NQN:
            for device in Path("/sys/block").glob("nvme*n*"):
                if subsystem.name in device.resolve().parts and re.fullmatch(
                    r"nvme\d+n\d+", device.name
                ):
                    return device
    return None


@pytest.mark.requirement("OPEN-01")
def test_the_document_says_what_the_kernel_does(target: Target) -> None:
    measured = settings()
    measured["the target answers a reconnect and denies the export"] = denied(target)
    target.admit_all()
    measured["the namespace comes back with another UUID"] = another_uuid(target)
    tell(f"Linux {os.uname().release}: {measured}")
    assert measured == documented()


def settings() -> dict[str, str]:
    with connected() as (controller, device):
        assert read(controller / "state") == "live"
        said = {
            name: read(controller / name.partition(" ")[0])
            for name in (
                "ctrl_loss_tmo",
                "reconnect_delay",
                "kato (keep-alive)",
                "fast_io_fail_tmo",
                "queue_count",
                "sqsize",
            )
        }
        said["io_timeout (device)"] = read(device / "queue" / "io_timeout")
        head = disk()
        assert head is not None
        delay = head / "delayed_removal_secs"
        said["delayed_removal_secs (device)"] = read(delay) if delay.exists() else "not there"
    said["io_timeout (module)"] = read(PARAMETERS / "io_timeout")
    said["admin_timeout (module)"] = read(PARAMETERS / "admin_timeout")
    said["multipath (module)"] = read(PARAMETERS / "multipath")
    if said["queue_count"] == str((os.cpu_count() or 0) + 1):
        said["queue_count"] = "CPUs + 1"
    return said


def denied(target: Target) -> str:
    """A target that is away for a moment and then lets nobody in; the kernel may try for ever."""
    log = KernelLog()
    with connected("-l", "-1", "-c", "1") as (controller, _):
        target.cut()
        target.admit_nobody()
        target.restore()
        end = time.monotonic() + PATIENCE
        while controller.exists():
            # Refused by TCP at most once, before the target was there again.
            if len(log.lines(f"{controller.name}: Failed reconnect attempt")) >= 4:
                break
            assert time.monotonic() < end, "neither tried again nor given up"
            time.sleep(0.1)
        gone = not controller.exists()
    log.close()
    return "given up at once" if gone else "tried again"


def another_uuid(target: Target) -> str:
    """What becomes of the device of a connection that comes back."""
    with connected("-l", "-1", "-c", "1") as (controller, _):
        before = disk()
        assert before is not None
        held = os.open(f"/dev/{before.name}", os.O_RDONLY)
        try:
            target.cut()
            target.change_uuid()
            wait_for("it is away", lambda: [controller] * (read(controller / "state") != "live"))
            target.restore()
            wait_for("it is back", lambda: [controller] * (read(controller / "state") == "live"))
            # The namespaces are looked at after the connection is up.
            end = time.monotonic() + 5
            while before.exists() and time.monotonic() < end:
                time.sleep(0.1)
            return "its device is kept" if before.exists() else "its device is removed"
        finally:
            os.close(held)


@pytest.mark.requirement("CONN-01")
@pytest.mark.requirement("ARGS-01")
@pytest.mark.usefixtures("target")
def test_what_the_driver_asks_for_by_default() -> None:
    arguments = connect_arguments(Endpoint("127.0.0.1", PORT, NQN), ConnectionConfig(), None)
    options = arguments[arguments.index("-n") + 2 :]
    with connected(*options) as (controller, _):
        assert read(controller / "ctrl_loss_tmo") == "off"
        assert read(controller / "reconnect_delay") == "5"
        for name in ("kato", "fast_io_fail_tmo", "sqsize"):
            shown = "kato (keep-alive)" if name == "kato" else name
            assert read(controller / name) == documented()[shown]


@pytest.mark.requirement("CONN-01")
@pytest.mark.usefixtures("target")
def test_each_setting_is_the_kernels() -> None:
    chosen = ConnectionConfig(
        ctrl_loss_tmo=77, reconnect_delay=7, keep_alive_tmo=9, nr_io_queues=1, queue_size=32
    )
    arguments = connect_arguments(Endpoint("127.0.0.1", PORT, NQN), chosen, None)
    with connected(*arguments[arguments.index("-n") + 2 :]) as (controller, _):
        assert read(controller / "ctrl_loss_tmo") == "77"
        assert read(controller / "reconnect_delay") == "7"
        assert read(controller / "kato") == "9"
        assert read(controller / "queue_count") == "2"
        assert read(controller / "sqsize") == "31"


def test_the_kernel_takes_our_options_and_none_for_the_io_timeout() -> None:
    with Path("/dev/nvme-fabrics").open() as fabrics:
        said = fabrics.read()
    options = {option.partition("=")[0].strip() for option in re.split(r"[,\n]", said)}
    assert options >= OPTIONS
    assert not {option for option in options if "timeout" in option or "io_tmo" in option}


@pytest.mark.usefixtures("target")
def test_the_modules_io_timeout_counts_for_later_connections_only() -> None:
    before = read(PARAMETERS / "io_timeout")
    try:
        with connected() as (_, device):
            (PARAMETERS / "io_timeout").write_text("20")
            assert read(device / "queue" / "io_timeout") == f"{before}000"
        with connected() as (_, device):
            assert read(device / "queue" / "io_timeout") == "20000"
    finally:
        (PARAMETERS / "io_timeout").write_text(before)
