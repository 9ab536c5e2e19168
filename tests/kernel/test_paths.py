"""Two data addresses of one RDS: what takes one of them away is no outage."""

import time
from pathlib import Path
from typing import Final

import pytest

from rds_csi.demo.kubelet import Claim, Kubernetes
from rds_csi.nvme.sysfs import Controller, Sysfs
from tests.lab import node, volumes
from tests.lab.application import Application, tell
from tests.lab.network import dropped
from tests.lab.volumes import SLACK, volume
from tests.lab.waiting import until
from tests.lab.world import KUBELET

pytestmark = pytest.mark.timeout(300)

ADDRESSES: Final = ("127.0.0.1", "127.0.0.2")
KEEP_ALIVE: Final = 2
"""Seconds. A connection that is silent for that long, and half as long again until the next
keep-alive, is lost (drivers/nvme/host/core.c); then its I/O goes over another path."""


@pytest.fixture
def listening() -> str:
    return "0.0.0.0"


def paths(claim: Claim) -> dict[str, Controller]:
    """The volume's connections by their addresses."""
    return {each.address: each for each in Sysfs().controllers(claim.publish_context["nqn"])}


def all_live(claim: Claim) -> bool:
    found = [(address, each.live) for address, each in sorted(paths(claim).items())]
    return found == [(address, True) for address in ADDRESSES]


def delete(controller: str) -> None:
    Path("/sys/class/nvme", controller, "delete_controller").write_text("1")


async def test_one_of_two_paths_is_cut_under_load(kubernetes: Kubernetes, tmp_path: Path) -> None:
    claim = volume(
        "paths-cut",
        "ext4",
        nvmeAddress=",".join(ADDRESSES),
        reconnectDelay=1,
        keepAliveTmo=KEEP_ALIVE,
    )
    await volumes.bring_up(kubernetes, claim)
    assert all_live(claim), "a stage connects at each address"
    assert node.owned_devices() == 1, "and there is one device"
    mounts = node.mounts(KUBELET)
    application = Application([claim], tmp_path / "application")
    await application.start()

    for address in ADDRESSES:
        with dropped("both ways", address):
            await until(
                lambda address=address: not paths(claim)[address].live,  # type: ignore[misc]
                f"the kernel sees that {address} is gone",
            )
            # While it is away, writes go on, health says so, and nothing else is wrong.
            await application.resumed(claim, time.monotonic())
            said = await volumes.health(kubernetes, claim)
            assert list(said) == ["PathDown"]
            assert address in said["PathDown"]
        await until(lambda: all_live(claim), f"{address} comes back by itself")
        assert await volumes.health(kubernetes, claim) == {}

    # What the kernel gives up, the driver brings back.
    delete(paths(claim)[ADDRESSES[0]].name)
    assert not all_live(claim)
    await until(lambda: all_live(claim), "the missing path is made anew")

    tell(application.summary())
    assert application.journal(claim).errors() == {}
    assert application.journal(claim).longest_stall() < 1.5 * KEEP_ALIVE + 4 * SLACK
    assert node.mounts(KUBELET) == mounts
    await application.stop()
    await application.prove()
    await volumes.take_down(kubernetes, claim)


async def test_a_stage_is_content_with_one(kubernetes: Kubernetes) -> None:
    claim = volume("paths-one", "ext4", nvmeAddress=",".join(ADDRESSES), reconnectDelay=1)
    await kubernetes.provision(claim)
    await kubernetes.attach(claim)
    with dropped("both ways", ADDRESSES[0]):
        await kubernetes.mount(claim)
        assert list(paths(claim)) == [ADDRESSES[1]]
        assert list(await volumes.health(kubernetes, claim)) == ["PathDown"]
    # A repeated stage does not wait for the driver's own look.
    await kubernetes.mount(claim)
    assert all_live(claim)
    assert await volumes.health(kubernetes, claim) == {}
    await volumes.take_down(kubernetes, claim)
