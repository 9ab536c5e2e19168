"""What a connection is like when nobody asks for anything: docs/kernel-defaults.md, measured."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from rds_csi.model.contexts import Target as Address
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.arguments import connect_arguments
from tests.lab.application import tell
from tests.lab.target import Target

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "kernel-defaults.md"
PARAMETERS: Final = Path("/sys/module/nvme_core/parameters")
NQN: Final = "nqn.2000-02.com.mikrotik:defaults"
PORT: Final = 4498
_ROW: Final = re.compile(
    r"^\| `(\w+)`(?: \((module|device|keep-alive)\))? \| ([^|]+) \|", re.MULTILINE
)
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
    rows = _ROW.findall(DOCUMENT.read_text())
    return {
        f"{scope} {name}".replace("keep-alive ", "").strip(): value for name, scope, value in rows
    }


def read(path: Path) -> str:
    return path.read_text().strip()


def wait_for(what: str, found: Callable[[], list[Path]]) -> Path:
    end = time.monotonic() + 60
    while not (paths := found()):
        assert time.monotonic() < end, f"not within 60 s: {what}"
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


@pytest.mark.requirement("OPEN-01")
@pytest.mark.usefixtures("target")
def test_the_document_says_what_the_kernel_does() -> None:
    with connected() as (controller, device):
        assert read(controller / "state") == "live"
        measured = {
            name: read(controller / name)
            for name in (
                "ctrl_loss_tmo",
                "reconnect_delay",
                "kato",
                "fast_io_fail_tmo",
                "queue_count",
                "sqsize",
            )
        }
        measured["device io_timeout"] = read(device / "queue" / "io_timeout")
    measured["module io_timeout"] = read(PARAMETERS / "io_timeout")
    measured["module admin_timeout"] = read(PARAMETERS / "admin_timeout")
    if measured["queue_count"] == str((os.cpu_count() or 0) + 1):
        measured["queue_count"] = "CPUs + 1"
    tell(f"Linux {os.uname().release}: {measured}")
    assert measured == documented()


@pytest.mark.requirement("CONN-01")
@pytest.mark.requirement("ARGS-01")
@pytest.mark.usefixtures("target")
def test_what_the_driver_asks_for_by_default() -> None:
    arguments = connect_arguments(Address("127.0.0.1", PORT, NQN), ConnectionConfig(), None)
    options = arguments[arguments.index("-n") + 2 :]
    with connected(*options) as (controller, _):
        assert read(controller / "ctrl_loss_tmo") == "off"
        assert read(controller / "reconnect_delay") == "5"
        for name in ("kato", "fast_io_fail_tmo", "sqsize"):
            assert read(controller / name) == documented()[name]


@pytest.mark.requirement("CONN-01")
@pytest.mark.usefixtures("target")
def test_each_setting_is_the_kernels() -> None:
    chosen = ConnectionConfig(
        ctrl_loss_tmo=77, reconnect_delay=7, keep_alive_tmo=9, nr_io_queues=1, queue_size=32
    )
    arguments = connect_arguments(Address("127.0.0.1", PORT, NQN), chosen, None)
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
