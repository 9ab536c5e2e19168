"""The simulated RDS as a plain Linux host sees it, without the driver: nvme-cli and the kernel."""

import asyncio
import platform
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rds_csi.simulator import Quirks, Simulator
from tests.lab import node, volumes
from tests.lab.kernel_log import KernelLog
from tests.lab.waiting import until

NQN = "nqn.2000-02.com.mikrotik:simulated"
HOSTS = [f"nqn.2014-08.org.nvmexpress:uuid:{n * 8}-{n * 4}-{n * 4}-{n * 4}-{n * 12}" for n in "12"]
CONFIGFS = Path("/sys/kernel/config/nvmet")
MIB = 2**20
OBEYS = [int(part) for part in platform.release().split(".")[:2]] >= [6, 10]
"""Whether this kernel takes "do not retry" for an answer (docs/kernel-defaults.md)."""
ADD = (
    "/disk/add type=file slot=a file-path=raid10/a.img file-size=64M mount-filesystem=no "
    f'nvme-tcp-server-nqn="{NQN}" nvme-tcp-export=yes'
)


def nothing_is_left() -> bool:
    kinds = ("subsystems", "ports", "hosts")
    return not any(list((CONFIGFS / kind).iterdir()) for kind in kinds)


@asynccontextmanager
async def simulated(root: Path, quirks: Quirks) -> AsyncIterator[Simulator]:
    async with Simulator(root, export="nvmet", quirks=quirks) as simulator:
        assert await simulator.run(ADD) == ""
        yield simulator
        node.clean(Path("/nowhere"), NQN)
    assert nothing_is_left()


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    """As a device is believed to be."""
    async with simulated(tmp_path / "rds", Quirks()) as simulator:
        yield simulator


@pytest.fixture
async def kind(tmp_path: Path) -> AsyncIterator[Simulator]:
    """As one may hope that a device is."""
    quirks = Quirks()
    quirks.set("kind-target", "yes")
    async with simulated(tmp_path / "rds", quirks) as simulator:
        yield simulator


async def connect(host: str = HOSTS[0]) -> int:
    command = ["nvme", "connect", "-t", "tcp", "-a", "127.0.0.1", "-s", "4420", "-n", NQN]
    command += ["-l", "-1", "-c", "1", f"--hostnqn={host}", f"--hostid={host.rpartition(':')[2]}"]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    status = await process.wait()
    if status == 0:
        await until(lambda: device() is not None, "the namespace is there")
    return status


async def run(*command: str) -> None:
    await asyncio.to_thread(volumes.run, *command)


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
    await run("blockdev", "--flushbufs", str(device()))
    with rds.path("raid10/a.img").open("rb") as file:
        assert file.read(5) == b"hello"


async def test_growth_shows_once_the_export_was_off(rds: Simulator) -> None:
    assert await connect() == 0
    assert await rds.run("/disk/set a file-size=128M") == ""
    await run("nvme", "ns-rescan", f"/dev/{controller().name}")
    node.clean(Path("/nowhere"), NQN)
    assert await connect() == 0
    assert size() == 64 * MIB
    node.clean(Path("/nowhere"), NQN)
    assert await rds.run("/disk/set a nvme-tcp-export=no; /disk/set a nvme-tcp-export=yes") == ""
    assert await connect() == 0
    assert size() == 128 * MIB


async def test_a_kind_device_announces_growth(kind: Simulator) -> None:
    assert await connect() == 0
    assert size() == 64 * MIB
    assert await kind.run("/disk/set a file-size=128M") == ""
    await until(lambda: size() == 128 * MIB, "the host sees the new size")


async def test_after_a_reboot_it_is_another_device(rds: Simulator) -> None:
    """The host has its connection back and drops what it was connected to: another UUID."""
    assert await connect() == 0
    await asyncio.to_thread(write, b"before")
    await run("blockdev", "--flushbufs", str(device()))
    log = KernelLog()
    await rds.reboot(down=1.0)
    await live()
    await until(lambda: log.lines("identifiers changed for nsid 1") != [], "the host noticed")
    await until(lambda: device() is None, "its device is gone")
    log.close()
    node.clean(Path("/nowhere"), NQN)
    assert await connect() == 0
    assert await asyncio.to_thread(read, 6) == b"before"


async def test_a_reboot_of_a_kind_device_is_survived(kind: Simulator) -> None:
    assert await connect() == 0
    await asyncio.to_thread(write, b"before")
    identity = (controller() / "cntlid").read_text()
    await kind.reboot(down=1.0)
    await live()
    assert (controller() / "cntlid").read_text() != identity
    assert await asyncio.to_thread(read, 6) == b"before"
    await asyncio.to_thread(write, b"after")


@pytest.mark.kernels
async def test_the_port_opens_with_the_first_export_and_refuses_the_others(rds: Simulator) -> None:
    """A host that is told "do not retry" did so nevertheless, before Linux 6.10."""
    rds.quirks.stable_identifiers = True
    rds.quirks.export_spacing = 3600.0
    first = ADD.replace("slot=a", "slot=first").replace("a.img", "first.img")
    assert await rds.run("/disk/remove a") == ""
    assert await rds.run(first.replace(NQN, f"{NQN}-first")) == ""
    assert await rds.run(ADD.replace("file-size=64M", "")) == ""
    assert await connect() == 0
    await asyncio.to_thread(write, b"before")
    log = KernelLog()
    await rds.reboot()
    assert (rds.exported, rds.waiting) == ({"first"}, {"a"})

    def refused() -> int:
        return len(log.lines("Connect Invalid Data Parameter"))

    await until(lambda: refused() >= 2 or not node.controllers(NQN), "it is refused")
    assert refused() >= 1
    gave_up = not node.controllers(NQN)
    log.close()
    assert gave_up is OBEYS
    # Turned off and on it need not wait for its turn.
    assert await rds.run("/disk/set a nvme-tcp-export=no; /disk/set a nvme-tcp-export=yes") == ""
    if gave_up:
        assert await connect() == 0
    await live()
    assert await asyncio.to_thread(read, 6) == b"before"


async def test_a_killed_simulator_comes_back(kind: Simulator) -> None:
    assert await connect() == 0
    await asyncio.to_thread(write, b"kept")
    # Killed: its exports stay in the kernel, and nobody is there to end them.
    await kind.server.stop()
    async with Simulator(kind.root, export="nvmet", quirks=kind.quirks) as again:
        await live()
        assert again.exported == {"a"}
        assert await asyncio.to_thread(read, 4) == b"kept"
        node.clean(Path("/nowhere"), NQN)


async def test_what_a_host_discards_is_free_on_the_pool(rds: Simulator) -> None:
    assert await connect() == 0
    before = rds.free("raid10")
    await run("blkdiscard", "-l", str(16 * MIB), str(device()))
    assert rds.free("raid10") == before + 16 * MIB
    # mkfs discards the rest, or as much of it as it likes.
    await run("mkfs.ext4", "-q", str(device()))
    assert rds.free("raid10") > before + 32 * MIB


async def test_zeroes_that_a_host_asks_for_are_holes_too(rds: Simulator) -> None:
    rds.quirks.allocate = True
    grown = "/disk/set a nvme-tcp-export=no; /disk/set a file-size=128M"
    assert await rds.run(f"{grown}; /disk/set a nvme-tcp-export=yes") == ""
    assert await connect() == 0
    before = rds.free("raid10")
    part = ("-o", str(64 * MIB), "-l", str(32 * MIB))
    await run("blkdiscard", "--zeroout", *part, str(device()))
    assert rds.free("raid10") == before + 32 * MIB


async def test_only_the_allowed_host_connects(rds: Simulator) -> None:
    allow = "/disk/set a nvme-tcp-server-allow-host-name="
    assert await rds.run(f'{allow}"{HOSTS[1]}"') == ""
    assert await connect(HOSTS[0]) != 0
    assert await connect(HOSTS[1]) == 0
    node.clean(Path("/nowhere"), NQN)
    assert await rds.run(f'{allow}""') == ""
    assert await connect(HOSTS[0]) == 0


async def test_another_list_of_hosts_cuts_nobody_unless_it_is_the_quirk(rds: Simulator) -> None:
    assert await connect(HOSTS[0]) == 0
    log = KernelLog()
    allow = "/disk/set a nvme-tcp-server-allow-host-name="
    assert await rds.run(f'{allow}"{HOSTS[1]}"') == ""
    await asyncio.to_thread(write, b"still there")
    rds.quirks.allow_list_cuts = True
    assert await rds.run(f'{allow}"{HOSTS[1]},nqn.another"') == ""
    await until(lambda: log.lines("Reconnecting in") != [], "it is cut off")
    log.close()


async def test_the_end_of_the_export_is_seen(rds: Simulator) -> None:
    assert await connect() == 0
    assert await rds.run("/disk/set a nvme-tcp-export=no") == ""
    states = {"connecting", "resetting", "deleting"}
    await until(lambda: {c.state for c in node.controllers(NQN)} <= states, "the host noticed")
    assert await rds.run("/disk/set a nvme-tcp-export=yes") == ""
    await live()
