"""Services whose methods do what a test tells them to, served for real."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from rds_csi.csi import v1 as csi
from rds_csi.errors import Code
from rds_csi.rpc import RpcSettings, Server

Work = Callable[[Any], Awaitable[Any]]


class FakeController(csi.ControllerBase):
    """``work`` answers DeleteVolume, ``reading`` ControllerGetVolume; both note the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.work: Work = self._nothing
        self.reading: Work = self._nothing

    async def _nothing(self, request: Any) -> None:
        pass

    async def create_volume(self, message: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        self.requests.append(message)
        volume = await self.work(message)
        return csi.CreateVolumeResponse(volume=volume or csi.Volume(volume_id=message.name))

    async def delete_volume(self, message: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        self.requests.append(message)
        return await self.work(message) or csi.DeleteVolumeResponse()

    async def controller_get_volume(
        self, message: csi.ControllerGetVolumeRequest
    ) -> csi.ControllerGetVolumeResponse:
        self.requests.append(message)
        return await self.reading(message) or csi.ControllerGetVolumeResponse()

    async def list_volumes(self, message: csi.ListVolumesRequest) -> csi.ListVolumesResponse:
        self.requests.append(message)
        return await self.reading(message) or csi.ListVolumesResponse()


class FakeNode(csi.NodeBase):
    """Takes whatever passes the checks."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def node_stage_volume(
        self, message: csi.NodeStageVolumeRequest
    ) -> csi.NodeStageVolumeResponse:
        self.requests.append(message)
        return csi.NodeStageVolumeResponse()


class FakeMetrics:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: list[tuple[str, Code]] = []

    def rpc_started(self, rpc: str) -> None:
        self.started.append(rpc)

    def rpc_finished(self, rpc: str, code: Code, seconds: float) -> None:
        assert seconds >= 0
        self.finished.append((rpc, code))


class Slow:
    """Work that waits until it is let go, then tidies up, and tells how far it came."""

    def __init__(self, tidy: float = 0.05) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self.tidied = 0
        self.cancelled = 0
        self._tidy = tidy

    async def __call__(self, request: Any) -> None:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            try:
                await asyncio.sleep(self._tidy)
                self.tidied += 1
            finally:
                self.ended.set()


@asynccontextmanager
async def serving(path: Path, *services: Any, **options: Any):
    """A server of the services at ``path``, drained at the end."""
    settings = options.pop("settings", RpcSettings(timeout=5.0, grace=1.0))
    server = Server(services, settings=settings, **options)
    await server.start(path)
    try:
        yield server
    finally:
        await server.drain(0.0)


def channel(path: Path, authority: str = "localhost") -> grpc.aio.Channel:
    """A grpc.aio channel of its own connection."""
    return grpc.aio.insecure_channel(
        f"unix://{path}",
        options=[
            ("grpc.default_authority", authority),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ],
    )
