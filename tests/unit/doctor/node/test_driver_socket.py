"""The driver's socket: nobody, somebody else, the driver itself."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib.const import Status as Code
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from rds_csi.csi import v1 as csi
from rds_csi.doctor.check import Check, Checks, Status
from rds_csi.doctor.node.driver_socket import check_socket
from tests.unit.doctor.places import Silent

NAME = "csi.rds-csi.io"


class Identity(csi.IdentityBase):
    def __init__(self, *, ready: bool | None = True, fails: bool = False) -> None:
        self._ready = ready
        self._fails = fails

    async def probe(self, message: csi.ProbeRequest) -> csi.ProbeResponse:
        if self._fails:
            raise GRPCError(Code.UNAVAILABLE, "stopping")
        return csi.ProbeResponse(ready=self._ready)

    async def get_plugin_info(self, message: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        return csi.GetPluginInfoResponse(name=NAME, vendor_version="1.2.3")


@asynccontextmanager
async def serving(endpoint: Path, identity: Identity, mode: int = 0o600) -> AsyncIterator[None]:
    server = Server([identity])
    await server.start(path=str(endpoint))
    os.chmod(endpoint, mode)  # noqa: PTH101 - quick
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def checked(endpoint: Path, name: str = NAME) -> Check:
    checks = Checks()
    await check_socket(checks, endpoint, name)
    [check] = checks
    return check


@pytest.mark.parametrize(
    ("identity", "mode", "name", "status", "found"),
    [
        (Identity(), 0o600, NAME, Status.OK, f"{NAME} 1.2.3 is ready"),
        (Identity(ready=None), 0o600, NAME, Status.OK, f"{NAME} 1.2.3 is ready"),
        (Identity(ready=False), 0o600, NAME, Status.WARNING, "is not ready"),
        (Identity(), 0o666, NAME, Status.WARNING, "mode 0666"),
        (Identity(), 0o600, "other.driver", Status.FAILED, f"{NAME} 1.2.3 serves there, not other"),
        (Identity(fails=True), 0o600, NAME, Status.FAILED, "stopping"),
    ],
)
async def test_who_answers(
    tmp_path: Path, *, identity: Identity, mode: int, name: str, status: Status, found: str
) -> None:
    endpoint = tmp_path / "csi.sock"
    async with serving(endpoint, identity, mode):
        check = await checked(endpoint, name)
    assert check.status is status
    assert found in check.found
    assert check.advice or status is Status.OK


async def test_a_socket_that_a_killed_driver_left(tmp_path: Path) -> None:
    endpoint = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(endpoint))
    check = await checked(endpoint)
    assert check.status is Status.FAILED
    assert "refused" in check.found.lower()


async def test_a_program_that_takes_the_connection_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rds_csi.doctor.node.driver_socket._TIMEOUT", 0.05)
    endpoint = tmp_path / "csi.sock"
    silent = Silent()
    async with await asyncio.start_unix_server(silent, str(endpoint)):
        check = await checked(endpoint)
        await silent.gone.wait()
    assert check.status is Status.FAILED
    assert "does not answer" in check.found


async def test_no_socket_is_no_fault_yet(tmp_path: Path) -> None:
    assert (await checked(tmp_path / "csi.sock")).status is Status.WARNING
