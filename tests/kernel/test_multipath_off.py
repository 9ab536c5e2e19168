"""Nodes whose kernel has native NVMe multipath switched off: the same promises but one.

There a device is a child of its controller, without a head above the paths that would outlive
it: what the kernel gives up takes the device along at once. And a request that cannot be sent in
the instant in which a connection breaks is not kept for a path: after six attempts in about a
millisecond it fails. A map above takes it back.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from rds_csi.demo.kubelet import Kubernetes
from tests.lab import node, volumes
from tests.lab.application import Application, tell
from tests.lab.volumes import GROWS_IN_USE, volume
from tests.lab.waiting import converge, until
from tests.lab.world import KUBELET, MIB, SIZE, World

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("multipath_off")]

_SETTING: Final = Path("/sys/module/nvme_core/parameters/multipath")
_MODULES: Final = ("nvmet-tcp", "nvmet", "nvme-tcp", "nvme-fabrics", "nvme-core")
"""Each before those it needs."""
OUTAGES: Final = 6


@pytest.fixture
def multipath_off() -> Iterator[None]:
    """The modules loaded anew with the setting, and as they were afterwards."""
    load("N")
    assert _SETTING.read_text().strip() == "N"
    yield
    load("Y")


def load(multipath: str) -> None:
    for command in (
        ["modprobe", "-r", *_MODULES],
        ["modprobe", "nvme-core", f"multipath={multipath}"],
        ["modprobe", "-a", "nvme-tcp", "nvmet-tcp"],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"


async def test_of_several_addresses_one_is_used(kubernetes: Kubernetes) -> None:
    """Each connection would be a device of its own: two ways to write that know nothing of each
    other."""
    claim = volume("single-two", "ext4", nvmeAddress="127.0.0.1,127.0.0.2")
    await volumes.bring_up(kubernetes, claim)
    assert node.owned_devices() == 1
    said = await volumes.health(kubernetes, claim)
    assert list(said) == ["PathDown"]
    assert "nvme_core.multipath=N" in said["PathDown"]
    await kubernetes.mount(claim)
    assert node.owned_devices() == 1
    await volumes.take_down(kubernetes, claim)


@GROWS_IN_USE
@pytest.mark.requirement("CONN-03")
async def test_an_outage_growth_and_a_loss_for_good(
    kubernetes: Kubernetes, world: World, tmp_path: Path
) -> None:
    # Growth in use is seen only where the target tells it.
    world.rds.quirks.growth = "announced"
    claims = [volume(f"single-{access}", access, reconnectDelay=1) for access in ("ext4", "block")]
    fails = volume("single-fails", "xfs", reconnectDelay=1, ctrlLossTmo=3)
    await volumes.bring_up(kubernetes, *claims, fails)
    mounts = node.mounts(KUBELET)
    assert node.owned_devices() == len([*claims, fails])
    application = Application(claims, tmp_path / "application")
    await application.start()

    # This kernel may fail what is under way when a connection breaks (docs/kernel-defaults.md,
    # "Without native multipath"), so nothing is.
    await application.stop()
    os.sync()
    await world.rds.cut(None)
    await until(lambda: volumes.state(fails) == "gone", "the kernel gives up")
    await world.rds.restore(None)
    await until(lambda: {volumes.state(each) for each in claims} == {"live"}, "reconnected")
    await application.start()
    for each in claims:
        await kubernetes.grow(each, SIZE + 128 * MIB)
    await application.stop()
    tell(application.summary())
    for each in claims:
        assert application.journal(each).errors() == {}
        assert await volumes.health(kubernetes, each) == {}
    assert set(node.mounts(KUBELET)) <= set(mounts)
    await application.prove()

    # What the kernel gave up is recovered as Kubernetes does it: unmounted, mounted again.
    assert "NotConnected" in await volumes.health(kubernetes, fails)
    await converge(lambda: kubernetes.unmount(fails), "unmount")
    await converge(lambda: kubernetes.mount(fails), "mount")
    assert await volumes.health(kubernetes, fails) == {}
    await volumes.take_down(kubernetes, *claims, fails)


@pytest.mark.exhaustive
@pytest.mark.path_layer
async def test_under_a_map_what_was_under_way_waits(
    kubernetes: Kubernetes, world: World, tmp_path: Path
) -> None:
    claims = [volume(f"kept-{access}", access, reconnectDelay=1) for access in ("ext4", "block")]
    await volumes.bring_up(kubernetes, *claims)
    mounts = node.mounts(KUBELET)
    application = Application(claims, tmp_path / "application", pause=0.0)
    await application.start()
    for _ in range(OUTAGES):
        await world.rds.cut(None)
        await until(lambda: {volumes.state(each) for each in claims} == {"connecting"}, "an outage")
        await world.rds.restore(None)
        restored = time.monotonic()
        await asyncio.gather(*(application.resumed(each, restored) for each in claims))
    await application.stop()
    tell(application.summary())
    for each in claims:
        assert application.journal(each).errors() == {}
    assert node.mounts(KUBELET) == mounts
    await application.prove()
    await volumes.take_down(kubernetes, *claims)
