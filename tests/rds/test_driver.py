"""The whole controller process: its socket, its start without an RDS, its end."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.model.volume import MIB, volume_id

from .conftest import BASE, Rds

CAPABILITY = csi.VolumeCapability(
    mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"),
    access_mode=csi.VolumeCapabilityAccessMode(
        mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
    ),
)


def arguments(rds: Rds, socket: Path, host_key: Path) -> list[str]:
    host_key.write_text(rds.simulator.host_key_line + "\n")
    return [
        "controller",
        f"--endpoint={socket}",
        "--cluster-id=test",
        f"--rds-address={rds.simulator.address}",
        f"--rds-port={rds.simulator.port}",
        f"--rds-key-file={rds.key_file}",
        f"--rds-host-key-file={host_key}",
        "--nvme-address=10.0.0.5",
        f"--volume-path={BASE}",
        "--drain-budget=5",
    ]


@contextlib.asynccontextmanager
async def driver(rds: Rds, folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    socket = folder / "csi.sock"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rds_csi",
            *arguments(rds, socket, folder / "host.pub"),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
    try:
        async with asyncio.timeout(60):
            while not socket.exists():
                assert process.returncode is None, (folder / "log").read_text()
                await asyncio.sleep(0.02)
        yield process, socket
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def stubs(socket: Path) -> AsyncIterator[tuple[csi.IdentityStub, csi.ControllerStub]]:
    channel = Channel(path=str(socket))
    try:
        yield csi.IdentityStub(channel), csi.ControllerStub(channel, timeout=20)
    finally:
        channel.close()


async def commands(rds: Rds, count: int) -> None:
    """Wait until so many commands have reached the RDS."""
    async with asyncio.timeout(20):
        while rds.execs() < count:  # noqa: ASYNC110 - the simulator's journal tells nobody
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def creating(socket: Path) -> AsyncIterator[grpc.aio.UnaryUnaryMultiCallable]:
    """CreateVolume as a sidecar calls it: grpclib's own client drops its calls at a GOAWAY."""
    async with grpc.aio.insecure_channel(f"unix://{socket}") as channel:
        yield channel.unary_unary(
            "/csi.v1.Controller/CreateVolume",
            request_serializer=bytes,
            response_deserializer=csi.CreateVolumeResponse.parse,
        )


def request(name: str = "pvc-one") -> csi.CreateVolumeRequest:
    return csi.CreateVolumeRequest(
        name=name,
        capacity_range=csi.CapacityRange(required_bytes=64 * MIB),
        volume_capabilities=[CAPABILITY],
    )


async def test_a_call_goes_all_the_way(rds: Rds, tmp_path: Path) -> None:
    async with driver(rds, tmp_path) as (_, socket), stubs(socket) as (identity, controller):
        info = await identity.get_plugin_info(csi.GetPluginInfoRequest())
        assert info.name == "csi.rds-csi.io"
        created = await controller.create_volume(request())
        assert created.volume is not None
        assert rds.slots() == [created.volume.volume_id]
        with pytest.raises(GRPCError) as caught:
            await controller.create_volume(csi.CreateVolumeRequest(name="x"))
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_without_an_rds_it_serves_and_later_heals(rds: Rds, tmp_path: Path) -> None:
    await rds.stop()
    async with driver(rds, tmp_path) as (_, socket), stubs(socket) as (identity, controller):
        probe = await identity.probe(csi.ProbeRequest())
        assert probe.ready
        with pytest.raises(GRPCError) as caught:
            await controller.create_volume(request())
        assert caught.value.status is Status.UNAVAILABLE
        assert caught.value.message
        await rds.start()
        async with asyncio.timeout(30):
            while True:
                try:
                    await controller.create_volume(request())
                    break
                except GRPCError as error:
                    assert error.status is Status.UNAVAILABLE  # noqa: PT017 - others are wrong
                    await asyncio.sleep(0.1)
        assert rds.slots() == [volume_id("pvc-one")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(rds: Rds, tmp_path: Path, number: int) -> None:
    async with driver(rds, tmp_path) as (process, socket):
        process.send_signal(number)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        assert not socket.exists()


async def test_a_running_call_is_answered_before_the_end(rds: Rds, tmp_path: Path) -> None:
    rds.simulator.quirks.latency = 1.0
    async with driver(rds, tmp_path) as (process, socket), creating(socket) as create:
        call = asyncio.ensure_future(create(request(), timeout=20))
        await commands(rds, 1)
        process.send_signal(signal.SIGTERM)
        assert (await call).volume is not None
        async with asyncio.timeout(20):
            assert await process.wait() == 0


async def test_a_hanging_rds_does_not_hold_the_end(rds: Rds, tmp_path: Path) -> None:
    async with driver(rds, tmp_path) as (process, socket), creating(socket) as create:
        rds.simulator.faults.add("stall-before", match="/disk/add", count=50)
        calls = [asyncio.ensure_future(create(request(f"pvc-{n}"), timeout=60)) for n in range(50)]
        await commands(rds, 4)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, grpc.aio.AioRpcError), result
            assert result.code() is grpc.StatusCode.UNAVAILABLE, result


async def test_a_second_driver_on_the_socket_is_refused(rds: Rds, tmp_path: Path) -> None:
    async with driver(rds, tmp_path) as (_, socket):
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rds_csi",
            *arguments(rds, socket, tmp_path / "host.pub"),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await second.communicate()
        assert second.returncode == 1
        assert str(socket) in errors.decode()
        async with stubs(socket) as (identity, _):
            assert (await identity.probe(csi.ProbeRequest())).ready
