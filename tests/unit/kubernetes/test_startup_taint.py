"""The startup taint goes when the driver is registered, and never another one with it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.driver.lifecycle import Driver
from rds_csi.errors import NotReady
from rds_csi.kubernetes.api import ApiServer
from rds_csi.kubernetes.startup_taint import StartupTaint, removal
from rds_csi.model.node_id import make_node_id
from rds_csi.runtime.retry import RetryPolicy, delays
from tests.unit.fakes.api_server import FakeApiServer, status
from tests.unit.fakes.ssh import until

DRIVER = "csi.rds-csi.io"
KEY = f"{DRIVER}/agent-not-ready"
NODE = "/api/v1/nodes/worker-1"
CSI_NODE = "/apis/storage.k8s.io/v1/csinodes/worker-1"
TAINT = {"key": KEY, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
SAME_KEY = {"key": KEY, "value": "true", "effect": "NoSchedule"}
OTHER = {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}
REGISTERED: dict[str, Any] = {"name": DRIVER, "nodeID": "worker-1.abc", "topologyKeys": None}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer(tmp_path / "api") as server:
        yield server


def taint(server: FakeApiServer, *, limited: bool = False) -> StartupTaint:
    return StartupTaint(
        ApiServer("127.0.0.1", server.port, server.account),
        key=KEY,
        node="worker-1",
        driver=DRIVER,
        node_id="worker-1.abc",
        limited=limited,
        waits=delays(RetryPolicy(initial=0.001), limit=0.002),
    )


async def ended(removing: StartupTaint) -> None:
    """Run it to its end; not for ever, which is what it is made for."""
    async with asyncio.timeout(10):
        await removing.run()


def taints(server: FakeApiServer) -> list[dict[str, str]]:
    return server.objects[NODE]["spec"].get("taints", [])  # type: ignore[no-any-return]


async def after(
    server: FakeApiServer, change: Callable[[], None], *, tries: int = 3, limited: bool = False
) -> None:
    """Let it look in vain ``tries`` times, then ``change`` the world; it must be done then."""
    running = asyncio.create_task(taint(server, limited=limited).run())
    before = list(taints(server))
    asked = len(server.requests)
    async with asyncio.timeout(30):
        await until(lambda: len(server.requests) >= asked + tries)
        assert taints(server) == before
        assert not running.done()
        change()
        await running


async def test_it_goes_and_the_others_stay(server: FakeApiServer) -> None:
    server.put_csi_node("worker-1", REGISTERED)
    server.put_node("worker-1", OTHER, TAINT, OTHER | {"key": "b"}, SAME_KEY)
    with capture_logs() as log:
        await ended(taint(server))
    assert taints(server) == [OTHER, OTHER | {"key": "b"}]
    assert server.patches() == 1
    assert log == [{"event": "startup taint removed", "taint": KEY, "log_level": "info"}]


@pytest.mark.parametrize("others", [(), (OTHER,)])
async def test_no_such_taint_nothing_is_patched(server: FakeApiServer, others: tuple) -> None:
    server.put_csi_node("worker-1", REGISTERED)
    server.put_node("worker-1", *others)
    await ended(taint(server))
    assert server.patches() == 0


@pytest.mark.parametrize(
    "drivers",
    [
        (),
        (REGISTERED | {"name": "other.example"},),
        (REGISTERED | {"nodeID": "worker-1.another-cluster"},),
    ],
    ids=["none", "another", "the same under another id"],
)
async def test_not_registered_yet(server: FakeApiServer, drivers: tuple[dict, ...]) -> None:
    server.put_csi_node("worker-1", *drivers)
    server.put_node("worker-1", TAINT)
    with capture_logs() as log:
        await after(server, lambda: server.put_csi_node("worker-1", *drivers, REGISTERED))
    assert taints(server) == []
    said = [entry for entry in log if entry["event"] == "the startup taint stays for now"]
    assert [entry["log_level"] for entry in said] == ["info"]


async def test_no_csi_node_yet(server: FakeApiServer) -> None:
    server.put_node("worker-1", TAINT)
    await after(server, lambda: server.put_csi_node("worker-1", REGISTERED))
    assert taints(server) == []


async def test_a_number_of_volumes_must_be_known(server: FakeApiServer) -> None:
    server.put_csi_node("worker-1", REGISTERED)
    server.put_node("worker-1", TAINT)
    counted = REGISTERED | {"allocatable": {"count": 32}}
    await after(server, lambda: server.put_csi_node("worker-1", counted), limited=True)
    assert taints(server) == []


async def test_others_change_taints_at_the_same_time(server: FakeApiServer) -> None:
    """Between look and patch one is put before ours: the places have moved, and nothing is lost."""
    server.put_csi_node("worker-1", REGISTERED)
    server.put_node("worker-1", TAINT, OTHER)
    new = {"key": "a.example", "effect": "NoExecute"}
    server.meanwhile = [lambda: taints(server).insert(0, new)]
    await ended(taint(server))
    assert taints(server) == [new, OTHER]
    assert server.patches() == 2


async def test_somebody_else_removes_it_first(server: FakeApiServer) -> None:
    server.put_csi_node("worker-1", REGISTERED)
    server.put_node("worker-1", TAINT, OTHER)
    server.meanwhile = [lambda: taints(server).remove(TAINT)]
    await ended(taint(server))
    assert taints(server) == [OTHER]


async def test_a_conflict_is_repeated(server: FakeApiServer) -> None:
    server.put_csi_node("worker-1", REGISTERED)
    server.put_node("worker-1", TAINT)
    running = taint(server)
    get = running._api.get

    async def conflict_after(path: str) -> Any:
        found = await get(path)
        if path == NODE and server.patches() == 0:
            server.raw = [status(409, "the object has been modified")]
        return found

    running._api.get = conflict_after  # type: ignore[method-assign]
    with capture_logs() as log:
        await ended(running)
    assert server.patches() == 2
    assert taints(server) == []
    assert "the object has been modified" in log[0]["reason"]


async def test_one_that_comes_back_is_removed_again(server: FakeApiServer) -> None:
    server.put_csi_node("worker-1", REGISTERED)
    again = server.put_node("worker-1", TAINT)
    body = json.dumps(again).encode()
    running = taint(server)
    patch = running._api.patch

    async def put_back(path: str, operations: Any) -> Any:
        if server.patches() == 0:
            server.raw = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body]
        return await patch(path, operations)

    running._api.patch = put_back  # type: ignore[method-assign]
    await ended(running)
    assert server.patches() == 2
    assert taints(server) == []


@pytest.mark.parametrize("right", [("GET", CSI_NODE), ("GET", NODE), ("PATCH", NODE)])
async def test_forbidden_is_said_once_until_it_is_granted(
    server: FakeApiServer, right: tuple[str, str]
) -> None:
    server.put_csi_node("worker-1", REGISTERED)
    server.put_node("worker-1", TAINT)
    server.forbidden = {right}
    with capture_logs() as log:
        await after(server, server.forbidden.clear, tries=9)
    assert taints(server) == []
    [said] = [entry for entry in log if entry["log_level"] == "warning"]
    assert "node.startupTaint.enabled" in said["reason"]
    assert server.token not in str(log)


async def test_a_node_of_another_name(server: FakeApiServer) -> None:
    server.put_csi_node("worker-1", REGISTERED)
    running = asyncio.create_task(taint(server).run())
    with capture_logs() as log:
        await until(lambda: log)
    assert "no node 'worker-1' (--node-id must be the name" in log[0]["reason"]
    running.cancel()


async def test_an_api_server_that_is_down_at_first(tmp_path: Path) -> None:
    server = FakeApiServer(tmp_path / "api")
    await server.start()
    await server.stop()
    server.put_csi_node("worker-1", REGISTERED)
    server.put_node("worker-1", TAINT)
    with capture_logs() as log:
        running = asyncio.create_task(taint(server).run())
        await until(lambda: log)
        async with server, asyncio.timeout(30):
            await running
    assert taints(server) == []
    assert "gave no answer" in log[0]["reason"]


@pytest.mark.parametrize(
    "spec", [None, {}, {"drivers": {}}, {"drivers": ["x", {"name": DRIVER}]}, "x"]
)
async def test_nonsense_is_not_registered(server: FakeApiServer, spec: Any) -> None:
    server.put_node("worker-1", TAINT)
    server.objects[CSI_NODE] = {"spec": spec}
    await after(server, lambda: server.put_csi_node("worker-1", REGISTERED))


def test_the_last_is_removed_first() -> None:
    assert removal({1: TAINT, 4: SAME_KEY}) == [
        {"op": "test", "path": "/spec/taints/4", "value": SAME_KEY},
        {"op": "remove", "path": "/spec/taints/4"},
        {"op": "test", "path": "/spec/taints/1", "value": TAINT},
        {"op": "remove", "path": "/spec/taints/1"},
    ]


def configs(tmp_path: Path) -> tuple[DriverConfig, NodeConfig]:
    shared = DriverConfig(endpoint=tmp_path / "csi.sock", cluster_id="test")
    node = NodeConfig(node_id="worker-1", state_dir=tmp_path / "state", startup_taint=KEY)
    return shared, node


async def test_the_driver_does_it_while_it_serves(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(ApiServer.__init__, "__defaults__", (server.account,))
    shared, node = configs(tmp_path)
    own = REGISTERED | {"nodeID": make_node_id("test", "worker-1")}
    server.put_csi_node("worker-1", own)
    server.put_node("worker-1", TAINT)
    driver = Driver(shared, None, node)
    server.meanwhile = [lambda: served.append(shared.endpoint.exists())]
    served: list[bool] = []
    stop = asyncio.Event()
    serving = asyncio.create_task(driver.serve(stop))
    async with asyncio.timeout(30):
        await until(lambda: not taints(server))
        stop.set()
        await serving
    assert served == [True]


async def test_the_end_of_the_driver_ends_the_wait(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(ApiServer.__init__, "__defaults__", (server.account,))
    server.put_node("worker-1", TAINT)
    stop = asyncio.Event()
    serving = asyncio.create_task(Driver(*with_node(tmp_path)).serve(stop))
    async with asyncio.timeout(30):
        await until(lambda: server.requests)
        stop.set()
        await serving
    assert taints(server) == [TAINT]


def with_node(tmp_path: Path) -> tuple[DriverConfig, None, NodeConfig]:
    shared, node = configs(tmp_path)
    return shared, None, node


def test_outside_of_a_pod_the_driver_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    shared, node = configs(tmp_path)
    with pytest.raises(NotReady, match="--startup-taint works in a pod only"):
        Driver(shared, None, node)
    assert Driver(shared, None, replace(node, startup_taint=""))


def test_a_node_without_it_does_not_carry_it() -> None:
    code = (
        "import sys; from pathlib import Path; from rds_csi.config import *\n"
        "from rds_csi.driver.lifecycle import Driver\n"
        "shared = DriverConfig(endpoint=Path('/run/x.sock'), cluster_id='c')\n"
        "Driver(shared, None, NodeConfig(node_id='n'))\n"
        "names = {'rds_csi.kubernetes.startup_taint', 'rds_csi.kubernetes.api', 'http.client'}\n"
        "print(names & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"
