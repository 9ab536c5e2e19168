"""What a long reply costs a controller: 10,000 volumes, the longest reply, and one without end.

An SSH server that answers like an RDS, in a process of its own. Printed are the peak memory of a
controller process as it is shipped, and for how long the event loop is held while the same rooms
list in this process: in CPU time, so that what else runs on the machine does not count.

Exits with 1 if the promises (85 % of the memory limit in the chart's values; 50 ms in the best of
three rounds) are not kept, or if an answer is not the one that it should be.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import yaml

from benchmarks.node import cost
from benchmarks.rpc import driver, started, until_terminated, wait_for, wait_until
from rds_csi.controller.pages import Listing
from rds_csi.csi import v1 as csi
from rds_csi.model.access import AccessMode
from rds_csi.model.record import Publication, Record
from rds_csi.model.volume import volume_id
from rds_csi.routeros import Disks, Session, SessionSettings
from rds_csi.routeros.fragments import PROPERTIES
from rds_csi.runtime.clock import SystemClock
from tests.unit.fakes.ssh import FakeRds, Process, public_text

OWNER: Final = "rds.csi.mikrotik.com/bench"
VOLUMES: Final = 10_000
LONGEST: Final = 16 * 1024**2
STALL_LIMIT: Final = 0.05
ROUNDS: Final = 3
LIST: Final = "/csi.v1.Controller/ListVolumes"
VALUES: Final = Path(__file__).parents[1] / "charts/rds-csi/values.yaml"


def disk(number: int) -> dict[str, object]:
    """What the RDS says of one of our volumes."""
    slot = volume_id(f"pvc-{number:08x}-1111-2222-3333-444444444444")
    record = Record(
        owner=OWNER,
        name=f"pvc-{number:08x}-1111-2222-3333-444444444444",
        created=1_700_000_000,
        access="ext4",
        generation=3,
        formatted="ext4",
        nodes=(Publication(f"worker-{number % 40}.example.com", AccessMode.SINGLE_NODE_WRITER),),
    )
    shown: dict[str, object] = {
        "slot": slot,
        "size": 10 * 1024**3,
        "file-path": f"raid10/csi/{slot}-0123456789abcdef.img",
        "comment": record.encode(),
        "nvme-tcp-server-nqn": f"nqn.2000-02.com.mikrotik:{slot}",
        "nvme-tcp-server-port": 4420,
        "nvme-tcp-export": True,
        "nvme-tcp-server-allow-host-name": "nqn.2014-08.org.nvmexpress:uuid:" + "0" * 36,
        "fs": "ext4",
        "mount-filesystem": False,
        "mount-point": "",
    }
    if shown.keys() != set(PROPERTIES):
        raise SystemExit(f"not what the driver asks for: {shown.keys() ^ set(PROPERTIES)}")
    return shown


class Rds:
    """The answers to a listing, as the file ``mode`` says: so many bytes in all, or endless."""

    def __init__(self, folder: Path) -> None:
        self._mode = folder / "mode"
        self._volumes = json.dumps([disk(number) for number in range(VOLUMES)]).encode()

    async def answer(self, process: Process, nonce: str, command: str) -> None:
        """Print the volumes."""
        end = f"\r\nCSI-OK-{nonce}\r\n".encode()
        if '"disks"' in command:
            mode = await asyncio.to_thread(self._mode.read_text)
            process.stdout.write(b"disks\r\n" + self._volumes)
            while mode == "endless":
                process.stdout.write(b"x" * 65536)
                await process.stdout.drain()
            process.stdout.write(b" " * max(0, int(mode) - len(self._volumes) - len(end) - 7))
        process.stdout.write(end)
        process.exit(0)


async def serve_rds(folder: Path) -> None:
    """The SSH server, in a process of its own: what it takes is not the controller's."""
    rds = Rds(folder)
    async with FakeRds(folder) as server:
        server.answer = rds.answer
        (folder / "host.pub").write_text(public_text(server.host_keys[0]) + "\n")
        (folder / "port.new").write_text(str(server.port))
        (folder / "port.new").rename(folder / "port")
        await until_terminated()


async def list_all(endpoint: Path) -> int:
    """How many volumes the controller lists, over all pages."""
    count, token = 0, ""
    async with grpc.aio.insecure_channel(f"unix:{endpoint}") as channel:
        call = channel.unary_unary(LIST, response_deserializer=csi.ListVolumesResponse.parse)
        while True:
            reply = await call(bytes(csi.ListVolumesRequest(starting_token=token)), timeout=100)
            count, token = count + len(reply.entries), reply.next_token
            if not token:
                return count


def peak(pid: int) -> int:
    """The most memory a process had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no VmHWM")


def limit() -> int:
    """The memory that the chart gives a controller."""
    memory = yaml.safe_load(VALUES.read_text())["controller"]["resources"]["limits"]["memory"]
    return int(memory.removesuffix("Mi")) * 1024**2


async def expect_refusal(endpoint: Path) -> None:
    """The one clear error."""
    try:
        await list_all(endpoint)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and f"{LONGEST} bytes" in error.details():
            return
        raise
    raise SystemExit("a reply without end was taken")


async def memory(folder: Path, endpoint: Path, pid: int) -> bool:
    """Print the controller's peak, one work after the other; whether it is as promised."""
    for name, mode in ((f"a listing of {VOLUMES}", "0"), ("the longest reply", str(LONGEST))):
        answer_with(folder, mode)
        listed = await asyncio.gather(*(list_all(endpoint) for _ in range(4)))
        if listed != [VOLUMES] * 4:
            raise SystemExit(f"{listed} volumes listed instead of {VOLUMES}")
        print(f"{name + ', four times':40}{peak(pid) / 1024**2:8.1f} MiB at most")
    answer_with(folder, "endless")
    await expect_refusal(endpoint)
    most, promised = peak(pid), limit() * 85 // 100
    print(f"{'and a reply without end':40}{most / 1024**2:8.1f} MiB (promised: {promised >> 20})")
    return most <= promised


async def stalls(folder: Path) -> bool:
    """Print for how long the event loop is held by a listing; whether it is as promised."""
    session = Session(
        SessionSettings(
            host="127.0.0.1",
            port=int((folder / "port").read_text()),
            user="csi",
            key_file=folder / "id",
            host_keys=((folder / "host.pub").read_text(),),
        )
    )
    listing = Listing(Disks(session, owner=OWNER, base_path="raid10/csi"), SystemClock(), 500)
    longest = 0.0
    for name, mode in ((f"a listing of {VOLUMES}", "0"), ("the longest reply", str(LONGEST))):
        answer_with(folder, mode)
        rounds = [await cost(lambda: listing.page("", 0)) for _ in range(ROUNDS)]
        own, stall = min(each.own for each in rounds), min(each.stall for each in rounds)
        print(f"{name:40}{own * 1000:8.0f} ms of CPU, {stall * 1000:5.1f} ms without a break")
        longest = max(longest, stall)
    await session.close()
    promised = STALL_LIMIT * 1000
    print(f"{'longest without a break':40}{longest * 1000:8.1f} ms  (promised: {promised:.0f})")
    return longest <= STALL_LIMIT


def answer_with(folder: Path, mode: str) -> None:
    """What the RDS does from now on."""
    (folder / "mode").write_text(mode)


def measure(folder: Path) -> bool:
    """Print it all; whether the promises are kept."""
    server = [sys.executable, "-m", "benchmarks.listing", f"--rds={folder}"]
    with started(server, folder / "rds.log") as rds:
        wait_until((folder / "port").exists, rds, folder / "rds.log")
        endpoint, log = folder / "controller.sock", folder / "controller.log"
        arguments = [
            "controller", f"--endpoint={endpoint}", "--cluster-id=bench",
            f"--driver-name={OWNER.partition('/')[0]}", "--rds-address=127.0.0.1",
            f"--rds-port={(folder / 'port').read_text()}", f"--rds-key-file={folder / 'id'}",
            f"--rds-host-key-file={folder / 'host.pub'}",
            "--nvme-address=127.0.0.1", "--volume-path=raid10/csi",
        ]  # fmt: skip
        with driver(arguments, log) as process:
            wait_for(endpoint, process, log)
            fits = asyncio.run(memory(folder, endpoint, process.pid))
        return asyncio.run(stalls(folder)) and fits


def main() -> int:
    """Run all of it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rds", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rds:
        asyncio.run(serve_rds(options.rds))
        return 0
    with tempfile.TemporaryDirectory(prefix="rds-bench-") as name:
        return 0 if measure(Path(name)) else 1


if __name__ == "__main__":
    sys.exit(main())
