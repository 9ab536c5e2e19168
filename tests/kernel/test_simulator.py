"""The simulated RDS as a plain Linux host sees it, without the driver: nvme-cli and the kernel."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator
from tests.lab import node
from tests.lab.waiting import until

NQN = "nqn.2000-02.com.mikrotik:simulated"
HOSTS = [f"nqn.2014-08.org.nvmexpress:uuid:{n * 8}-{n * 4}-{n * 4}-{n * 4}-{n * 12}" for n in "12"]
CONFIGFS = Path("/sys/kernel/config/nvmet")
MIB = 2**20
ADD = (
    "/disk/add type=file slot=a file-path=raid10/a.img file-size=64M mount-filesystem=no "
    f'nvme-tcp-server-nqn="{NQN}" nvme-tcp-export=yes'
)


def nothing_is_left() -> bool:
    kinds = ("subsystems", "ports", "hosts")
    return not any(list((CONFIGFS / kind).iterdir()) for kind in kinds)


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds", export="nvmet") as simulator:
        assert await simulator.run(ADD) == ""
        yield simulator
        node.clean(Path("/nowhere"), NQN)
    assert nothing_is_left()


async def connect(host: str = HOSTS[0]) -> int:
    command = ["nvme", "connect", "-t", "tcp", "-a", "127.0.0.1", "-s", "4420", "-n", NQN]
    command += ["-l", "-1", "-c", "1", f"--hostnqn={host}", f"--hostid={host.rpartition(':')[2]}"]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    status = await process.wait()
    if status == 0:
        await until(lambda: device() is not None, "the namespace is there")
    return status


def controller() -> Path:
    (found,) = node.controllers(NQN)
    return Path("/sys/class/nvme") / found.name


def device() -> Path | None:
    """The block device of namespace 1, multipath head or not."""
    for subsystem in Path("/sys/class/nvme-subsystem").iterdir():
        if (subsystem / "subsysnqn").read_text().strip() == NQN:
            for head in subsystem.glob("nvme*n1"):
                return Path("/dev") / head.name
    return None


def size() -> int:
    found = device()
    assert found is not None
    return int(Path(f"/sys/class/block/{found.name}/size").read_text()) * 512


async def live() -> None:
    await until(lambda: [c.state for c in node.controllers(NQN)] == ["live"], "connected again")


def write(text: bytes) -> None:
    path = device()
    assert path is not None
    with path.open("r+b", buffering=0) as disk:
        disk.write(text.ljust(4096, b"\0"))


def read(length: int) -> bytes:
    path = device()
    assert path is not None
    with path.open("rb", buffering=0) as disk:
        return disk.read(4096)[:length]


async def test_a_host_reads_and_writes_what_is_in_the_file(rds: Simulator) -> None:
    rds.path("raid10/a.img").open("r+b").close()
    assert await connect() == 0
    await asyncio.to_thread(write, b"hello")
    await asyncio.to_thread(subprocess.run, ["blockdev", "--flushbufs", str(device())], check=True)
    with rds.path("raid10/a.img").open("rb") as file:
        assert file.read(5) == b"hello"


async def test_growth_shows_by_itself(rds: Simulator) -> None:
    assert await connect() == 0
    assert size() == 64 * MIB
    assert await rds.run("/disk/set a file-size=128M") == ""
    await until(lambda: size() == 128 * MIB, "the host sees the new size")


async def test_a_reboot_is_survived_with_another_controller_id(rds: Simulator) -> None:
    assert await connect() == 0
    await asyncio.to_thread(write, b"before")
    identity = (controller() / "cntlid").read_text()
    await rds.reboot(down=1.0)
    await live()
    assert (controller() / "cntlid").read_text() != identity
    assert await asyncio.to_thread(read, 6) == b"before"
    await asyncio.to_thread(write, b"after")


async def test_a_killed_simulator_comes_back(rds: Simulator) -> None:
    assert await connect() == 0
    await asyncio.to_thread(write, b"kept")
    # Killed: its exports stay in the kernel, and nobody is there to end them.
    await rds.server.stop()
    async with Simulator(rds.root, export="nvmet") as again:
        await live()
        assert again.exported == {"a"}
        assert await asyncio.to_thread(read, 4) == b"kept"
        node.clean(Path("/nowhere"), NQN)


async def test_only_the_allowed_host_connects(rds: Simulator) -> None:
    allow = "/disk/set a nvme-tcp-server-allow-host-name="
    assert await rds.run(f'{allow}"{HOSTS[1]}"') == ""
    assert await connect(HOSTS[0]) != 0
    assert await connect(HOSTS[1]) == 0
    node.clean(Path("/nowhere"), NQN)
    assert await rds.run(f'{allow}""') == ""
    assert await connect(HOSTS[0]) == 0


async def test_the_end_of_the_export_is_seen(rds: Simulator) -> None:
    assert await connect() == 0
    assert await rds.run("/disk/set a nvme-tcp-export=no") == ""
    states = {"connecting", "resetting", "deleting"}
    await until(lambda: {c.state for c in node.controllers(NQN)} <= states, "the host noticed")
    assert await rds.run("/disk/set a nvme-tcp-export=yes") == ""
    await live()
