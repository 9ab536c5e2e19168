"""The server's end, and the attributes of grpclib 0.4.9 that it leans on."""

import asyncio
import weakref

import grpc
import grpc.aio
import grpclib.server
import pytest
from grpclib.protocol import Connection, H2Protocol

from rds_csi.csi import v1 as csi
from rds_csi.errors import SocketUnusable
from rds_csi.rpc import RpcSettings, Server
from rds_csi.rpc.identity import Identity
from tests.unit.fakes.csi_services import FakeController, FakeNode, Slow, channel, serving
from tests.unit.fakes.raw_http2 import RawClient

IDENTITY = Identity(name="csi.example.com", version="1", controller=True)


def delete(released):
    return released.message("DeleteVolumeRequest")(volume_id="v")


async def test_a_drain_without_calls_is_over_at_once(path):
    server = Server([IDENTITY])
    await server.start(path)
    async with asyncio.timeout(1):
        assert await server.drain(30) == []
    assert not path.exists()


async def test_a_drain_before_the_start_and_a_second_one_do_nothing(path):
    server = Server([IDENTITY])
    assert await server.drain(1) == []
    await server.start(path)
    await server.drain(1)
    assert await server.drain(1) == []


async def test_a_drain_stops_what_takes_too_long_and_says_so(path, released):
    controller, slow = FakeController(), Slow()
    controller.work = slow
    server = Server([controller], settings=RpcSettings(grace=2.0))
    await server.start(path)
    async with channel(path) as peer:
        call = asyncio.create_task(released.call(peer, "DeleteVolume", delete(released)))
        await slow.begun.wait()
        assert await server.drain(0.1) == []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "was stopped" in caught.value.details()
    assert (slow.cancelled, slow.tidied) == (1, 1)


async def test_a_drain_ends_though_work_does_not(path, released):
    async def stubborn(_request):
        begun.set()
        while not released_at_last.is_set():
            try:
                await released_at_last.wait()
            except asyncio.CancelledError:
                continue

    begun, released_at_last = asyncio.Event(), asyncio.Event()
    controller = FakeController()
    controller.work = stubborn
    server = Server([controller], settings=RpcSettings(grace=0.1))
    await server.start(path)
    async with RawClient(path) as client:
        client.call("Controller/DeleteVolume", bytes(csi.DeleteVolumeRequest(volume_id="v")))
        await begun.wait()
        async with asyncio.timeout(5):
            assert await server.drain(0.1) == ["DeleteVolume v"]
            await client.closed.wait()
        released_at_last.set()
        await asyncio.sleep(0.01)


async def test_a_cancelled_drain_still_leaves_no_socket(path, released):
    controller, slow = FakeController(), Slow()
    controller.work = slow
    server = Server([controller])
    await server.start(path)
    async with RawClient(path) as client:
        client.call("Controller/DeleteVolume", bytes(csi.DeleteVolumeRequest(volume_id="v")))
        await slow.begun.wait()
        drain = asyncio.create_task(server.drain(30))
        await asyncio.sleep(0.05)
        drain.cancel()
        await asyncio.wait({drain})
        await client.closed.wait()
    assert not path.exists()
    slow.go.set()
    await slow.ended.wait()


async def test_a_drain_ends_though_a_client_reads_nothing(path):
    begun = asyncio.Event()

    async def reading(_request):
        begun.set()
        volume = csi.Volume(volume_context={"a": "b" * 4000})
        entry = csi.ListVolumesResponseEntry(volume=volume)
        return csi.ListVolumesResponse(entries=[entry] * 900)

    controller = FakeController()
    controller.reading = reading
    server = Server([controller])
    await server.start(path)
    reader, writer = await asyncio.open_unix_connection(str(path))
    client = RawClient(path)
    client.writer = writer
    client.h2.initiate_connection()
    # A window wide enough for all of it: the answer fills the socket, which nobody reads.
    client.h2.increment_flow_control_window(2**24)
    client.h2.update_settings({4: 2**24})
    client.call("Controller/ListVolumes")
    await begun.wait()
    assert server._grpc is not None
    (transport,) = server._grpc._transports()
    async with asyncio.timeout(5):
        await server.drain(0.1)
    await asyncio.sleep(0)
    assert transport.get_extra_info("socket").fileno() == -1
    writer.close()
    del reader


async def test_a_successor_can_start_while_the_first_drains(path, released):
    controller, slow = FakeController(), Slow()
    controller.work = slow
    first = Server([controller])
    await first.start(path)
    async with channel(path) as peer, channel(path) as other:
        call = asyncio.create_task(released.call(peer, "DeleteVolume", delete(released)))
        await slow.begun.wait()
        drain = asyncio.create_task(first.drain(10))
        await asyncio.sleep(0.05)
        async with serving(path, IDENTITY):
            slow.go.set()
            await call
            await drain
            assert (await released.call(other, "Probe")).ready.value


async def test_a_live_socket_is_refused(path, released):
    async with serving(path, IDENTITY), channel(path) as peer:
        second = Server([FakeNode()])
        with pytest.raises(SocketUnusable):
            await second.start(path)
        assert await second.drain(1) == []
        assert (await released.call(peer, "Probe")).ready.value


async def test_a_server_starts_once(path):
    async with serving(path, IDENTITY) as server:
        with pytest.raises(RuntimeError):
            await server.start(path)


# What the drain uses of grpclib without being promised it. A failure here after a new version
# means: read grpclib.server and grpclib.protocol before changing the pin.


async def test_grpclib_keeps_its_asyncio_server(path):
    async with serving(path, IDENTITY) as server:
        assert isinstance(server._grpc._server, asyncio.AbstractServer)


async def test_grpclib_makes_protocols_by_its_factory(path, released):
    async with serving(path, IDENTITY) as server, channel(path) as peer:
        await released.call(peer, "Probe")
        (protocol,) = server._grpc.protocols
        assert isinstance(server._grpc.protocols, weakref.WeakSet)
        assert isinstance(protocol, H2Protocol)


async def test_grpclib_keeps_transport_and_processor(path, released):
    async with serving(path, IDENTITY) as server, channel(path) as peer:
        await released.call(peer, "Probe")
        (protocol,) = server._grpc.protocols
        assert isinstance(protocol.connection, Connection)
        assert isinstance(protocol.connection._transport, asyncio.Transport)
        assert callable(protocol.processor.close)


async def test_grpclib_keeps_the_tasks_of_its_handlers(path):
    controller, slow = FakeController(), Slow()
    controller.work = slow
    async with serving(path, controller) as server, RawClient(path) as client:
        client.call("Controller/DeleteVolume", bytes(csi.DeleteVolumeRequest(volume_id="v")))
        await slow.begun.wait()
        (handler,) = server._grpc._handlers
        assert isinstance(handler, grpclib.server.Handler)
        (task,) = handler._tasks.values()
        assert isinstance(task, asyncio.Task)
        slow.go.set()
        await asyncio.wait({task})


def test_generated_handlers_are_named_after_their_methods():
    handler = csi.NodeBase().__mapping__()["/csi.v1.Node/NodeGetInfo"]
    assert handler.func.__name__ == "__rpc_node_get_info"
