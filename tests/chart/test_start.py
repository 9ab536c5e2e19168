"""The very command lines that the chart renders, started: a controller and its simulated RDS.

What the kubelet would do is done here: ConfigMaps, Secrets and empty directories become folders,
and the paths they are mounted at are replaced by these folders. One word is changed besides: the
simulator exports nothing, because that needs a kernel with an NVMe target.
"""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel

from rds_csi.csi import v1 as csi
from rds_csi.rpc.convert import CONDITION_CAPABILITY_OF_CONTROLLER
from tests.chart.conftest import SIMULATED, Chart, container, merged, one, pod_specs

TABLE: dict[str, Any] = tomllib.loads((Path(__file__).with_name("sidecars.toml")).read_text())
GIB = 1024**3
CAPABILITY = csi.VolumeCapability(
    mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"),
    access_mode=csi.VolumeCapabilityAccessMode(
        mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
    ),
)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Pod:
    """One container's command line, with its volumes as folders."""

    def __init__(self, objects: list[dict[str, Any]], folder: Path, component: str, name: str):
        self._objects = objects
        self._folder: Path = folder / component
        self._container = container(objects, component, name)
        [spec] = [spec for owner, spec in pod_specs(objects) if owner.endswith(f"-{component}")]
        mounts = {each["name"]: each["mountPath"] for each in self._container["volumeMounts"]}
        self._paths = {
            mounts[volume["name"]]: str(self._make(volume))
            for volume in spec["volumes"]
            if volume["name"] in mounts
        }

    def _make(self, volume: dict[str, Any]) -> Path:
        folder: Path = self._folder / volume["name"]
        folder.mkdir(parents=True)
        for source in [volume, *volume.get("projected", {}).get("sources", [])]:
            if "secret" in source:
                name = source["secret"].get("name") or source["secret"]["secretName"]
                data = one(self._objects, "Secret", name)["data"]
                for item in source["secret"]["items"]:
                    file = folder / item["path"]
                    file.write_bytes(base64.b64decode(data[item["key"]]))
                    file.chmod(0o400)
        return folder

    def path(self, inside: str) -> Path:
        """Where a path of the container is here."""
        for mounted, folder in self._paths.items():
            if inside == mounted or inside.startswith(f"{mounted}/"):
                return Path(f"{folder}{inside.removeprefix(mounted)}")
        raise AssertionError(f"{inside} is on no volume, and the root is read-only")

    def words(self) -> list[str]:
        """The container's arguments."""
        result = []
        for word in self._container["args"]:
            flag, equals, value = word.partition("=")
            inside = value.startswith("/") and self.path(value)
            result.append(f"{flag}={inside}" if equals and inside else word)
        return result

    @contextlib.asynccontextmanager
    async def running(self, *, exchanged: dict[str, str] | None = None) -> AsyncIterator[None]:
        """Run it; at the end SIGTERM, and the process must end in order."""
        words = self.words()
        for old, new in (exchanged or {}).items():
            words[words.index(old)] = new
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-P", "-m", "rds_csi", *words],
            cwd=self._folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                status = await process.wait()
        assert status == 0


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)


async def listening(path: Path) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(path)
                writer.close()
                return
            await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_controller_and_simulator(chart: Chart, tmp_path: Path) -> None:
    ssh, metrics = free_ports(2)
    overlay = {
        "simulator": {"address": "127.0.0.1", "port": ssh},
        "metrics": {"controllerPort": metrics},
    }
    objects = chart.objects(merged(SIMULATED, overlay))
    simulator = Pod(objects, tmp_path, "simulator", "simulator")
    controller = Pod(objects, tmp_path, "controller", "rds-csi")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            simulator.running(exchanged={"--export=nvmet": "--export=none"})
        )
        _, writer = await connect(ssh)
        writer.close()
        await stack.enter_async_context(controller.running())
        path = controller.path("/csi/csi.sock")
        await listening(path)
        channel = Channel(path=str(path))
        stack.callback(channel.close)
        await make_and_delete(channel)
        await check_what_sidecars_need(channel)
        reader, writer = await connect(metrics)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(30):
            page = await reader.read()
        writer.close()
    assert b" 200 " in page.splitlines()[0]
    assert b"rds_csi_" in page


async def make_and_delete(channel: Channel) -> None:
    """A volume on the RDS and off again, over SSH with the keys the chart made."""
    identity = csi.IdentityStub(channel)
    info = await identity.get_plugin_info(csi.GetPluginInfoRequest(), timeout=30)
    assert info.name == "csi.rds-csi.io"
    stub = csi.ControllerStub(channel)
    made = await stub.create_volume(
        csi.CreateVolumeRequest(
            name="pvc-1",
            capacity_range=csi.CapacityRange(required_bytes=GIB),
            volume_capabilities=[CAPABILITY],
        ),
        timeout=60,
    )
    assert made.volume is not None
    assert made.volume.capacity_bytes == GIB
    assert made.volume.volume_context["nqn"].endswith(made.volume.volume_id)
    await stub.delete_volume(csi.DeleteVolumeRequest(volume_id=made.volume.volume_id), timeout=60)


async def check_what_sidecars_need(channel: Channel) -> None:
    """Which of the sidecars would exit, or do nothing: values.yaml says it of one."""
    stub = csi.ControllerStub(channel)
    answer = await stub.controller_get_capabilities(
        csi.ControllerGetCapabilitiesRequest(), timeout=30
    )
    offered = {int(each.rpc.type) for each in answer.capabilities if each.rpc}
    numbers = {each.name: int(each) for each in csi.ControllerServiceCapabilityRpcType}
    numbers["VOLUME_CONDITION"] = CONDITION_CAPABILITY_OF_CONTROLLER
    without = {
        name
        for name, each in TABLE.items()
        if not {numbers[need] for need in each.get("needs", [])} <= offered
    }
    assert without == {"snapshotter"}


@pytest.mark.timeout(240)
async def test_node(chart: Chart, tmp_path: Path) -> None:
    [metrics] = free_ports(1)
    objects = chart.objects(merged(SIMULATED, {"metrics": {"nodePort": metrics}}))
    node = Pod(objects, tmp_path, "node", "rds-csi")
    exchanged = {"--node-id=$(NODE_NAME)": "--node-id=worker-1"}
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(node.running(exchanged=exchanged))
        path = node.path("/csi/csi.sock")
        await listening(path)
        channel = Channel(path=str(path))
        stack.callback(channel.close)
        stub = csi.NodeStub(channel)
        info = await stub.node_get_info(csi.NodeGetInfoRequest(), timeout=30)
        assert info.node_id.startswith("worker-1.")
        assert info.accessible_topology is not None
        assert info.accessible_topology.segments == {"csi.rds-csi.io/topology": "all-nodes"}
        _, writer = await connect(metrics)
        writer.close()
