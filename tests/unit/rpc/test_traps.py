"""The traps of serving CSI with grpclib, numbered as in its field notes, each against a client.

T6 to T8, T15, T18 and T19 are what is done around a call: test_calls.py.
"""

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import h2.events
import pytest

from rds_csi.csi import v1 as csi
from rds_csi.errors import Code
from rds_csi.rpc import RpcSettings, Server
from tests.unit.fakes.csi_services import (
    Slow,
    channel,
    serving,
)
from tests.unit.fakes.raw_http2 import Goodbye, RawClient, message
from tests.unit.rpc.calling import IDENTITY, VOLUME, delete, failure, until

# T1: grpclib cancels a handler two to four times; whatever tidies up in it is cut short.


@pytest.mark.parametrize("reset", [-0.005, 0.0, 0.005, 0.02])
async def test_t1_tidying_up_survives_deadline_and_reset(path, released, controller, reset):
    slow = Slow(tidy=0.05)
    controller.work = slow
    async with serving(path, controller) as server, channel(path) as peer:
        call = asyncio.create_task(
            released.call(peer, "DeleteVolume", delete(released), timeout=0.1)
        )
        await slow.begun.wait()
        await asyncio.sleep(0.1 + reset)
        call.cancel()
        await asyncio.wait({call})
        await slow.ended.wait()
        await until(lambda: not server.operations.running)
    assert (slow.cancelled, slow.tidied) == (1, 1)


async def test_t1_mutating_work_goes_on_when_its_caller_cancels(path, released, controller, lines):
    slow = Slow()
    controller.work = slow
    async with serving(path, controller) as server, channel(path) as peer:
        call = asyncio.create_task(released.call(peer, "DeleteVolume", delete(released)))
        await slow.begun.wait()
        call.cancel()
        await until(lambda: any(line.get("code") == "CANCELLED" for line in lines))
        repeated = await failure(released.call(peer, "DeleteVolume", delete(released)))
        assert repeated.code() is grpc.StatusCode.ABORTED
        assert "DeleteVolume has been running for" in repeated.details()
        assert VOLUME in repeated.details()
        other = asyncio.create_task(released.call(peer, "DeleteVolume", delete(released, "pvc-2")))
        slow.go.set()
        await until(lambda: not server.operations.running)
        await other
        await released.call(peer, "DeleteVolume", delete(released))
    assert slow.cancelled == 0
    assert "operation ended after its caller had left" in [line["event"] for line in lines]


async def test_t1_mutating_work_goes_on_when_the_connection_drops(path, controller):
    slow = Slow()
    controller.work = slow
    async with serving(path, controller) as server:
        async with RawClient(path) as client:
            client.call("Controller/DeleteVolume", bytes(csi.DeleteVolumeRequest(volume_id="v")))
            await slow.begun.wait()
        assert server.operations.locked("v")
        slow.go.set()
        await until(lambda: not server.operations.running)
        assert not server.operations.locked("v")
    assert (slow.cancelled, slow.tidied) == (0, 1)


async def test_t1_reading_work_is_cancelled_once_and_tidies_up(path, controller):
    slow = Slow()
    controller.reading = slow
    async with serving(path, controller) as server:
        async with RawClient(path) as client:
            data = bytes(csi.ControllerGetVolumeRequest(volume_id="v"))
            stream = client.call("Controller/ControllerGetVolume", data)
            await slow.begun.wait()
            client.h2.reset_stream(stream)
            client.flush()
        await slow.ended.wait()
        await until(lambda: not server.operations.running)
    assert (slow.cancelled, slow.tidied) == (1, 1)


async def test_t1_the_answer_comes_before_the_caller_gives_up(path, released, controller):
    controller.work = Slow(tidy=0)
    async with serving(path, controller), channel(path) as peer:
        late = await failure(released.call(peer, "DeleteVolume", delete(released), timeout=2))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # Our own text proves that the server answered; the client's own is "Deadline Exceeded".
    assert "DeleteVolume did not end within" in late.details()


async def test_t1_a_caller_without_deadline_gets_the_default(path, released, controller):
    controller.work = Slow(tidy=0)
    settings = RpcSettings(timeout=0.2)
    async with serving(path, controller, settings=settings), channel(path) as peer:
        late = await failure(released.call(peer, "DeleteVolume", delete(released)))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "within 0.2 s" in late.details()


async def test_t2_cancelled_from_inside_still_answers(path, released, controller):
    async def broken(_request: Any) -> None:
        raise asyncio.CancelledError

    controller.work = broken
    async with serving(path, controller), channel(path) as peer:
        error = await failure(released.call(peer, "DeleteVolume", delete(released), timeout=2))
    # The outcome is open, so not ABORTED, which CSI keeps for our own lock.
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "cancelled from inside" in error.details()


async def test_t3_a_swallowed_cancel_stays_inside_the_operation(path, controller, caplog):
    swallowed = asyncio.Event()

    async def stubborn(_request: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed.set()

    controller.reading = stubborn
    async with serving(path, controller) as server:
        async with RawClient(path) as client:
            data = bytes(csi.ControllerGetVolumeRequest(volume_id="v"))
            stream = client.call("Controller/ControllerGetVolume", data)
            await until(lambda: server.operations.running)
            client.h2.reset_stream(stream)
            client.flush()
            await swallowed.wait()
        await until(lambda: not server.operations.running)
    assert "Failed to handle cancellation" not in caplog.text


# T4, T5: the drain. More of it in test_server.py.


async def test_t4_the_running_call_ends_well_and_new_ones_go_elsewhere(path, released, controller):
    slow = Slow()
    controller.work = slow
    server = Server([controller])
    await server.start(path)
    async with channel(path) as peer:
        running = asyncio.create_task(released.call(peer, "DeleteVolume", delete(released)))
        await slow.begun.wait()
        drain = asyncio.create_task(server.drain(5.0))
        await until(lambda: not path.exists() or drain.done() or server._grpc is None)
        new = await failure(released.call(peer, "DeleteVolume", delete(released, "v2"), timeout=2))
        assert new.code() is grpc.StatusCode.UNAVAILABLE
        slow.go.set()
        await running
        assert await drain == []
    assert not path.exists()


async def test_t4_a_client_that_ignores_goaway_is_refused(path, controller):
    slow = Slow()
    controller.work = slow
    server = Server([controller])
    await server.start(path)
    async with RawClient(path) as client:
        first = client.call(
            "Controller/DeleteVolume", bytes(csi.DeleteVolumeRequest(volume_id="v"))
        )
        await slow.begun.wait()
        drain = asyncio.create_task(server.drain(5.0))
        assert await client.until(Goodbye) == Goodbye(last_stream=2**31 - 1, error=0)
        late = client.call("Controller/DeleteVolume", bytes(csi.DeleteVolumeRequest(volume_id="w")))
        assert (await client.trailers(late))["grpc-status"] == str(Code.UNAVAILABLE.value)
        slow.go.set()
        assert (await client.trailers(first))["grpc-status"] == "0"
        await drain
        await client.closed.wait()


async def test_t5_the_drain_ends_though_clients_stay_connected(path, released):
    server = Server([IDENTITY])
    await server.start(path)
    async with channel(path) as peer:
        await released.call(peer, "Probe")
        async with asyncio.timeout(2):
            await server.drain(10.0)


async def test_t8_the_refusal_has_the_content_type_that_go_wants(path):
    async with serving(path, IDENTITY), RawClient(path) as client:
        for rpc in ("Node/NodeGetInfo", "GroupController/CreateVolumeGroupSnapshot"):
            headers = await client.trailers(client.call(rpc))
            assert headers["content-type"] == "application/grpc+proto"
            assert headers["grpc-status"] == str(Code.UNIMPLEMENTED.value)


async def test_t8_not_offered_comes_before_what_is_wrong_with_the_request(path):
    async with serving(path, IDENTITY), RawClient(path) as client:
        headers = await client.trailers(client.call("Node/NodeStageVolume", b"\xff\xff\xff"))
    assert headers["grpc-status"] == str(Code.UNIMPLEMENTED.value)


@pytest.mark.parametrize(
    "authority",
    ["", "localhost", "/csi/csi.sock", "%2Fcsi%2Fcsi.sock", "unix:///csi/csi.sock", "a:b:c"],
)
async def test_t9_any_authority_is_served(path, authority):
    async with serving(path, IDENTITY), RawClient(path) as client:
        stream = client.call("Identity/Probe", headers=((":authority", authority),))
        assert (await client.trailers(stream))["grpc-status"] == "0"


async def test_t9_no_authority_is_served(path):
    async with serving(path, IDENTITY), RawClient(path) as client:
        stream = client.call("Identity/Probe", drop=(":authority",))
        assert (await client.trailers(stream))["grpc-status"] == "0"


# T10: test_listener.py.


async def test_t11_more_calls_than_streams_are_all_answered(path, released):
    async with serving(path, IDENTITY), channel(path) as peer:
        replies = await asyncio.gather(*(released.call(peer, "Probe") for _ in range(250)))
    assert all(reply.ready.value for reply in replies)


def page(entries: int) -> csi.ListVolumesResponse:
    volume = csi.Volume(volume_id="pvc-" + "0" * 28, volume_context={"a": "b" * 300})
    return csi.ListVolumesResponse(
        entries=[csi.ListVolumesResponseEntry(volume=volume) for _ in range(entries)]
    )


async def test_t12_a_full_page_fits(path, released, controller):
    async def reading(_request: Any) -> csi.ListVolumesResponse:
        return page(1000)

    controller.reading = reading
    async with serving(path, controller), channel(path) as peer:
        assert len((await released.call(peer, "ListVolumes")).entries) == 1000


async def test_t12_a_reply_no_client_takes_is_our_error(path, released, controller, monkeypatch):
    # Real: 12,000 entries. A lower limit spares the test the seconds of encoding them.
    monkeypatch.setattr("rds_csi.rpc.codec.LARGEST_MESSAGE", 1000)

    async def reading(_request: Any) -> csi.ListVolumesResponse:
        return page(10)

    controller.reading = reading
    async with serving(path, controller), channel(path) as peer:
        error = await failure(released.call(peer, "ListVolumes"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "larger than the 1000 that clients accept" in error.details()


async def test_t13_a_client_that_does_not_read_holds_up_nobody(path, released, controller):
    async def reading(_request: Any) -> csi.ListVolumesResponse:
        return page(1000)

    controller.reading = reading
    async with serving(path, controller, IDENTITY), RawClient(path) as client:
        client.hold = True
        client.call("Controller/ListVolumes")
        await client.until(h2.events.DataReceived)
        async with channel(path) as peer:
            assert (await released.call(peer, "Probe", timeout=2)).ready.value
    # The drain in ``serving`` ends although the handler waits for the client's window.


async def test_t14_pings_are_answered_and_never_too_many(path):
    async with serving(path, IDENTITY), RawClient(path) as client:
        for number in range(300):
            client.h2.ping(number.to_bytes(8, "big"))
            client.flush()
        await until(
            lambda: sum(isinstance(e, h2.events.PingAckReceived) for e in client.events) == 300
        )
        stream = client.call("Identity/Probe")
        assert (await client.trailers(stream))["grpc-status"] == "0"


def test_t16_serving_imports_nothing_heavy():
    program = (
        "import sys, json, rds_csi.rpc, rds_csi.rpc.identity, rds_csi.telemetry.logs\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout))
    heavy = {"google.protobuf", "google.rpc", "asyncssh", "click", "rich", "grpc"}
    assert not loaded & (
        heavy | {"prometheus_client", "cryptography", "rds_csi.controller.service"}
    )


# T17: odd input. What matters is that it hurts only its own connection.


async def test_t17_unknown_frame_types_hurt_only_their_connection(path, released, caplog):
    async with serving(path, IDENTITY), RawClient(path) as client:
        await client.until(h2.events.RemoteSettingsChanged)
        client.writer.write(b"\x00\x00\x01\x7f\x00\x00\x00\x00\x00x")
        await client.closed.wait()
        async with channel(path) as peer:
            assert (await released.call(peer, "Probe", timeout=2)).ready.value


async def test_t17_garbage_hurts_only_its_connection(path, released):
    async with serving(path, IDENTITY), RawClient(path) as client:
        # Read as a frame of 4.6 MB, of which the rest never comes.
        client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with channel(path) as peer:
            assert (await released.call(peer, "Probe", timeout=2)).ready.value


async def test_t17_a_compressed_message_is_unimplemented(path):
    async with serving(path, IDENTITY), RawClient(path) as client:
        headers = await client.trailers(client.call("Identity/Probe", b"xx", flag=1))
    assert headers["grpc-status"] == str(Code.UNIMPLEMENTED.value)


@pytest.mark.parametrize("raw", [message(b"12345")[:-2], b"\x00\x00"])
async def test_t17_a_message_that_ends_too_soon_is_invalid(path, raw):
    async with serving(path, IDENTITY), RawClient(path) as client:
        headers = await client.trailers(client.call("Identity/Probe", raw=raw))
    assert headers["grpc-status"] == str(Code.INVALID_ARGUMENT.value)


async def test_t17_a_call_without_a_message_is_invalid(path):
    async with serving(path, IDENTITY), RawClient(path) as client:
        headers = await client.trailers(client.call("Identity/Probe", None))
    assert headers["grpc-status"] == str(Code.INVALID_ARGUMENT.value)


async def test_t17_an_expired_deadline_is_answered(path, caplog):
    caplog.set_level(logging.CRITICAL)
    async with serving(path, IDENTITY), RawClient(path) as client:
        stream = client.call("Identity/Probe", headers=(("grpc-timeout", "0m"),))
        headers = await client.trailers(stream)
    assert headers["grpc-status"] != "0"
