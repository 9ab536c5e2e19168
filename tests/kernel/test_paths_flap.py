"""One of two data addresses comes and goes for a minute: no error, and nothing of it is lost."""

import time
from pathlib import Path

import pytest

from rds_csi.demo.kubelet import Kubernetes
from tests.kernel.test_paths import ADDRESSES, KEEP_ALIVE, all_live, paths
from tests.lab import node, volumes
from tests.lab.application import Application, tell
from tests.lab.network import dropped
from tests.lab.volumes import volume
from tests.lab.waiting import until
from tests.lab.world import KUBELET

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.exhaustive,
    pytest.mark.kernels,
    pytest.mark.path_layer,
]

FLAPS_FOR = 60.0
"""Seconds."""


@pytest.fixture
def listening() -> str:
    return "0.0.0.0"


async def test_one_of_two_paths_flaps_for_a_minute(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """The kernel joins them under the map; each time it comes back, I/O may go there again."""
    volumes.run("modprobe", "-a", "dm-multipath", "dm-round-robin")
    claim = volume(
        "paths-flap",
        "ext4",
        nvmeAddress=",".join(ADDRESSES),
        reconnectDelay=1,
        keepAliveTmo=KEEP_ALIVE,
    )
    await volumes.bring_up(kubernetes, claim)
    assert node.maps()
    mounts = node.mounts(KUBELET)
    application = Application([claim], tmp_path / "application")
    await application.start()

    flaps = 0
    end = time.monotonic() + FLAPS_FOR
    while time.monotonic() < end:
        with dropped("both ways", ADDRESSES[0]):
            await until(lambda: not paths(claim)[ADDRESSES[0]].live, "it is seen to be gone")
            await application.resumed(claim, time.monotonic())
        await until(lambda: all_live(claim), "it is back")
        flaps += 1

    tell(f"{flaps} times\n{application.summary()}")
    assert application.journal(claim).errors() == {}
    assert node.mounts(KUBELET) == mounts
    assert await volumes.health(kubernetes, claim) == {}
    await application.stop()
    await application.prove()
    await volumes.take_down(kubernetes, claim)
