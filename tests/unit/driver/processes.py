"""The driver as a process, with an ``nvme`` of ours that refuses, hangs, or will not die."""

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import pytest

from rds_csi.csi import v1 as csi

PREFIX: Final = "nqn.2000-02.com.mikrotik"
KUBELETS_PATIENCE: Final = 30.0
"""Seconds: a pod's default terminationGracePeriodSeconds."""

NODE: Final = """
import os, signal, sys
from pathlib import Path
from rds_csi.cli import main as cli
from rds_csi.runtime import process
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.sysfs import Sysfs

root, unkillable, *arguments = sys.argv[1:]
path = f"{root}/bin:{process.ENVIRONMENT['PATH']}"
process.ENVIRONMENT = {**process.ENVIRONMENT, "PATH": path}
Connector.__init__.__kwdefaults__["fabrics"] = Path(root, "fabrics")
Sysfs.__init__.__defaults__ = (Path(root, "sys"),)
if Path(root, "failing-disk").exists():
    from rds_csi.node.staging import StagingStore
    async def fail(store):
        raise OSError(5, "Input/output error")
    StagingStore._volumes = fail
if unkillable:
    process.SubprocessRunner.__init__.__kwdefaults__["signal_group"] = lambda pid, number: None
cli.main(arguments)
"""

STUBBORN: Final = """
import asyncio, sys
from pathlib import Path
from rds_csi.driver import lifecycle as driver
from rds_csi.config import DriverConfig

async def stubborn():
    print("stubborn runs", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

class Driver(driver.Driver):
    def __init__(self, *settings):
        super().__init__(*settings)
        self._parts.append(driver.Part(service=None, background={"stubborn": stubborn}))

driver.Driver = Driver
driver._CLOSE_BUDGET = 1.0
config = DriverConfig(endpoint=Path(sys.argv[1]), cluster_id="test", drain_budget=1.0)
sys.exit(driver.run(config, None, None))
"""

DEAD_DNS: Final = """
import socket, sys, threading
from rds_csi.cli import main as cli

def getaddrinfo(*question, **more):
    print("asked for", question[0], flush=True)
    threading.Event().wait()

socket.getaddrinfo = getaddrinfo
cli.main(sys.argv[1:])
"""

NVME: Final = {
    "refuses": "echo 'Failed to write to /dev/nvme-fabrics: Connection refused' >&2; exit 1",
    "hangs": "trap '' TERM; sleep 600 & sleep 600; sleep 600",
    "cannot be killed": "exec sleep 600",
}


@dataclass(frozen=True, slots=True)
class Process:
    root: Path
    child: asyncio.subprocess.Process

    @property
    def socket(self) -> Path:
        return self.root / "csi.sock"

    def lines(self) -> list[dict[str, object]]:
        """What it has logged."""
        text = (self.root / "log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def events(self) -> list[object]:
        """The lines of its log, by name."""
        return [line["event"] for line in self.lines()]

    def connects(self) -> list[int]:
        """The process ids of the ``nvme connect`` it has started."""
        file = self.root / "connects"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def records(self) -> list[Path]:
        """What it remembers of staged volumes."""
        return list(self.root.glob("state/*"))

    async def end(self, within: float) -> tuple[int, float]:
        """Its exit status after SIGTERM, and how long that took."""
        began = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(within):
            status = await self.child.wait()
        return status, time.monotonic() - began


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def of_session(session: int) -> list[int]:
    """The living processes of a session, which is what the runner makes of each program."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(entry.parent.name))
    return found


@contextlib.asynccontextmanager
async def started(root: Path, *arguments: str) -> AsyncIterator[Process]:
    with (root / "log").open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", *arguments, stdin=asyncio.subprocess.DEVNULL,
            stdout=log, stderr=log,
        )  # fmt: skip
    process = Process(root, child)
    try:
        async with asyncio.timeout(60):
            while not process.socket.exists():
                assert child.returncode is None, (root / "log").read_text()
                await asyncio.sleep(0.02)
        yield process
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        for pid in process.connects():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def node(root: Path, behaviour: str, *, budget: float = 2) -> AsyncIterator[Process]:
    """A node whose ``nvme connect`` behaves like that."""
    for directory in ("bin", "kubelet", "sys"):
        (root / directory).mkdir(exist_ok=True)
    (root / "fabrics").touch()
    program = root / "bin" / "nvme"
    program.write_text(f"#!/bin/sh\necho $$ >>{root}/connects\n{NVME[behaviour]}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    arguments = [
        "node",
        f"--endpoint={root}/csi.sock",
        "--cluster-id=test",
        "--node-id=node-1",
        f"--kubelet-dir={root}/kubelet",
        f"--state-dir={root}/state",
        f"--drain-budget={budget}",
        "--connects=4",
    ]
    unkillable = "yes" if behaviour == "cannot be killed" else ""
    async with started(root, NODE, str(root), unkillable, *arguments) as process:
        yield process


def volume(number: int) -> str:
    return f"pvc-{number:028x}"


def request(root: Path, number: int) -> csi.NodeStageVolumeRequest:
    staging = root / "kubelet" / str(number)
    staging.mkdir(exist_ok=True)
    nqn = f"{PREFIX}:{volume(number)}"
    return csi.NodeStageVolumeRequest(
        volume_id=volume(number),
        publish_context={"nvmeAddress": "192.0.2.1", "nvmePort": "4420", "nqn": nqn},
        staging_target_path=str(staging),
        volume_capability=csi.VolumeCapability(
            mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"),
            access_mode=csi.VolumeCapabilityAccessMode(
                mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
            ),
        ),
    )


@contextlib.asynccontextmanager
async def staging(process: Process) -> AsyncIterator[grpc.aio.UnaryUnaryMultiCallable]:
    """NodeStageVolume as the kubelet calls it; grpclib's client drops its calls at a GOAWAY."""
    async with grpc.aio.insecure_channel(f"unix://{process.socket}") as channel:
        yield channel.unary_unary(
            "/csi.v1.Node/NodeStageVolume",
            request_serializer=bytes,
            response_deserializer=csi.NodeStageVolumeResponse.parse,
        )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.02)


async def until_connects(process: Process, count: int) -> None:
    await until(lambda: len(process.connects()) >= count)


async def code_of(call: object) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # grpc has no types
    code = caught.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code
