"""An RDS for the doctor's tests: the simulator, and something that answers as a target."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from rds_csi.config import ControllerConfig, DriverConfig, volume_defaults
from rds_csi.doctor.check import Check, Status
from rds_csi.doctor.rds.checks import Examination, examine
from rds_csi.doctor.rds.scratch import Bench
from rds_csi.simulator import Simulator

from .conftest import BASE, CLUSTER, Rds
from .user_target import UserTarget

SHARED = DriverConfig(endpoint=Path("/csi/csi.sock"), cluster_id=CLUSTER)
IC_RESPONSE = struct.pack("<BBBBI", 1, 0, 128, 0, 128).ljust(128, b"\0")


@asynccontextmanager
async def target() -> AsyncIterator[int]:
    """A port that answers the first PDU of NVMe/TCP as a target does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(128)
        writer.write(IC_RESPONSE)
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def make_user(rds: Rds, policy: str = "ssh,read,write,test") -> None:
    """The driver's user, as docs/routeros.md has an administrator make it."""
    key = asyncssh.read_private_key(rds.key_file).export_public_key().decode().strip()
    for line in (
        f"/user/group/add name=csi policy={policy}",
        "/user/add name=csi group=csi password=x",
        f'/user/ssh-keys/add user=csi key="{key}"',
    ):
        assert await rds.simulator.run(line) == ""
    rds.simulator.server.authorized.clear()


@asynccontextmanager
async def exporting(key_file: Path, folder: Path, target: UserTarget) -> AsyncIterator[Rds]:
    """An RDS whose exports can be connected to, with the driver's user."""
    async with Simulator(folder / "rds", version="7.24.2", export=target) as simulator:
        simulator.make_directory(BASE)
        found = Rds(simulator, key_file)
        await make_user(found)
        yield found
        await found.close()


class Doctor:
    """The doctor with its settings, and what it found."""

    def __init__(self, rds: Rds, nvme_port: int) -> None:
        self.rds = rds
        self.nvme_port = nvme_port
        self.settings: dict[str, Any] = {
            "rds_address": rds.simulator.address,
            "rds_port": rds.simulator.port,
            "rds_user": "csi",
            "rds_key_file": rds.key_file,
            "rds_host_keys": (rds.simulator.host_key_line,),
        }
        self.volume_path = BASE

    async def set_policy(self, policy: str) -> None:
        """What the user's group allows."""
        assert await self.rds.simulator.run(f"/user/group/set csi policy={policy}") == ""

    @property
    def controller(self) -> ControllerConfig:
        return ControllerConfig(
            **self.settings,
            defaults=volume_defaults(
                {
                    "nvmeAddress": "127.0.0.1",
                    "nvmePort": str(self.nvme_port),
                    "volumePath": self.volume_path,
                }
            ),
        )

    def bench(self) -> Bench:
        """Where scratch volumes are made, over a session of its own."""
        session = self.rds.session()
        return Bench(session, SHARED, self.controller)

    async def examine(self, *, write: bool = False) -> Examination:
        return await examine(SHARED, self.controller, write=write)


def named(found: Examination, name: str) -> list[Check]:
    return [check for check in found.checks if check.name == name]


def one(found: Examination, name: str) -> Check:
    [check] = named(found, name)
    return check


def statuses(found: Examination) -> dict[str, Status]:
    """What is not as it should be."""
    return {check.name: check.status for check in found.checks if check.status is not Status.OK}
