"""The Kubernetes API server as a pod may ask it: one HTTPS request, one JSON answer.

No client library: for three requests in a pod's life it would cost more memory than a node plugin
has. Imported only by a driver that was told to ask (``--startup-taint``). The request runs on the
event loop, so that the end of the driver ends it at once.
"""

import asyncio
import http.client
import io
import json
import os
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rds_csi.errors import ConcurrentChange, DriverError, Internal, NotReady, Unavailable

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the cluster's CA (Kubernetes: Accessing the API from a Pod)."""
_SECONDS: Final = 10.0
"""For a whole request."""
_LARGEST: Final = 4 * 1024**2
"""Bytes of an answer; a Node has some tens of kilobytes, most of them names of images."""
_SAID: Final = 300
"""Characters of the server's own words in an error."""
_JSON_PATCH: Final = "application/json-patch+json"


class ApiServer:
    """The API server of this pod's cluster, as this pod's service account.

    Token and CA are read anew for each request, for the kubelet replaces them. The token goes to
    the server and nowhere else: into no error, log or ``repr``.
    """

    def __init__(self, host: str, port: int, account: Path = SERVICE_ACCOUNT) -> None:
        self._host = host
        self._port = port
        self._account = account
        self._name = f"{f'[{host}]' if ':' in host else host}:{port}"

    async def get(self, path: str) -> Mapping[str, Any] | None:
        """The object at ``path``; None where the server says that there is none.

        Raises :class:`Unavailable` if there was no usable answer, :class:`NotReady` where a person
        has to change something: the role, the token, the CA.
        """
        status, answer = await self._ask("GET", path)
        return None if status == http.client.NOT_FOUND else answer

    async def patch(self, path: str, operations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Apply a JSON patch (RFC 6902), all of it or nothing; the object as it is then.

        Raises as :meth:`get`, and :class:`ConcurrentChange` where a ``test`` operation failed,
        somebody else wrote at the same time, or the object is gone.
        """
        status, answer = await self._ask("PATCH", path, json.dumps(operations).encode())
        if status == http.client.NOT_FOUND:
            raise ConcurrentChange(f"{path} is gone")
        return answer

    async def _ask(
        self, method: str, path: str, body: bytes = b""
    ) -> tuple[int, Mapping[str, Any]]:
        token, context = self._credentials()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._name}",
            f"Authorization: Bearer {token}",
            "Accept: application/json",
            "User-Agent: rds-csi",
            "Connection: close",
        ]
        if body:
            lines += [f"Content-Type: {_JSON_PATCH}", f"Content-Length: {len(body)}"]
        request = "\r\n".join([*lines, "", ""]).encode() + body
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._exchange(request, context)
            status, text = _parsed(answer)
        except TimeoutError:
            raise Unavailable(
                f"the API server at {self._name} did not answer within {_SECONDS:g} s"
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise NotReady(
                f"the API server at {self._name} shows a certificate that cannot be trusted: "
                f"{error.verify_message}",
                advice="is something between the pod and the API server?",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            why = _clean(str(error), token) or type(error).__name__
            raise Unavailable(f"the API server at {self._name} gave no answer: {why}") from None
        if status not in (http.client.OK, http.client.NOT_FOUND):
            why = _clean(_said(text), token) or "no reason given"
            raise _refusal(status, f"{method} {path}: {why}")
        return status, _object(text, path)

    async def _exchange(self, request: bytes, context: ssl.SSLContext) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        try:
            writer.write(request)
            answer = bytearray()
            while part := await reader.read(64 * 1024):
                answer += part
                if len(answer) > _LARGEST:
                    raise http.client.HTTPException(f"the answer has more than {_LARGEST} bytes")
            return bytes(answer)
        finally:
            writer.transport.abort()

    def _credentials(self) -> tuple[str, ssl.SSLContext]:
        """The token, and a context that trusts the cluster's CA and nobody else.

        Not ``ssl.create_default_context``: from Python 3.13 on that refuses CAs without an
        authority key identifier, which many clusters have.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        advice = "the pod must mount its service account's token and CA"
        try:
            context.load_verify_locations(self._account / "ca.crt")
            token = (self._account / "token").read_text("ascii").strip()
        except OSError as error:  # an unusable certificate is one, too
            raise NotReady(f"{self._account}: {error}", advice=advice) from None
        except UnicodeDecodeError:
            token = ""
        if not token or not token.isprintable() or " " in token:
            raise NotReady(f"{self._account / 'token'} holds no token", advice=advice)
        return token, context


def in_cluster(environment: Mapping[str, str] = os.environ) -> ApiServer:
    """The API server that the kubelet tells every pod of.

    Raises :class:`NotReady` outside of a pod.
    """
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port.isdecimal():
        raise NotReady(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT do not say where the Kubernetes "
            "API server is",
            advice="--startup-taint works in a pod only",
        )
    return ApiServer(host, int(port))


class _Bytes:
    """What :class:`http.client.HTTPResponse` needs of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        """All of it, as a file."""
        return io.BytesIO(self._data)


def _parsed(answer: bytes) -> tuple[int, bytes]:
    """Status and body. Raises HTTPException also where the body is cut short."""
    response = http.client.HTTPResponse(_Bytes(answer))  # type: ignore[arg-type]
    response.begin()
    return response.status, response.read()


def _object(text: bytes, path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unavailable(f"{path}: the API server answered with something else than an object")
    return found


def _said(text: bytes) -> str:
    """The reason a ``Status`` object gives, or else the beginning of whatever came."""
    try:
        message = json.loads(text)["message"]
    except (ValueError, TypeError, KeyError):
        message = text.decode(errors="replace")
    return str(message)


def _clean(said: str, token: str) -> str:
    """What the other side said as one line without the token, cut off where it is long."""
    return " ".join(said.replace(token, "***").split())[:_SAID]


def _refusal(status: int, what: str) -> DriverError:
    match status:
        case http.client.UNAUTHORIZED:
            return NotReady(f"the API server does not accept the pod's token: {what}")
        case http.client.FORBIDDEN:
            return NotReady(
                f"the API server forbids it: {what}",
                advice="the chart's node.startupTaint.enabled gives the service account its role",
            )
        # A failed test operation is "unprocessable" (kubernetes#68346).
        case http.client.CONFLICT | http.client.UNPROCESSABLE_ENTITY:
            return ConcurrentChange(f"changed meanwhile: {what}")
        case http.client.TOO_MANY_REQUESTS | http.client.REQUEST_TIMEOUT:
            return Unavailable(f"the API server is busy: {what}")
        case _ if status >= http.client.INTERNAL_SERVER_ERROR:
            return Unavailable(f"the API server failed with {status}: {what}")
        case _:
            return Internal(f"the API server answered with {status}: {what}")
