"""The traps of serving CSI with grpclib, numbered as in its field notes, each against a client."""

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
import structlog
from structlog.testing import LogCapture, capture_logs

from rds_csi.csi import v1 as csi
from rds_csi.errors import Code, OutcomeUnknown, VolumeNotFound
from rds_csi.rpc import RpcSettings, Server
from rds_csi.rpc.identity import Identity
from tests.unit.fakes.csi_services import (
    FakeController,
    FakeMetrics,
    FakeNode,
    Slow,
    channel,
    serving,
)
from tests.unit.fakes.raw_http2 import Goodbye, RawClient, message
from tests.unit.fakes.released_csi import ReleasedCsi

VOLUME = "pvc-1"
IDENTITY = Identity(name="csi.example.com", version="1", controller=True)


@pytest.fixture(scope="module")
def released():
    return ReleasedCsi()


@pytest.fixture
def controller():
    return FakeController()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "csi.sock"


@pytest.fixture
def lines():
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(**before)


def delete(released, volume=VOLUME):
    return released.message("DeleteVolumeRequest")(volume_id=volume)


def get(released, volume=VOLUME):
    return released.message("ControllerGetVolumeRequest")(volume_id=volume)


def mount(released):
    capability = released.message("VolumeCapability")()
    capability.mount.fs_type = "ext4"
    capability.access_mode.mode = 1
    return capability


async def failure(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


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


# T6, T7: errors nobody foresaw.


async def test_t6_an_unknown_error_of_a_change_is_open_and_tells_nothing(
    path, released, controller, lines
):
    """Nobody knows what was done by then: after a final code the caller would forget it."""

    async def broken(_request: Any) -> None:
        raise ValueError("/etc/rds/key")

    controller.work = broken
    async with serving(path, controller), channel(path) as peer:
        error = await failure(released.call(peer, "DeleteVolume", delete(released)))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the driver failed; its log says how"
    line = next(line for line in lines if line["event"] == "call failed")
    assert isinstance(line["exc_info"], ValueError)
    assert (line["rpc"], line["volume"], line["code"]) == ("DeleteVolume", VOLUME, "INTERNAL")


async def test_t7_an_answer_of_nothing_is_internal(path, released, caplog):
    class Broken(csi.IdentityBase):
        async def probe(self, message):
            return None

    async with serving(path, Broken()), channel(path) as peer:
        error = await failure(released.call(peer, "Probe"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "Application error" not in caplog.text


# T8: see also test_go_client.py.


async def test_t8_every_method_not_offered_is_unimplemented(path, released):
    async with serving(path, IDENTITY), channel(path) as peer:
        for name, (where, _) in released.methods.items():
            if where.startswith("/csi.v1.Identity/"):
                continue
            error = await failure(released.call(peer, name, timeout=5))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED, name
            assert name in error.details()


async def test_t8_what_a_service_leaves_out_is_logged(path, released):
    class Partial(csi.IdentityBase):
        async def probe(self, message):
            return csi.ProbeResponse(ready=True)

    async with serving(path, Partial()), channel(path) as peer:
        with capture_logs() as lines:
            error = await failure(released.call(peer, "GetPluginInfo", timeout=5))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [line["rpc"] for line in lines if line["event"] == "call not offered"] == [
        "GetPluginInfo"
    ]


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


async def test_t15_errors_carry_no_details(path, released, controller):
    async def gone(_request: Any) -> None:
        raise VolumeNotFound("no such volume", volume=VOLUME)

    controller.work = gone
    async with serving(path, controller), channel(path) as peer:
        error = await failure(released.call(peer, "DeleteVolume", delete(released)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == f"volume {VOLUME}: no such volume"
    assert "grpc-status-details-bin" not in dict(error.trailing_metadata() or ())


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


# T18: handlers know neither deadline nor metadata, so both are set around them.


async def test_t18_the_service_runs_inside_the_log_context(path, released, controller):
    seen: dict[str, Any] = {}

    async def work(_request: Any) -> None:
        seen.update(structlog.contextvars.get_contextvars())

    controller.work = work
    settings = RpcSettings(node="node-1")
    async with serving(path, controller, settings=settings), channel(path) as peer:
        await released.call(peer, "DeleteVolume", delete(released))
    assert seen.pop("request_id")
    assert seen == {"rpc": "DeleteVolume", "volume": VOLUME, "node": "node-1"}


async def test_t18_calls_do_not_see_each_others_context(path, released, controller):
    async def work(request: Any) -> None:
        await asyncio.sleep(0)
        assert structlog.contextvars.get_contextvars()["volume"] == request.volume_id

    controller.work = work
    async with serving(path, controller), channel(path) as peer:
        await asyncio.gather(
            *(released.call(peer, "DeleteVolume", delete(released, f"v{n}")) for n in range(20))
        )


async def test_t19_the_text_survives(path, released, controller):
    text = "Größe %41 100 %\nzweite Zeile ☃"

    async def unknown(_request: Any) -> None:
        raise OutcomeUnknown(text)

    controller.work = unknown
    async with serving(path, controller), channel(path) as peer:
        error = await failure(released.call(peer, "DeleteVolume", delete(released)))
    assert error.details() == text


async def test_t19_a_long_text_is_cut_not_the_whole_answer(path, released, controller):
    async def unknown(_request: Any) -> None:
        raise OutcomeUnknown("☃" * 20_000)

    controller.work = unknown
    async with serving(path, controller), channel(path) as peer:
        error = await failure(released.call(peer, "DeleteVolume", delete(released)))
    # C core's answer to a trailer that is too large is RESOURCE_EXHAUSTED.
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "☃" * (2048 // 3)


# Around every call.


async def test_requests_are_checked_before_the_service(path, released):
    node = FakeNode()
    async with serving(path, node), channel(path) as peer:
        error = await failure(released.call(peer, "NodeStageVolume"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "volume_id is missing"
    assert node.requests == []


async def test_controller_and_node_may_work_on_one_volume_at_once(path, released, controller):
    slow, node = Slow(), FakeNode()
    controller.work = slow
    stage = released.message("NodeStageVolumeRequest")(
        volume_id=VOLUME, staging_target_path="/s", volume_capability=mount(released)
    )
    async with serving(path, controller, node), channel(path) as peer:
        first = asyncio.create_task(released.call(peer, "DeleteVolume", delete(released)))
        await slow.begun.wait()
        await released.call(peer, "NodeStageVolume", stage)
        slow.go.set()
        await first


async def test_secrets_are_in_no_line_and_no_text(path, released, controller, lines):
    async def leaks(request: Any) -> None:
        raise VolumeNotFound(f"no volume for {request.secrets['password']}, {request!r}")

    controller.work = leaks
    request = released.message("DeleteVolumeRequest")(
        volume_id=VOLUME, secrets={"password": "correct horse"}
    )
    async with serving(path, controller), channel(path) as peer:
        error = await failure(released.call(peer, "DeleteVolume", request))
    assert "correct horse" not in error.details()
    assert "[hidden]" in error.details()
    assert "<1 secrets>" in error.details()


async def test_metrics_are_told_of_every_call(path, released, controller):
    metrics = FakeMetrics()
    async with serving(path, controller, metrics=metrics), channel(path) as peer:
        await released.call(peer, "DeleteVolume", delete(released))
        await failure(released.call(peer, "DeleteVolume"))
    assert metrics.started == ["DeleteVolume", "DeleteVolume"]
    assert metrics.finished == [
        ("DeleteVolume", Code.OK),
        ("DeleteVolume", Code.INVALID_ARGUMENT),
    ]


async def test_one_line_per_call(path, released, controller, lines):
    async with serving(path, controller), channel(path) as peer:
        await released.call(peer, "DeleteVolume", delete(released))
        await released.call(peer, "ControllerGetVolume", get(released))
    calls = [line for line in lines if line["event"].startswith("call")]
    assert [(line["rpc"], line["code"], line["log_level"]) for line in calls] == [
        ("DeleteVolume", "OK", "info"),
        ("ControllerGetVolume", "OK", "debug"),
    ]


async def test_a_service_that_streams_is_refused_at_construction():
    class Streaming(csi.SnapshotMetadataBase):
        async def get_metadata_delta(self, message):
            yield csi.GetMetadataDeltaResponse()

    with pytest.raises(NotImplementedError, match="GetMetadataDelta"):
        Server([Streaming()])
