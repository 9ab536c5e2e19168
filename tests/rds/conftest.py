"""An RDS for the tests: the simulator behind real SSH, and what a test wants to know of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import asyncssh
import pytest

from rds_csi.controller.service import Controller, ControllerSettings
from rds_csi.errors import Unavailable
from rds_csi.model.parameters import VolumeParameters
from rds_csi.model.record import Record
from rds_csi.model.volume import MIB
from rds_csi.routeros import Disk, Disks, Session, SessionSettings
from rds_csi.simulator import Simulator

T = TypeVar("T")
CLUSTER = "test"
OWNER = f"csi.rds-csi.io/{CLUSTER}"
PREFIX = "nqn.2000-02.com.mikrotik"
BASE = "raid10/csi"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-samples", action="store_true", help="write the samples in docs/")


class Rds:
    """The simulator, with the views and acts that tests share."""

    def __init__(self, simulator: Simulator, key_file: Path) -> None:
        self.simulator = simulator
        self.key_file = key_file
        self._sessions: list[Session] = []

    def session(self, **changes: object) -> Session:
        """A new connection keeper to this RDS."""
        session = Session(
            SessionSettings(
                host=self.simulator.address,
                port=self.simulator.port,
                user="csi",
                key_file=self.key_file,
                host_keys=(self.simulator.host_key_line,),
                **{"reconnect_limit": 1.0, **changes},  # type: ignore[arg-type]
            )
        )
        self._sessions.append(session)
        return session

    def backend(self) -> Disks:
        """The volumes, over a connection of their own."""
        return Disks(self.session(), owner=OWNER, base_path=BASE)

    def controller(
        self, *, nvme_addresses: tuple[str, ...] = ("10.0.0.5",), **changes: object
    ) -> Controller:
        """A controller as another replica, or the next life of this one, would be."""
        settings = ControllerSettings(
            owner=OWNER,
            cluster_id=CLUSTER,
            nqn_prefix=PREFIX,
            defaults=VolumeParameters(nvme_addresses=nvme_addresses, volume_path=BASE),
            **changes,  # type: ignore[arg-type]
        )
        return Controller(self.backend(), settings)

    def execs(self) -> int:
        """How many commands have come over SSH."""
        return len(self.simulator.execs())

    def slots(self) -> list[str]:
        """The slots of all file disks."""
        return sorted(self.simulator.disks)

    def files(self) -> list[str]:
        """All files; directories excepted."""
        return sorted(name for name, size in self.simulator.files.items() if size is not None)

    def disk(self, slot: str) -> Disk:
        """The disk as the simulator, not the client, knows it."""
        found = self.simulator.disks[slot]
        text = str(found.properties.get("comment", ""))
        return Disk(
            slot=slot,
            size=found.size,
            file_path=str(found.properties["file-path"]).removeprefix("/"),
            comment=text,
            record=Record.parse(text),
            nqn=str(found.properties.get("nvme-tcp-server-nqn", "")),
            port=int(str(found.properties.get("nvme-tcp-server-port", 4420))),
            exported=bool(found.properties.get("nvme-tcp-export", False)),
            allowed_host=str(found.properties.get("nvme-tcp-server-allow-host-name", "")),
            file_system=self.simulator.device.file_system(found),
            mountable=bool(found.properties.get("mount-filesystem", True)),
            mount_point=slot if self.simulator.device.mounted(found) else "",
        )

    def format(self, slot: str, file_system: str) -> None:
        """Put a superblock into the disk's file, as a node does that formats it."""
        place, magic = {"ext4": (0x438, b"\x53\xef"), "xfs": (0, b"XFSB")}[file_system]
        with self.simulator.path(self.disk(slot).file_path).open("r+b") as file:
            file.seek(place)
            file.write(magic)

    async def add_disk(self, slot: str, *, comment: str = "", exported: bool = False) -> None:
        """A disk that somebody else made."""
        output = await self.simulator.run(
            f'/disk/add type=file slot="{slot}" file-path="{BASE}/{slot}.img" '
            f'file-size={64 * MIB} comment="{comment}" '
            f'nvme-tcp-server-nqn="{PREFIX}:{slot}" nvme-tcp-export={"yes" if exported else "no"}'
        )
        assert output == "", output

    async def stop(self) -> None:
        """Power off."""
        await self.simulator.server.stop()

    async def start(self) -> None:
        """Power on, at the same address."""
        await self.simulator.server.start(self.simulator.address, self.simulator.port)

    async def eventually(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What a sidecar does: call again while the answer is UNAVAILABLE."""
        async with asyncio.timeout(20):
            while True:
                try:
                    return await attempt()
                except Unavailable:
                    await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Close every connection made here."""
        for session in self._sessions:
            await session.close()


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "id_ed25519"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(path)
    path.chmod(0o600)
    return path


@pytest.fixture
async def rds(client_key: Path, tmp_path: Path) -> AsyncIterator[Rds]:
    public = asyncssh.read_private_key(client_key).convert_to_public()
    async with Simulator(tmp_path / "rds", authorized_keys=[public]) as simulator:
        simulator.make_directory(BASE)
        found = Rds(simulator, client_key)
        yield found
        await found.close()


@pytest.fixture
def controller(rds: Rds) -> Controller:
    return rds.controller()
