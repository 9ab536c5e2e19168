"""A real call changes what is counted of calls."""

import asyncio

import grpc.aio
import pytest
from prometheus_client import REGISTRY

from rds_csi import __version__
from rds_csi.driver.supervise import supervise
from rds_csi.errors import VolumeNotFound
from rds_csi.telemetry import logs
from rds_csi.telemetry.metrics import Metrics, Read, by_label, gauge
from tests.unit.fakes.csi_services import FakeController, Slow, channel, serving
from tests.unit.fakes.released_csi import ReleasedCsi
from tests.unit.fakes.ssh import until


@pytest.fixture(scope="module")
def released():
    return ReleasedCsi()


@pytest.fixture
def metrics():
    return Metrics("controller")


@pytest.fixture
def value(metrics):
    def read(name, **labels):
        return metrics.registry.get_sample_value(name, labels)

    return read


async def test_calls_are_counted_by_code_and_timed(tmp_path, metrics, value, released):
    controller = FakeController()

    async def missing(_request):
        raise VolumeNotFound("gone")

    controller.reading = missing
    path = tmp_path / "csi.sock"
    async with serving(path, controller, metrics=metrics), channel(path) as peer:
        delete = released.message("DeleteVolumeRequest")(volume_id="v")
        await released.call(peer, "DeleteVolume", delete)
        await released.call(peer, "DeleteVolume", delete)
        get = released.message("ControllerGetVolumeRequest")(volume_id="v")
        with pytest.raises(grpc.aio.AioRpcError):
            await released.call(peer, "ControllerGetVolume", get)
    assert value("rds_csi_rpcs_total", rpc="DeleteVolume", code="OK") == 2
    assert value("rds_csi_rpcs_total", rpc="ControllerGetVolume", code="NOT_FOUND") == 1
    assert value("rds_csi_rpc_duration_seconds_count", rpc="DeleteVolume") == 2
    assert value("rds_csi_rpc_duration_seconds_sum", rpc="DeleteVolume") > 0
    assert value("rds_csi_rpcs_in_flight", rpc="DeleteVolume") == 0


async def test_what_alerts_lean_on_begins_with_zero(tmp_path, metrics, value, released):
    path = tmp_path / "csi.sock"
    async with serving(path, FakeController(), metrics=metrics), channel(path) as peer:
        delete = released.message("DeleteVolumeRequest")(volume_id="v")
        await released.call(peer, "DeleteVolume", delete)
    assert value("rds_csi_rpcs_total", rpc="DeleteVolume", code="INTERNAL") == 0


async def test_calls_in_flight_and_operations_that_outlive_them(tmp_path, metrics, value, released):
    controller, slow = FakeController(), Slow(tidy=0)
    controller.work = slow
    path = tmp_path / "csi.sock"
    async with serving(path, controller, metrics=metrics) as server, channel(path) as peer:
        metrics.watch_operations(server.operations.ages)
        assert value("rds_csi_operations_running", rpc="DeleteVolume") is None
        delete = released.message("DeleteVolumeRequest")(volume_id="v")
        call = asyncio.create_task(released.call(peer, "DeleteVolume", delete))
        await slow.begun.wait()
        assert value("rds_csi_rpcs_in_flight", rpc="DeleteVolume") == 1
        assert value("rds_csi_operations_running", rpc="DeleteVolume") == 1
        first = value("rds_csi_operation_oldest_seconds", rpc="DeleteVolume")
        call.cancel()
        await until(lambda: value("rds_csi_rpcs_in_flight", rpc="DeleteVolume") == 0)
        assert value("rds_csi_rpcs_total", rpc="DeleteVolume", code="CANCELLED") == 1
        assert value("rds_csi_operations_running", rpc="DeleteVolume") == 1
        assert value("rds_csi_operation_oldest_seconds", rpc="DeleteVolume") > first
        slow.go.set()
        await until(lambda: value("rds_csi_operations_running", rpc="DeleteVolume") is None)


@pytest.mark.looptime
async def test_crashes_of_services_are_counted(metrics, value):
    metrics.watch_services(["reaper", "pool"])
    lives = iter([KeyError("x"), KeyError("y"), None])

    async def service():
        error = next(lives)
        if error:
            raise error

    await supervise("reaper", service, on_crash=metrics.service_crashed)
    assert value("rds_csi_service_crashes_total", service="reaper") == 2
    assert value("rds_csi_service_crashes_total", service="pool") == 0


def test_the_build_and_the_process(metrics, value):
    metrics.service_crashed("x")
    page = metrics.render().decode()
    assert f'version="{__version__}"' in page
    assert 'rds_csi_build_info{component="controller"' in page
    assert value("process_resident_memory_bytes") > 2**20
    assert "_created" not in page


def test_registries_are_their_own(metrics):
    Metrics("node")
    assert REGISTRY is not metrics.registry
    assert REGISTRY.get_sample_value("rds_csi_build_info") is None


def test_operations_are_shown_by_their_rpc_and_the_oldest_of_each(metrics, value):
    under_way = [("DeleteVolume", 3.0), ("CreateVolume", 1.0), ("DeleteVolume", 7.0)]
    metrics.watch_operations(lambda: under_way)
    assert value("rds_csi_operations_running", rpc="DeleteVolume") == 2
    assert value("rds_csi_operation_oldest_seconds", rpc="DeleteVolume") == 7.0
    assert value("rds_csi_operation_oldest_seconds", rpc="CreateVolume") == 1.0
    under_way.clear()
    assert value("rds_csi_operations_running", rpc="DeleteVolume") is None


def test_what_is_read_is_read_at_each_scrape(metrics, value):
    numbers = iter([1, 2])
    metrics.registry.register(Read(lambda: [gauge("x", "X.", next(numbers))]))
    assert [value("x"), value("x")] == [1, 2]


def test_a_family_has_a_value_for_each_of_its_labels():
    family = by_label("x", "X.", "kind", {"b": 2, "a": 1})
    assert [(each.labels, each.value) for each in family.samples] == [
        ({"kind": "a"}, 1),
        ({"kind": "b"}, 2),
    ]


def test_log_lines_that_were_lost_are_counted(metrics, value, monkeypatch):
    monkeypatch.setattr(logs, "dropped", lambda: 7)
    assert value("rds_csi_log_lines_dropped_total") == 7
