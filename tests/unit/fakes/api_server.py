"""A Kubernetes API server in the test's own event loop: TLS, tokens, objects, JSON patches.

It answers as the real one does where that matters to a client: 401 without the token, 403 where a
role is missing, 404, 422 where a patch does not apply, 409 where somebody else wrote meanwhile,
and long answers in chunks. Of JSON patches it knows ``test`` and ``remove``.
"""

import asyncio
import copy
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey
PATCH = "application/json-patch+json"


class PatchFailedError(Exception):
    """The patch does not apply to the object as it is."""


class FakeApiServer:
    """``async with FakeApiServer(folder) as api``; ``start`` and ``stop`` for outages.

    ``account`` is the folder with token and CA that a pod would have. ``objects`` are by path.
    ``raw`` are answers that are given as they are, one each, before anything else. ``meanwhile``
    is called, once, between a client's look and its patch.
    """

    def __init__(self, folder: Path) -> None:
        self.account = folder / "account"
        self.token = "eyJh.secret.token"
        self.objects: dict[str, dict[str, Any]] = {}
        self.forbidden: set[tuple[str, str]] = set()
        self.raw: list[bytes] = []
        self.meanwhile: list[Callable[[], None]] = []
        self.requests: list[tuple[str, str]] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self.account.mkdir(parents=True)
        (self.account / "token").write_text(f"{self.token}\n")
        self.trust()

    def trust(self, host: str = "127.0.0.1") -> None:
        """Make a CA and a certificate for ``host``, and let the pod trust that CA."""
        ca, ca_key = certificate("kubernetes")
        own, own_key = certificate("kube-apiserver", host=host, issuer=ca, issuer_key=ca_key)
        (self.account / "ca.crt").write_bytes(pem(ca))
        file = self.account.parent / "server.pem"
        file.write_bytes(pem(own) + private(own_key))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(file)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def put_node(self, name: str, *taints: dict[str, str]) -> dict[str, Any]:
        """A node with these taints; like the real server, without a list where there are none."""
        spec = {"taints": list(taints)} if taints else {}
        node = {"kind": "Node", "metadata": {"name": name, "resourceVersion": "1"}, "spec": spec}
        self.objects[f"/api/v1/nodes/{name}"] = node
        return node

    def put_csi_node(self, name: str, *drivers: dict[str, Any]) -> None:
        self.objects[f"/apis/storage.k8s.io/v1/csinodes/{name}"] = {
            "kind": "CSINode",
            "metadata": {"name": name, "resourceVersion": "1"},
            "spec": {"drivers": list(drivers) or None},
        }

    def patches(self) -> int:
        return sum(method == "PATCH" for method, _ in self.requests)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((method, path))
            writer.write(self.raw.pop(0) if self.raw else self._answer(method, path, headers, body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away
        finally:
            writer.close()

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        if headers.get("authorization") != f"Bearer {self.token}":
            return status(401, "Unauthorized")
        if (method, path) in self.forbidden:
            return status(403, f'{path} is forbidden: User "node" cannot {method.lower()} it')
        if path not in self.objects:
            return status(404, f"{path} not found")
        if method == "GET":
            return chunked(self.objects[path])
        if method == "PATCH" and headers.get("content-type") == PATCH:
            return self._patch(path, json.loads(body))
        return status(415, f"{method} with {headers.get('content-type')} is not supported")

    def _patch(self, path: str, operations: list[dict[str, Any]]) -> bytes:
        while self.meanwhile:
            self.meanwhile.pop(0)()
        before = self.objects[path]
        try:
            after = patched(before, operations)
        except PatchFailedError as error:
            return status(422, str(error))
        after["metadata"]["resourceVersion"] = str(int(before["metadata"]["resourceVersion"]) + 1)
        self.objects[path] = after
        return chunked(after)


def patched(target: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    """A copy with all operations done; raises :class:`PatchFailedError` if one cannot be."""
    result = copy.deepcopy(target)
    for each in operations:
        *folders, last = each["path"].removeprefix("/").split("/")
        spot: Any = result
        for step in [*folders, last]:
            parent, index = spot, int(step) if isinstance(spot, list) else step
            try:
                spot = spot[index]
            except (IndexError, KeyError, TypeError):
                raise PatchFailedError(f"{each['path']} does not exist") from None
        if each["op"] == "remove":
            del parent[index]
        elif each["op"] != "test":
            raise PatchFailedError(f"unknown operation {each['op']}")
        elif spot != each["value"]:
            raise PatchFailedError(f"testing value {each['path']} failed")
    return result


def status(code: int, message: str) -> bytes:
    """A ``Status`` object, as the API server refuses with it."""
    body = json.dumps({"kind": "Status", "status": "Failure", "message": message, "code": code})
    return (
        f"HTTP/1.1 {code} Whatever\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def chunked(answer: dict[str, Any]) -> bytes:
    body = json.dumps(answer).encode()
    parts = [body[: len(body) // 2], body[len(body) // 2 :], b""]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def certificate(
    name: str,
    *,
    host: str = "",
    issuer: x509.Certificate | None = None,
    issuer_key: Key | None = None,
) -> tuple[x509.Certificate, Key]:
    """A CA, or a server's certificate by one; without key identifiers, as old clusters have it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if host:
        address = x509.IPAddress(ipaddress.ip_address(host))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256()), key


def pem(found: x509.Certificate) -> bytes:
    return found.public_bytes(serialization.Encoding.PEM)


def private(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
