"""What the resilience tests do with volumes: as a cluster does it, one call after the other."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import node
from tests.lab.world import claim

SLACK = 5.0
"""Seconds that an emulated processor, shared with others, may add to any time. What is promised
of times is measured by ``benchmarks/resume.py``; here it only has to be the right promise."""


GROWS_IN_USE = pytest.mark.parametrize("flags", [{"growth": "always"}], ids=["growing"])
"""For the driver: the target announces growth, and so nodes follow (quirk ``growth``)."""


def volume(name: str, access: str, **parameters: int | str) -> Claim:
    """A claim of a StorageClass with these parameters."""
    made = claim(name, access)
    made.parameters = {key: str(value) for key, value in parameters.items()}
    return made


async def bring_up(kubernetes: Kubernetes, *volumes: Claim) -> None:
    for each in volumes:
        await kubernetes.provision(each)
        await kubernetes.attach(each)
        await kubernetes.mount(each)


async def take_down(kubernetes: Kubernetes, *volumes: Claim) -> None:
    for each in volumes:
        await kubernetes.unmount(each)
        await kubernetes.release(each)


async def health(kubernetes: Kubernetes, volume: Claim) -> dict[str, str]:
    """What NodeGetVolumeHealth says is wrong: reasons and messages.

    Not that the target began anew, as a simulator that makes its devices anew really does.
    """
    async with asyncio.timeout(10):
        response = await kubernetes.node.node_get_volume_health(
            csi.NodeGetVolumeHealthRequest(
                volume_id=volume.volume.volume_id,
                volume_publish_path=str(volume.target),
                staging_target_path="" if volume.access == "block" else str(volume.staging),
            )
        )
    found = response.volume_health.health_statuses if response.volume_health else []
    return {each.reason: each.message for each in found if each.reason != "TargetRestarted"}


def controller(volume: Claim) -> node.Controller | None:
    """The volume's controller, if there is one."""
    nqn = volume.publish_context["nqn"]
    return next((each for each in node.controllers() if each.nqn == nqn), None)


def state(volume: Claim) -> str:
    """The state of the volume's controller; ``gone`` where there is none."""
    found = controller(volume)
    return found.state if found else "gone"


def setting(volume: Claim, attribute: str) -> str:
    """A setting of the volume's controller, as sysfs has it."""
    found = controller(volume)
    assert found is not None, f"{volume.name} is not connected"
    return Path("/sys/class/nvme", found.name, attribute).read_text().strip()


def run(*command: str | Path) -> None:
    """Run a program as the host's administrator would."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def disconnect_all(prefix: str) -> None:
    """Take all connections down behind the driver's back, in use or not."""
    for each in node.controllers(prefix):
        Path("/sys/class/nvme", each.name, "delete_controller").write_text("1")
