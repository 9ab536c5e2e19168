"""What the page has a person do on the RDS and in the cluster leads to where the page says."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rds_csi.config import DEFAULT_DRIVER_NAME
from rds_csi.controller.service import Controller
from rds_csi.csi import v1 as csi
from rds_csi.errors import NotOurs, VolumeInUse, VolumeNotFound
from rds_csi.model.node_id import make_node_id
from rds_csi.model.record import owner_tag
from rds_csi.model.volume import is_volume_id
from rds_csi.simulator import Simulator
from tests.docs.blocks import DOCS, blocks, marked
from tests.docs.test_routeros import CAPABILITY, GIB, Administrator, device
from tests.rds.conftest import BASE, CLUSTER, OWNER, Rds

PAGE = DOCS / "operations.md"


def line(mark: str) -> str:
    [text] = marked(PAGE, mark, "routeros")
    return text.strip()


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Rds]:
    async with device(tmp_path) as found:
        await Administrator(found).set_up()
        yield found


async def enter(rds: Rds, text: str) -> str:
    """Run lines as the administrator; each has to succeed."""
    said = await rds.simulator.run(text)
    assert rds.simulator.execs()[-1].outcome == "ok", said
    return said


async def make(controller: Controller, name: str) -> str:
    made = await controller.create_volume(
        csi.CreateVolumeRequest(
            name=name,
            capacity_range=csi.CapacityRange(required_bytes=GIB),
            volume_capabilities=[CAPABILITY],
        )
    )
    assert made.volume is not None
    return made.volume.volume_id


async def publish(controller: Controller, volume: str, node: str) -> dict[str, str]:
    """Publish as for a PersistentVolume without attributes."""
    done = await controller.controller_publish_volume(
        csi.ControllerPublishVolumeRequest(
            volume_id=volume, node_id=make_node_id(CLUSTER, node), volume_capability=CAPABILITY
        )
    )
    return done.publish_context


async def release(controller: Controller, volume: str) -> None:
    await controller.controller_unpublish_volume(
        csi.ControllerUnpublishVolumeRequest(volume_id=volume)
    )
    await controller.delete_volume(csi.DeleteVolumeRequest(volume_id=volume))


async def test_the_backup_restores_the_entries(rds: Rds) -> None:
    controller = rds.controller()
    first, second = [await make(controller, name) for name in ("one", "two")]
    await publish(controller, first, "worker-1")
    before = {slot: rds.disk(slot) for slot in rds.slots()}
    # With the rights of the driver's own user, over SSH.
    session = rds.session()
    reply = await session.execute(line("backup"))
    assert reply.error is None
    commands = [each for each in reply.lines if each.startswith("/disk/add")]
    assert len(commands) == 2
    assert {slot: rds.disk(slot) for slot in rds.slots()} == before
    # The RDS is lost; the files are back from a backup.
    await enter(rds, "/disk/remove [find where type=file]")
    assert rds.slots() == []
    with pytest.raises(VolumeNotFound):
        await publish(rds.controller(), first, "worker-1")
    for command in commands:
        await enter(rds, command)
    for slot, disk in before.items():
        restored = rds.disk(slot)
        assert (restored.comment, restored.nqn, restored.file_path, restored.size) == (
            *(disk.comment, disk.nqn, disk.file_path, disk.size),
        )
        assert not restored.exported
    successor = rds.controller()
    await publish(successor, first, "worker-1")
    assert rds.disk(first).exported
    await release(successor, first)
    await release(successor, second)
    assert rds.files() == ["id_ed25519.pub"]


async def test_an_entry_made_by_hand(rds: Rds) -> None:
    controller = rds.controller()
    slot = await make(controller, "pvc-1234")
    record = rds.disk(slot).record
    await enter(rds, f"/disk/remove {slot}")
    text = line("entry")
    for word, value in {
        "SLOT": slot,
        "TAG": owner_tag(OWNER),
        "CLUSTERID": CLUSTER,
        "NAME": "pvc-1234",
    }.items():
        assert word in text
        text = text.replace(word, value)
    await enter(rds, text)
    restored = rds.disk(slot).record
    assert restored is not None
    assert record is not None
    assert (restored.owner, restored.name, restored.access) == (
        *(record.owner, record.name, record.access),
    )
    successor = rds.controller()
    assert await make(successor, "pvc-1234") == slot
    await publish(successor, slot, "worker-1")
    await release(successor, slot)
    assert rds.slots() == []


@pytest.mark.parametrize("mark", ["strike", "strike-all"])
async def test_a_node_is_struck(rds: Rds, mark: str) -> None:
    controller = rds.controller()
    volume, other = [await make(controller, name) for name in ("one", "two")]
    for each in (volume, other):
        await publish(controller, each, "lost")
    with pytest.raises(VolumeInUse):
        await publish(controller, volume, "worker-2")
    await enter(rds, line(mark).replace("SLOT", volume))
    assert not rds.disk(volume).exported
    await publish(controller, volume, "worker-2")
    assert rds.disk(volume).exported
    record = rds.disk(other).record
    assert record is not None
    assert bool(record.nodes) == (mark == "strike")


async def test_another_cluster_id_is_refused(rds: Rds) -> None:
    """Why the old id is needed in a new cluster."""
    volume = await make(rds.controller(), "one")
    await enter(rds, f'/disk/set {volume} comment="rds-csi/2 owner=csi.rds-csi.io%2Fnew x"')
    with pytest.raises(NotOurs, match="carries no record of ours"):
        await publish(rds.controller(), volume, "worker-1")


async def test_a_volume_needs_no_attributes(rds: Rds) -> None:
    [volume] = [
        each
        for block in blocks(PAGE, "yaml")
        for each in yaml.safe_load_all(block.text)
        if each["kind"] == "PersistentVolume"
    ]
    source = volume["spec"]["csi"]
    assert source["driver"] == DEFAULT_DRIVER_NAME
    assert volume["metadata"]["annotations"] == {
        "pv.kubernetes.io/provisioned-by": DEFAULT_DRIVER_NAME
    }
    assert is_volume_id(source["volumeHandle"])
    assert "volumeAttributes" not in source
    controller = rds.controller()
    made = await make(controller, "one")
    context = await publish(controller, made, "worker-1")
    assert context["nvmeAddress"] == "10.0.0.5"
    assert context["nqn"] == rds.disk(made).nqn


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_new_address_is_written() -> None:
    [block] = [block.text for block in blocks(PAGE, "sh") if "nvmeAddress" in block.text]
    program = block.partition("jq '")[2].partition("'")[0]
    volume: dict[str, Any] = {
        "metadata": {"name": "a", "uid": "1", "resourceVersion": "2", "finalizers": ["x"]},
        "spec": {
            "claimRef": {"uid": "3"},
            "csi": {"volumeAttributes": {"nvmeAddress": "10.0.1.5", "nvmePort": "4420"}},
        },
        "status": {"phase": "Bound"},
    }
    done = subprocess.run(
        ["jq", program], input=json.dumps(volume), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "metadata": {"name": "a", "finalizers": ["x"]},
        "spec": {
            "claimRef": {"uid": "3"},
            "csi": {"volumeAttributes": {"nvmeAddress": "10.0.1.6", "nvmePort": "4420"}},
        },
    }


async def test_restoring_does_not_touch_what_is_in_the_file(rds: Rds) -> None:
    volume = await make(rds.controller(), "one")
    simulator: Simulator = rds.simulator
    path = simulator.path(f"{BASE}/{volume}-{owner_tag(OWNER)}.img")
    with path.open("r+b") as file:
        file.write(b"data of yesterday")
    [command] = (await enter(rds, line("backup"))).splitlines()
    await enter(rds, f"/disk/remove {volume}")
    await enter(rds, command)
    assert path.read_bytes()[:17] == b"data of yesterday"
    assert rds.disk(volume).size == GIB
