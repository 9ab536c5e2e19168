"""One request to an API server over real TLS, and every way in which it can go wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rds_csi.errors import ConcurrentChange, DriverError, Internal, NotReady, Unavailable
from rds_csi.kubernetes import api as apiserver
from rds_csi.kubernetes.api import ApiServer, in_cluster
from tests.unit.fakes.api_server import FakeApiServer, status

NODE = "/api/v1/nodes/n"
REMOVE = [{"op": "remove", "path": "/spec/taints/0"}]
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer(tmp_path) as server:
        server.put_node("n", {"key": "a", "effect": "NoSchedule"})
        yield server


@pytest.fixture
def api(server: FakeApiServer) -> ApiServer:
    return ApiServer("127.0.0.1", server.port, server.account)


async def test_get_and_patch(server: FakeApiServer, api: ApiServer) -> None:
    node = await api.get(NODE)
    assert node == server.objects[NODE]
    assert (await api.patch(NODE, REMOVE))["spec"] == {"taints": []}
    assert server.requests == [("GET", NODE), ("PATCH", NODE)]


async def test_nothing_there(server: FakeApiServer, api: ApiServer) -> None:
    assert await api.get("/api/v1/nodes/m") is None
    with pytest.raises(ConcurrentChange, match="nodes/m is gone"):
        await api.patch("/api/v1/nodes/m", REMOVE)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (status(403, "no role"), NotReady, r"forbids it: GET .*: no role \(the chart's node"),
        (status(401, "Unauthorized"), NotReady, "does not accept the pod's token"),
        (status(409, "modified"), ConcurrentChange, "modified"),
        (status(422, "testing value failed"), ConcurrentChange, "testing value failed"),
        (status(429, "later"), Unavailable, "busy"),
        (status(503, "down\nfor\tnow"), Unavailable, "failed with 503: .* down for now"),
        (status(500, ""), Unavailable, "no reason given"),
        (status(302, "there"), Internal, "answered with 302"),
        (b"HTTP/1.1 502 Bad\r\n\r\n<html>proxy</html>", Unavailable, "<html>proxy"),
        (HEAD + b"Content-Length: 9\r\n\r\n{}", Unavailable, "gave no answer: IncompleteRead"),
        (HEAD + b"\r\n[]", Unavailable, "something else than an object"),
        (HEAD + b"\r\n{", Unavailable, "something else than an object"),
        (b"SSH-2.0-x\r\n", Unavailable, "gave no answer"),
        (b"", Unavailable, "gave no answer"),
    ],
)
async def test_refusals(
    server: FakeApiServer, api: ApiServer, answer: bytes, error: type[DriverError], text: str
) -> None:
    server.raw = [answer]
    with pytest.raises(error, match=text) as caught:
        await api.get(NODE)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


async def test_a_long_answer_is_cut_off(
    server: FakeApiServer, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apiserver, "_LARGEST", 1000)
    server.raw = [HEAD + b"\r\n" + b"x" * 10_000]
    with pytest.raises(Unavailable, match="more than 1000 bytes"):
        await api.get(NODE)


async def test_the_token_is_said_nowhere(server: FakeApiServer, api: ApiServer) -> None:
    said = f"your token {server.token} is bad"
    for answer in (status(403, said), f"{said}\r\n\r\n".encode()):
        server.raw = [answer]
        with pytest.raises(DriverError) as caught:
            await api.get(NODE)
        assert server.token not in f"{caught.value!s} {caught.value!r}"
    (server.account / "token").write_bytes(server.token.encode() + b"\xff")
    with pytest.raises(NotReady, match="holds no token") as refused:
        await api.get(NODE)
    assert server.token not in str(refused.value)
    assert refused.value.__context__ is None
    assert server.token not in repr(api)


async def test_the_token_is_read_anew(server: FakeApiServer, api: ApiServer) -> None:
    server.token = "another"
    with pytest.raises(NotReady, match="does not accept the pod's token"):
        await api.get(NODE)
    (server.account / "token").write_text("another")
    assert await api.get(NODE)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Header: b"])
async def test_a_token_that_is_none(server: FakeApiServer, api: ApiServer, token: str) -> None:
    (server.account / "token").write_text(token)
    with pytest.raises(NotReady, match="token holds no token"):
        await api.get(NODE)
    assert server.requests == []


async def test_no_service_account(server: FakeApiServer, tmp_path: Path) -> None:
    api = ApiServer("127.0.0.1", server.port, tmp_path / "nowhere")
    with pytest.raises(NotReady, match="the pod must mount its service account"):
        await api.get(NODE)
    (server.account / "ca.crt").write_text("nonsense")
    with pytest.raises(NotReady, match="the pod must mount its service account"):
        await ApiServer("127.0.0.1", server.port, server.account).get(NODE)


async def test_another_ca_gets_no_token(tmp_path: Path) -> None:
    """Whoever poses as the API server learns nothing."""
    async with FakeApiServer(tmp_path / "a") as impostor:
        ours = FakeApiServer(tmp_path / "b")
        api = ApiServer("127.0.0.1", impostor.port, ours.account)
        with pytest.raises(NotReady, match="shows a certificate that cannot be trusted"):
            await api.get(NODE)
        assert impostor.requests == []


async def test_a_certificate_for_another_host(tmp_path: Path) -> None:
    server = FakeApiServer(tmp_path)
    server.trust(host="192.0.2.1")
    async with server:
        with pytest.raises(NotReady, match="IP address mismatch"):
            await ApiServer("127.0.0.1", server.port, server.account).get(NODE)
        assert server.requests == []


async def test_nobody_listens(server: FakeApiServer, api: ApiServer) -> None:
    await server.stop()
    with pytest.raises(Unavailable, match=r"API server at 127\.0\.0\.1:.* gave no answer"):
        await api.get(NODE)


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """The port of a server that takes connections and says nothing, and when somebody came."""
    came, writers = asyncio.Event(), []

    def connected(_reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        writers.append(there)
        came.set()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        await came.wait()
        for each in writers:
            each.transport.abort()
        await asyncio.sleep(0)
        server.close()


async def test_no_answer(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apiserver, "_SECONDS", 0.01)
    async with silent() as (port, _):
        with pytest.raises(Unavailable, match=r"did not answer within 0\.01 s"):
            await ApiServer("127.0.0.1", port, server.account).get(NODE)


async def test_a_cancelled_request_ends_at_once(server: FakeApiServer) -> None:
    async with silent() as (port, came):
        asking = asyncio.create_task(ApiServer("127.0.0.1", port, server.account).get(NODE))
        await came.wait()
        asking.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await asking


def test_where_it_is() -> None:
    found = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"})
    assert (found._host, found._port, found._name) == ("fd00::1", 443, "[fd00::1]:443")
    assert found._account == apiserver.SERVICE_ACCOUNT


@pytest.mark.parametrize(("host", "port"), [("", "443"), ("10.96.0.1", ""), ("10.96.0.1", "tcp")])
def test_outside_of_a_pod(host: str, port: str) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    with pytest.raises(NotReady, match="--startup-taint works in a pod only"):
        in_cluster(environment)
