"""T8 and more against grpc-go, which is what the sidecars and the kubelet speak."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from rds_csi.errors import VolumeNotFound
from rds_csi.rpc.identity import Identity
from tests.unit.fakes.csi_services import FakeController, serving
from tests.unit.fakes.released_csi import RELEASED

SOURCE = Path(__file__).parents[1] / "goclient"
CI = os.environ.get("CI") == "true"
METHODS = [
    f"/csi.v1.{service}/{method['method']}"
    for service, methods in RELEASED["services"].items()
    for method in methods
    if not method["server_streaming"]
]

pytestmark = pytest.mark.timeout(600)


async def run(*command: str, **options) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **options,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """The built Go client."""
    program = tmp_path_factory.mktemp("go") / "goclient"
    if shutil.which("go") is None:
        status, output = 1, "there is no go on the PATH"
    else:
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
        build = run("go", "build", "-o", str(program), ".", cwd=SOURCE, env=environment)
        status, output = asyncio.run(build)
    if status:
        reason = f"NOT CHECKED against grpc-go: {output.strip()[-500:]}"
        if CI:
            pytest.fail(reason)
        pytest.skip(reason)
    return program


async def calls(client, path, *methods):
    status, output = await run(str(client), str(path), *methods)
    assert status == 0, output
    return {line.split(" ", 2)[0]: line.split(" ", 2)[1:] for line in output.splitlines()}


async def test_t8_go_reads_unimplemented(client, tmp_path):
    path = tmp_path / "csi.sock"
    async with serving(path, Identity(name="csi.example.com", version="1", controller=False)):
        replies = await calls(client, path, *METHODS)
    assert len(replies) == len(METHODS)
    for method, (code, text) in replies.items():
        if method.startswith("/csi.v1.Identity/"):
            assert (code, text) == ("OK", "")
        else:
            assert code == "Unimplemented", method
            assert text == f"{method.rpartition('/')[2]} is not offered by this driver"


async def test_go_reads_codes_and_texts(client, tmp_path):
    async def gone(_request):
        raise VolumeNotFound("nothing: 100 % gone ☃", volume="pvc-1")

    controller = FakeController()
    controller.reading = gone
    path = tmp_path / "csi.sock"
    async with serving(path, controller):
        replies = await calls(
            client, path, "/csi.v1.Controller/ListVolumes", "/csi.v1.Controller/DeleteVolume"
        )
    assert replies == {
        "/csi.v1.Controller/ListVolumes": ["NotFound", "volume pvc-1: nothing: 100 % gone ☃"],
        "/csi.v1.Controller/DeleteVolume": ["InvalidArgument", "volume_id is missing"],
    }
