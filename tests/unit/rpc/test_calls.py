"""What happens around every call, once: check, lock, deadline, errors, log line, metrics."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from structlog.testing import capture_logs

from rds_csi.csi import v1 as csi
from rds_csi.errors import Code, OutcomeUnknown, VolumeNotFound
from rds_csi.rpc import RpcSettings, Server
from tests.unit.fakes.csi_services import (
    FakeMetrics,
    FakeNode,
    Slow,
    channel,
    serving,
)
from tests.unit.rpc.calling import IDENTITY, VOLUME, delete, failure, get, mount

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


async def test_t15_errors_carry_no_details(path, released, controller):
    async def gone(_request: Any) -> None:
        raise VolumeNotFound("no such volume", volume=VOLUME)

    controller.work = gone
    async with serving(path, controller), channel(path) as peer:
        error = await failure(released.call(peer, "DeleteVolume", delete(released)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == f"volume {VOLUME}: no such volume"
    assert "grpc-status-details-bin" not in dict(error.trailing_metadata() or ())


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
