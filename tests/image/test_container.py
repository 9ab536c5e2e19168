"""Both images as their own users, with exactly a container's environment, at their work."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import asyncssh
import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rds_csi.csi import v1 as csi
from rds_csi.model.volume import MIB
from rds_csi.simulator import Simulator
from tests.image.container import Container
from tests.image.recipe import Image

pytestmark = pytest.mark.timeout(1800)
NOBODY = 65532
BASE = "raid10/csi"
CAPABILITY = csi.VolumeCapability(
    mount=csi.VolumeCapabilityMountVolume(fs_type="ext4"),
    access_mode=csi.VolumeCapabilityAccessMode(
        mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
    ),
)
DOCTOR = ("/opt/venv/bin/rds-csi", "doctor", "rds", "--settings-of=1", "--json")
VOLUMES = ("/opt/venv/bin/rds-csi", "volumes", "--settings-of=1", "--orphans", "--json")
HOMES: Mapping[str, Mapping[str, str]] = {"home": {"HOME": "/"}, "homeless": {}}
"""Container runtimes say HOME=/ for a user without an entry in passwd; nothing says they must."""


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds") as simulator:
        simulator.make_directory(BASE)
        yield simulator


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Container]]:
    containers: list[Container] = []
    yield containers
    for container in containers:
        container.kill()


def empty(folder: Path) -> Path:
    """A volume as the kubelet makes an ``emptyDir``, with the chart's ``fsGroup``."""
    folder.mkdir()
    folder.chmod(0o2777)
    return folder


def secret(folder: Path, rds: Simulator) -> Path:
    """The chart's projected volume: owned by root, readable by ``fsGroup``."""
    folder.mkdir()
    key = asyncssh.generate_private_key("ssh-ed25519")
    rds.authorize(key.convert_to_public())
    (folder / "id_ed25519").write_bytes(key.export_private_key())
    (folder / "host-keys").write_text(rds.host_key_line + "\n")
    for each in folder.iterdir():
        os.chown(each, 0, NOBODY)
        each.chmod(0o440)
    return folder


def controller_of(
    image: Image, rds: Simulator, folder: Path, environment: Mapping[str, str], **others: Path
) -> tuple[Container, Path]:
    """The controller as the chart starts it; and its socket."""
    sockets = empty(folder / "csi")
    container = Container.start(
        image,
        "controller",
        "--endpoint=/csi/csi.sock",
        "--cluster-id=test",
        f"--rds-address={'rds.example' if others else rds.address}",
        f"--rds-port={rds.port}",
        "--rds-key-file=/etc/rds-csi/ssh/id_ed25519",
        "--rds-host-key-file=/etc/rds-csi/ssh/host-keys",
        "--nvme-address=10.0.0.5",
        f"--volume-path={BASE}",
        folder=folder,
        mounts={
            "/csi": sockets,
            "/etc/rds-csi/ssh": secret(folder / "ssh", rds),
            "/tmp": empty(folder / "tmp"),
            **({"/etc/resolv.conf": others["resolver"]} if others else {}),
        },
        environment={"HOSTNAME": "rds-csi-controller-0", **environment},
    )
    return container, sockets / "csi.sock"


@contextlib.asynccontextmanager
async def channel(path: Path) -> AsyncIterator[Channel]:
    opened = Channel(path=str(path))
    try:
        yield opened
    finally:
        opened.close()


def creation() -> csi.CreateVolumeRequest:
    return csi.CreateVolumeRequest(
        name="pvc-one",
        capacity_range=csi.CapacityRange(required_bytes=64 * MIB),
        volume_capabilities=[CAPABILITY],
    )


@pytest.mark.parametrize("home", HOMES)
async def test_the_controller_makes_and_deletes_a_volume(
    controller: Image, rds: Simulator, started: list[Container], tmp_path: Path, home: str
) -> None:
    container, path = controller_of(controller, rds, tmp_path, HOMES[home])
    started.append(container)
    await container.until(path)
    async with channel(path) as opened:
        stub = csi.ControllerStub(opened, timeout=30)
        created = await stub.create_volume(creation())
        assert created.volume is not None
        assert list(rds.disks) == [created.volume.volume_id]
        assert (await stub.get_capacity(csi.GetCapacityRequest())).available_capacity > 0
        looked = await asyncio.to_thread(container.enter, *DOCTOR)
        checks = {each["name"]: each["status"] for each in json.loads(looked.stdout)["checks"]}
        assert checks["login"] == "ok", looked.stdout
        listed = await asyncio.to_thread(container.enter, *VOLUMES)
        report = json.loads(listed.stdout)
        assert [each["volume"] for each in report["volumes"]] == [created.volume.volume_id]
        assert report["orphans"] == []
        await stub.delete_volume(csi.DeleteVolumeRequest(volume_id=created.volume.volume_id))
        assert not rds.disks
    status, _ = await container.stop()
    assert status == 0, container.log.read_text()
    assert '"level": "error"' not in container.log.read_text()


async def test_the_controller_ends_although_no_dns_server_answers(
    controller: Image, rds: Simulator, started: list[Container], tmp_path: Path
) -> None:
    """The C library's own lookup, which asks somebody who listens and says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.77", 53))
        silent.settimeout(60)
        resolver = tmp_path / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.77\noptions timeout:30 attempts:5\n")
        container, path = controller_of(controller, rds, tmp_path, {}, resolver=resolver)
        started.append(container)
        await container.until(path)
        async with channel(path) as opened:
            asked = asyncio.ensure_future(
                csi.ControllerStub(opened, timeout=60).create_volume(creation())
            )
            question = await asyncio.to_thread(silent.recv, 512)
            assert b"\3rds\7example" in question
            status, seconds = await container.stop()
            await asyncio.wait({asked})
            assert asked.exception() is not None
    assert status == 0, container.log.read_text()
    assert seconds < 27
    assert '"stopped"' in container.log.read_text()


async def test_the_simulator_runs_as_nobody(
    controller: Image, started: list[Container], tmp_path: Path
) -> None:
    container = Container.start(
        controller,
        *("simulate", "--root=/data/rds", "--port=0", "--ready-file=/data/ready"),
        folder=tmp_path,
        mounts={"/data": empty(tmp_path / "data")},
        environment={},
    )
    started.append(container)
    await container.until(tmp_path / "data" / "ready")
    status, _ = await container.stop()
    assert status == 0, container.log.read_text()


async def test_process_1_buries_whatever_dies_in_the_container(
    node: Image, started: list[Container], tmp_path: Path
) -> None:
    """A program's child that outlives it becomes process 1's, which has never heard of it."""
    container, path = node_of(node, tmp_path)
    started.append(container)
    await container.until(path)
    left = container.enter("/bin/sh", "-c", "(sleep 3; exit 7) >/dev/null 2>&1 & echo $!")
    orphan = int(left.stdout)
    assert container.processes()[orphan][1] == 1
    async with asyncio.timeout(20):
        while orphan in container.processes():  # noqa: ASYNC110 - the kernel tells its parent only
            await asyncio.sleep(0.05)
    assert "Z" not in {state for state, _ in container.processes().values()}
    status, _ = await container.stop()
    assert status == 0, container.log.read_text()


def node_of(image: Image, folder: Path) -> tuple[Container, Path]:
    """The node as the chart starts it, as root and privileged; and its socket."""
    sockets, kubelet, state = (empty(folder / name) for name in ("csi", "kubelet", "state"))
    container = Container.start(
        image,
        "node",
        "--endpoint=/csi/csi.sock",
        "--cluster-id=test",
        "--node-id=node-1",
        "--kubelet-dir=/var/lib/kubelet",
        "--state-dir=/var/lib/rds-csi",
        folder=folder,
        mounts={
            "/csi": sockets,
            "/var/lib/kubelet": kubelet,
            "/var/lib/rds-csi": state,
            "/dev": Path("/dev"),
            "/sys": Path("/sys"),
            "/run": empty(folder / "run"),
            "/tmp": empty(folder / "tmp"),
        },
        environment={"NODE_NAME": "node-1", "HOSTNAME": "node-1", "HOME": "/root"},
    )
    return container, sockets / "csi.sock"


async def stages_nothing(stub: csi.NodeStub) -> None:
    """As far as a node comes without a target, or the kernel's module for one."""
    info = await stub.node_get_info(csi.NodeGetInfoRequest())
    assert info.node_id
    with pytest.raises(GRPCError) as caught:
        await stub.node_stage_volume(
            csi.NodeStageVolumeRequest(
                volume_id="pvc-0123456789abcdef0123456789ab",
                staging_target_path="/var/lib/kubelet/stage",
                volume_capability=CAPABILITY,
                publish_context={
                    "nvmeAddress": "127.0.0.1",
                    "nvmePort": "1",
                    "nqn": "nqn.2000-02.com.mikrotik:pvc-0123456789abcdef0123456789ab",
                },
            )
        )
    assert caught.value.status in {Status.UNAVAILABLE, Status.FAILED_PRECONDITION}
    assert "nvme" in str(caught.value.message)


async def test_the_node_serves_as_the_chart_starts_it(
    node: Image, started: list[Container], tmp_path: Path
) -> None:
    container, path = node_of(node, tmp_path)
    started.append(container)
    await container.until(path)
    async with channel(path) as opened:
        await stages_nothing(csi.NodeStub(opened, timeout=60))
    os.kill(container.init, signal.SIGUSR1)  # as the runbooks say, to process 1
    async with asyncio.timeout(20):
        while "log level changed" not in container.log.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    status, _ = await container.stop()
    assert status == 0, container.log.read_text()
