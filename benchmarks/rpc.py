"""How small and how fast the driver is, beside a plain grpcio server in the same run.

Prints the idle memory of the node process, the time from exec to a listening socket, and the
latencies of Probe and CreateVolume, one call at a time over a unix socket, from a grpcio
client. The yardstick is a ``grpc.aio`` server that answers the same bytes and does nothing.
CreateVolume of the driver includes its one SSH command to the simulator; what such a command
costs alone is printed too.

Exits with 1 if the promises (45 MiB, 0.5 s) are not kept.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import asyncssh
import grpc
import grpc.aio

from rds_csi.csi import v1 as csi

RSS_LIMIT: Final = 45 * 1024**2
START_LIMIT: Final = 0.5
STARTS: Final = 7
PROBES: Final = 2000
CREATES: Final = 300
WARM_UP: Final = 20
PROBE: Final = "/csi.v1.Identity/Probe"
CREATE: Final = "/csi.v1.Controller/CreateVolume"
SIZE: Final = 64 * 1024**2


def main() -> int:
    """Run all of it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yardstick", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--simulator", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.yardstick:
        asyncio.run(serve_yardstick(options.yardstick))
        return 0
    if options.simulator:
        asyncio.run(serve_simulator(options.simulator))
        return 0
    with tempfile.TemporaryDirectory(prefix="rds-bench-") as name:
        folder = Path(name)
        kept = footprint(folder)
        latencies(folder)
    return 0 if kept else 1


# The node process


def footprint(folder: Path) -> bool:
    """Print the node's memory and start time; whether both are as promised."""
    rss, starts = 0, []
    for _ in range(STARTS):
        endpoint = folder / "node.sock"
        arguments = [
            "node", f"--endpoint={endpoint}", "--cluster-id=bench", "--node-id=bench",
            f"--kubelet-dir={folder}/kubelet", f"--state-dir={folder}/state",
        ]  # fmt: skip
        begin = time.perf_counter()
        with driver(arguments, folder / "node.log") as process:
            wait_for(endpoint, process, folder / "node.log")
            starts.append(time.perf_counter() - begin)
            time.sleep(1.0)
            rss = max(rss, resident(process.pid))
    start = statistics.median(starts)
    print(f"node, idle RSS              {rss / 1024**2:8.1f} MiB   (promised: 45)")
    print(
        f"node, exec to socket        {start:8.2f} s     (promised: 0.5; "
        f"{STARTS} starts, {min(starts):.2f} to {max(starts):.2f})"
    )
    return rss <= RSS_LIMIT and start <= START_LIMIT


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


# Latencies


def latencies(folder: Path) -> None:
    """Print the latencies of the controller process and of the yardstick."""
    with yardstick(folder) as endpoint:
        plain_probe = measure(endpoint, PROBE, lambda _: b"", PROBES)
        plain_create = measure(endpoint, CREATE, create_request, CREATES)
    with controller(folder) as endpoint:
        probe = measure(endpoint, PROBE, lambda _: b"", PROBES)
        create = measure(endpoint, CREATE, create_request, CREATES)
        command = asyncio.run(ssh_commands(folder))
    print("one call at a time, ms                 p50      p99    ratio of p50")
    row("Probe, grpc.aio", plain_probe, plain_probe)
    row("Probe, rds-csi", probe, plain_probe)
    row("CreateVolume, grpc.aio", plain_create, plain_create)
    row("CreateVolume, rds-csi", create, plain_create)
    row("  of it one SSH command", command, plain_create)


def row(name: str, times: list[float], yardstick: list[float]) -> None:
    """One line of the table."""
    ratio = statistics.median(times) / statistics.median(yardstick)
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"{name:32}{statistics.median(times) * 1000:8.2f} {p99 * 1000:8.2f}   {ratio:8.1f}")


def measure(
    endpoint: Path, method: str, request: Callable[[int], bytes], count: int
) -> list[float]:
    """Seconds each of ``count`` calls took."""
    times = []
    with grpc.insecure_channel(f"unix:{endpoint}") as channel:
        call = channel.unary_unary(method)
        for number in range(-WARM_UP, count):
            message = request(number)
            begin = time.perf_counter()
            call(message, timeout=30)
            if number >= 0:
                times.append(time.perf_counter() - begin)
    return times


def create_request(number: int) -> bytes:
    """CreateVolume of a volume of its own."""
    return bytes(
        csi.CreateVolumeRequest(
            name=f"bench-{number}",
            capacity_range=csi.CapacityRange(required_bytes=SIZE),
            volume_capabilities=[
                csi.VolumeCapability(
                    mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"),
                    access_mode=csi.VolumeCapabilityAccessMode(
                        mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
                    ),
                )
            ],
        )
    )


def create_response() -> bytes:
    """What the yardstick answers: as long as the driver's answer."""
    volume = csi.Volume(
        volume_id="pvc-0123456789abcdef0123456789ab",
        capacity_bytes=SIZE,
        volume_context={
            "nvmeAddress": "127.0.0.1",
            "nvmePort": "4420",
            "nqn": "nqn.2000-02.com.mikrotik:pvc-0123456789abcdef0123456789ab",
            "volumePath": "raid10/csi",
            "ctrlLossTmo": "-1",
            "reconnectDelay": "5",
            "keepAliveTmo": "0",
        },
    )
    return bytes(csi.CreateVolumeResponse(volume=volume))


async def ssh_commands(folder: Path) -> list[float]:
    """Seconds that one SSH command takes, without the driver."""
    times = []
    host_key = asyncssh.import_public_key((folder / "host.pub").read_text())
    async with asyncssh.connect(
        "127.0.0.1",
        int((folder / "port").read_text()),
        username="csi",
        client_keys=[str(folder / "id")],
        known_hosts=([host_key], [], []),
        encryption_algs=["aes256-gcm@openssh.com"],
        config=None,
        agent_path=None,
    ) as connection:
        for number in range(-WARM_UP, CREATES):
            begin = time.perf_counter()
            await connection.run(":put 1", encoding=None)
            if number >= 0:
                times.append(time.perf_counter() - begin)
    return times


# The processes


@contextlib.contextmanager
def driver(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``rds-csi ARGUMENTS`` while the block runs."""
    with started([sys.executable, "-P", "-m", "rds_csi", *arguments], log) as process:
        yield process


@contextlib.contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the block runs."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@contextlib.contextmanager
def yardstick(folder: Path) -> Iterator[Path]:
    """The socket of the plain server."""
    endpoint, log = folder / "plain.sock", folder / "plain.log"
    command = [sys.executable, "-P", __file__, f"--yardstick={endpoint}"]
    with started(command, log) as process:
        wait_for(endpoint, process, log)
        yield endpoint


@contextlib.contextmanager
def controller(folder: Path) -> Iterator[Path]:
    """The socket of a controller that talks to a simulator in another process."""
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(folder / "id")
    (folder / "id").chmod(0o600)
    command = [sys.executable, "-P", __file__, f"--simulator={folder}"]
    with started(command, folder / "simulator.log") as simulator:
        wait_until((folder / "port").exists, simulator, folder / "simulator.log")
        endpoint, log = folder / "controller.sock", folder / "controller.log"
        arguments = [
            "controller", f"--endpoint={endpoint}", "--cluster-id=bench",
            "--rds-address=127.0.0.1", f"--rds-port={(folder / 'port').read_text()}",
            f"--rds-key-file={folder / 'id'}", f"--rds-host-key-file={folder / 'host.pub'}",
            "--nvme-address=127.0.0.1", "--volume-path=raid10/csi",
        ]  # fmt: skip
        with driver(arguments, log) as process:
            wait_for(endpoint, process, log)
            yield endpoint


async def serve_yardstick(endpoint: Path) -> None:
    """A plain ``grpc.aio`` server with the same answers."""

    def answering(answer: bytes) -> Any:
        async def handle(_request: bytes, _context: object) -> bytes:
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)

    probe = bytes(csi.ProbeResponse(ready=True))
    handlers = {
        "csi.v1.Identity": {"Probe": answering(probe)},
        "csi.v1.Controller": {"CreateVolume": answering(create_response())},
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, rpcs) for name, rpcs in handlers.items()]
    )
    server.add_insecure_port(f"unix:{endpoint}")
    await server.start()
    await until_terminated()
    await server.stop(None)


async def serve_simulator(folder: Path) -> None:
    """An RDS without any latency of its own."""
    from rds_csi.simulator import Simulator  # noqa: PLC0415 - the other processes need it not

    key = asyncssh.read_private_key(folder / "id").convert_to_public()
    async with Simulator(folder / "rds", authorized_keys=[key]) as rds:
        rds.make_directory("raid10/csi")
        (folder / "host.pub").write_text(rds.host_key_line + "\n")
        (folder / "port.new").write_text(str(rds.port))
        (folder / "port.new").rename(folder / "port")
        await until_terminated()


async def until_terminated() -> None:
    """Returns at SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def wait_for(endpoint: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when the socket accepts."""

    def accepts() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(endpoint)) == 0

    wait_until(accepts, process, log)


def wait_until(check: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when ``check`` is true; the process must live on meanwhile."""
    end = time.monotonic() + 30
    while not check():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{process.args!r} does not serve:\n{log.read_text()[-4000:]}")
        time.sleep(0.002)


if __name__ == "__main__":
    sys.exit(main())
