"""A real driver whose log cannot be written answers as one whose log can."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from rds_csi.csi import v1 as csi

F_SETPIPE_SZ = 1031
CALLS = 150


class Driver:
    """A node's driver with ``--log-level=debug``; its standard error is ``stderr``."""

    def __init__(self, root: Path, stderr: int, *, closed: bool = False) -> None:
        self.socket = root / "csi.sock"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [
            *(sys.executable, "-m", "rds_csi", "node", f"--endpoint={self.socket}"),
            *(
                "--cluster-id=test",
                "--node-id=n1",
                f"--kubelet-dir={root.parent}",
                "--log-level=debug",
            ),
            *(f"--state-dir={root / 'state'}", f"--metrics-address=127.0.0.1:{self.port}"),
        ]
        if closed:
            command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
        self.process = subprocess.Popen(command, stderr=stderr)

    def call(self, service: str, method: str, request: bytes) -> tuple[grpc.StatusCode, str]:
        """The code and the text of the answer."""
        try:
            self._channel.unary_unary(f"/csi.v1.{service}/{method}")(request, timeout=20)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    def answers(self) -> list[tuple[grpc.StatusCode, str]]:
        """What it answers to calls that go well and to calls that do not; each is logged."""
        wrong = csi.NodeGetVolumeStatsRequest(volume_id="pvc-1", volume_path="/elsewhere")
        with grpc.insecure_channel(f"unix:{self.socket}") as self._channel:
            probes = [self.call("Identity", "Probe", b"") for _ in range(CALLS)]
            assert set(probes) == {(grpc.StatusCode.OK, "")}
            return [
                self.call("Node", "NodeGetInfo", b""),
                self.call("Node", "NodeStageVolume", b""),
                self.call("Node", "NodeGetVolumeStats", bytes(wrong)),
                self.call("Node", "NodeStageVolume", b"\xff"),
            ]

    def dropped(self) -> float:
        """The metric."""
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics").read().decode()
        (value,) = re.findall(r"^rds_csi_log_lines_dropped_total (\S+)$", page, re.MULTILINE)
        return float(value)

    def until_it_serves(self) -> None:
        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "the driver ended"
            assert time.monotonic() < end
            with socket.socket(socket.AF_UNIX) as client:
                if client.connect_ex(str(self.socket)) == 0:
                    break
            time.sleep(0.02)
        with grpc.insecure_channel(f"unix:{self.socket}") as self._channel:
            # Metrics are served a moment later.
            while self.call("Identity", "Probe", b"")[0] is not grpc.StatusCode.OK:
                time.sleep(0.02)

    def end(self) -> tuple[int, float]:
        """The exit status at SIGTERM, and after how many seconds."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60), time.monotonic() - began


@contextlib.contextmanager
def driver(root: Path, stderr: int, *, closed: bool = False) -> Iterator[Driver]:
    root.mkdir()
    running = Driver(root, stderr, closed=closed)
    try:
        running.until_it_serves()
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_calls_and_the_end_are_as_ever_whatever_becomes_of_the_log(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file, driver(tmp_path / "well", file.fileno()) as well:
        expected = well.answers()
        assert [code.name for code, _ in expected] == [
            "OK",
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "INVALID_ARGUMENT",
        ]
        assert well.dropped() == 0
        assert well.end()[0] == 0
    log = (tmp_path / "log").read_text().splitlines()
    assert '"event": "stopped"' in log[-1]
    assert sum('"rpc": "Probe"' in line for line in log) >= CALLS
    with Path("/dev/full").open("wb") as full, driver(tmp_path / "full", full.fileno()) as running:
        assert running.answers() == expected
        assert running.dropped() > CALLS
        assert running.end()[0] == 0
    with driver(tmp_path / "closed", subprocess.DEVNULL, closed=True) as running:
        assert running.answers() == expected
        assert running.dropped() > CALLS
        assert running.end()[0] == 0


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("read", [True, False])
def test_a_pipe_that_nobody_reads_does_not_stop_the_driver(
    tmp_path: Path, blocking: bool, read: bool
) -> None:
    """The container runtime hangs, or has gone: then the pipe fills up, or breaks."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, blocking)
    try:
        with driver(tmp_path / "d", writing) as running:
            if not read:
                os.close(reading)
            codes = [code.name for code, _ in running.answers()]
            assert codes == ["OK", "INVALID_ARGUMENT", "NOT_FOUND", "INVALID_ARGUMENT"]
            # A pipe that may yet be read again loses nothing while there is room to wait.
            assert (running.dropped() > 0) == (not read)
            status, seconds = running.end()
            assert status == 0
            assert seconds < 15
    finally:
        os.close(writing)
        if read:
            os.close(reading)
