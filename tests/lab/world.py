"""A cluster of one RDS and one node in this machine, and a client that is its Kubernetes."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import asyncssh
import pytest

from rds_csi.demo.kubelet import Claim, Kubernetes
from rds_csi.driver.connections import BASELINES
from rds_csi.simulator import Simulator
from tests.lab import node
from tests.lab.application import Application
from tests.lab.processes import Driver, Zygote
from tests.lab.waiting import until

KUBELET: Final = Path("/var/lib/kubelet")
STATE: Final = Path("/var/lib/rds-csi")
PREFIX: Final = "nqn.2000-02.com.mikrotik:pvc-"
BASE: Final = "raid10/csi"
MIB: Final = 1024**2
GIB: Final = 1024**3
SIZE: Final = 256 * MIB


class World:
    """The RDS, its key, and the drivers that talk to it."""

    def __init__(self, rds: Simulator, key: Path, zygote: Zygote, folder: Path) -> None:
        self.rds = rds
        self._zygote = zygote
        self._folder = folder
        self._host_key = folder / "host.pub"
        self._host_key.write_text(rds.host_key_line + "\n")
        self._key = key
        self.drivers: list[Driver] = []

    def driver(
        self,
        command: str = "all",
        *,
        node_id: str = "node-1",
        path_layer: bool = False,
        **flags: str,
    ) -> Driver:
        """A driver, not started yet; nodes of other names share nothing but the kernel."""
        arguments = [
            command,
            "--cluster-id=lab",
            "--log-level=debug",
            "--log-format=console",
        ]
        if command in ("all", "controller"):
            arguments += [
                f"--rds-address={self.rds.address}",
                f"--rds-port={self.rds.port}",
                f"--rds-key-file={self._key}",
                f"--rds-host-key-file={self._host_key}",
                "--nvme-address=127.0.0.1",
                f"--volume-path={BASE}",
                *(["--path-layer"] if path_layer else []),
            ]
        if command in ("all", "node"):
            arguments += [
                f"--node-id={node_id}",
                f"--kubelet-dir={KUBELET}",
                f"--state-dir={STATE / node_id}",
            ]
        arguments += [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        driver = Driver(self._zygote, arguments, self._folder / f"{command}-{node_id}")
        self.drivers.append(driver)
        return driver

    def leftovers(self) -> list[str]:
        """Everything that is still there; empty after all volumes were deleted."""
        found = [f"mount: {line}" for line in node.mounts(KUBELET)]
        found += [f"controller: {entry}" for entry in node.controllers(PREFIX)]
        found += [f"map: {uuid}" for uuid in node.maps().values()]
        found += [f"disk: {slot}" for slot in self.rds.disks]
        found += [f"file: {name}" for name, size in self.rds.files.items() if size is not None]
        # What targets counted is forgotten at the next look, not in the instant of an unstage.
        records = (path for path in STATE.rglob("*") if path.stem != BASELINES)
        found += [f"record: {path}" for path in records if path.is_file()]
        found += [f"hazard: {text}" for text in self.rds.device.hazards]
        return found

    async def close(self) -> None:
        for driver in self.drivers:
            with contextlib.suppress(AssertionError):
                await driver.stop()
            if driver.running():
                await driver.kill()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
    path.chmod(0o600)
    return path


@pytest.fixture
def listening() -> str:
    """The address at which the RDS exports; a module that needs more of them has its own."""
    return "127.0.0.1"


@pytest.fixture
async def world(
    zygote: Zygote, client_key: Path, tmp_path: Path, listening: str
) -> AsyncIterator[World]:
    """Everything is taken down afterwards; what a test leaves behind fails it."""
    public = asyncssh.read_private_key(client_key).convert_to_public()
    simulator = Simulator(
        tmp_path / "rds",
        pools={"raid10": 64 * GIB},
        export="nvmet",
        authorized_keys=[public],
        nvme_address=listening,
    )
    async with simulator as rds:
        rds.make_directory(BASE)
        world = World(rds, client_key, zygote, tmp_path)
        yield world
        # A writer that a failed test left would hold its mount, and disturb the tests after it.
        killed = Application.kill_all()
        await world.close()
        leftovers = world.leftovers()
        await rds.restore(None)
        node.clean(KUBELET, PREFIX)
        for process in killed:
            await until(lambda process=process: process.poll() is not None, "a killed writer ends")  # type: ignore[misc]
    for path in (*KUBELET.iterdir(), *STATE.iterdir()):
        shutil.rmtree(path)
    # In words: pytest shows no values of a module that is no test.
    assert not leftovers, f"left behind: {leftovers}"


@pytest.fixture
def flags() -> dict[str, str]:
    """What the driver is told beyond what it needs."""
    return {}


@pytest.fixture
async def driver(world: World, request: pytest.FixtureRequest, flags: dict[str, str]) -> Driver:
    """With the path layer where the test is marked ``path_layer``."""
    layered = request.node.get_closest_marker("path_layer") is not None
    driver = world.driver(path_layer=layered, **flags)
    await driver.start()
    return driver


@pytest.fixture
async def kubernetes(driver: Driver) -> AsyncIterator[Kubernetes]:
    async with Kubernetes(driver.socket, driver.socket) as client:
        yield client


def claim(name: str, access: str, size: int = SIZE) -> Claim:
    return Claim(name=name, access=access, size=size, kubelet_dir=KUBELET)
