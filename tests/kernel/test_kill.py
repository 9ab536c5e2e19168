"""Kill -9 of the driver at every step of every operation: a repeated call always converges.

No step is named here. An operation is run again and again, on a new volume each time: killed
before its first effect on the world (``tests/lab/effects.py``), before its second, and so on until
it gets through unharmed; then killed during its first program (``tests/lab/shims.py``), its second.
After each kill the driver is started again and the call repeated, as the kubelet does.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from grpclib.exceptions import StreamTerminatedError

from rds_csi.csi import v1 as csi
from rds_csi.demo import data
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import node
from tests.lab.processes import Driver
from tests.lab.shims import Fate, Shims
from tests.lab.volumes import GROWS_IN_USE
from tests.lab.waiting import converge
from tests.lab.world import KUBELET, MIB, PREFIX, World, claim

PROGRAMS: Final = ("nvme", "mkfs.ext4", "mkfs.xfs", "mount", "umount", "resize2fs",
                   "e2fsck", "xfs_growfs", "xfs_repair", "blockdev", "modprobe",
                   "tune2fs", "xfs_admin", "fsck.ext4")  # fmt: skip
pytestmark = pytest.mark.timeout(5400)


class Node:
    """The operations of the kubelet on one volume, one by one."""

    def __init__(self, kubernetes: Kubernetes, volume: Claim) -> None:
        self.kubernetes = kubernetes
        self.volume = volume

    @property
    def path(self) -> Path:
        target = self.volume.target
        return target if self.volume.access == "block" else target / "data"

    async def create(self) -> None:
        await self.kubernetes.provision(self.volume)
        await self.kubernetes.attach(self.volume)

    async def stage(self) -> None:
        volume = self.volume
        volume.staging.mkdir(parents=True, exist_ok=True)
        await self.kubernetes.node.node_stage_volume(
            csi.NodeStageVolumeRequest(
                volume_id=volume.volume.volume_id,
                publish_context=volume.publish_context,
                staging_target_path=str(volume.staging),
                volume_capability=volume.capability,
                volume_context=volume.volume.volume_context,
            )
        )

    async def publish(self) -> None:
        volume = self.volume
        volume.target.parent.mkdir(parents=True, exist_ok=True)
        await self.kubernetes.node.node_publish_volume(
            csi.NodePublishVolumeRequest(
                volume_id=volume.volume.volume_id,
                publish_context=volume.publish_context,
                staging_target_path=str(volume.staging),
                target_path=str(volume.target),
                volume_capability=volume.capability,
                volume_context=volume.volume.volume_context,
            )
        )

    async def grow(self) -> None:
        await self.kubernetes.grow(self.volume, 2 * self.volume.size)

    async def unpublish(self) -> None:
        await self.kubernetes.node.node_unpublish_volume(
            csi.NodeUnpublishVolumeRequest(
                volume_id=self.volume.volume.volume_id, target_path=str(self.volume.target)
            )
        )

    async def unstage(self) -> None:
        await self.kubernetes.node.node_unstage_volume(
            csi.NodeUnstageVolumeRequest(
                volume_id=self.volume.volume.volume_id,
                staging_target_path=str(self.volume.staging),
            )
        )

    async def release(self) -> None:
        await self.kubernetes.release(self.volume)

    async def write(self) -> data.Written:
        return await asyncio.to_thread(data.write, self.path, offset=0, size=4 * MIB)


@pytest.fixture
def shims(tmp_path: Path) -> Iterator[Shims]:
    shims = Shims(PROGRAMS, tmp_path)
    yield shims
    shims.remove()


class Killer:
    """Kills at one step, whichever way, and says afterwards which it was."""

    def __init__(self, driver: Driver, shims: Shims, moment: str) -> None:
        self._driver = driver
        self._shims = shims
        self._moment = moment

    def arm(self, number: int) -> None:
        if self._moment == "before-effect":
            self._driver.kill_before_effect(number)
        else:
            fate: Fate = "lives" if self._moment == "program-lives" else "dies"
            self._shims.kill_at_call(number, fate)

    def disarm(self) -> str:
        """The last step there was."""
        steps = [*self._driver.end_of_plan(), *self._shims.end_of_plan()]
        return steps[-1] if steps else "nothing"

    async def kill_during(self, call: Callable[[], Awaitable[None]], number: int) -> str:
        """Kill the driver at step ``number`` of ``call`` and converge; "" if it got through."""
        self.arm(number)
        try:
            await call()
        except (StreamTerminatedError, ConnectionError):
            step = self.disarm()
            await self._driver.restart()
            await converge(call, step)
            return step
        self.disarm()
        assert self._driver.running()
        return ""


@pytest.fixture
def killer(driver: Driver, shims: Shims, request: pytest.FixtureRequest) -> Killer:
    return Killer(driver, shims, request.param)


# On an emulated processor one kill and its recovery take half a minute, and killed before every
# effect of every operation they take hours: that is for `nox -s kernel -- --exhaustive`. Always
# run are the kills around each program of publish and unstage. Every step of every operation, on a
# played kernel, is killed at in tests/unit/node/test_kill.py each time.
exhaustive = pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("killer", "access"),
    [
        pytest.param("before-effect", "ext4", marks=exhaustive),
        pytest.param("before-effect", "xfs", marks=exhaustive),
        pytest.param("before-effect", "block", marks=exhaustive),
        pytest.param("program-dies", "ext4", marks=exhaustive),
        pytest.param("program-dies", "xfs", marks=exhaustive),
        pytest.param("program-lives", "ext4", marks=exhaustive),
    ],
    indirect=["killer"],
)
async def test_stage(access: str, killer: Killer, kubernetes: Kubernetes, world: World) -> None:
    """First of a blank volume, then of one that holds data."""
    steps: list[str] = []
    for number in itertools.count(1):
        volume = Node(kubernetes, claim(f"stage-{number}", access))
        await volume.create()
        blank = await killer.kill_during(volume.stage, number)
        await volume.publish()
        written = await volume.write()
        await volume.unpublish()
        await volume.unstage()
        full = await killer.kill_during(volume.stage, number)
        await volume.publish()
        assert data.intact(written), f"lost at {full!r}"
        await volume.unpublish()
        await volume.unstage()
        await gone(volume, world)
        steps += [step for step in (blank, full) if step]
        if not blank and not full:
            break
    report("stage", steps)


@GROWS_IN_USE
@pytest.mark.parametrize(
    ("killer", "operation", "access"),
    [
        ("program-dies", "publish", "ext4"),
        ("program-dies", "unstage", "ext4"),
        pytest.param("before-effect", "publish", "ext4", marks=exhaustive),
        pytest.param("before-effect", "publish", "block", marks=exhaustive),
        pytest.param("before-effect", "grow", "ext4", marks=exhaustive),
        pytest.param("before-effect", "unpublish", "ext4", marks=exhaustive),
        pytest.param("before-effect", "unpublish", "block", marks=exhaustive),
        pytest.param("before-effect", "unstage", "ext4", marks=exhaustive),
        pytest.param("program-dies", "grow", "ext4", marks=exhaustive),
        pytest.param("program-lives", "grow", "ext4", marks=exhaustive),
    ],
    indirect=["killer"],
)
async def test_the_rest(
    operation: str, access: str, killer: Killer, kubernetes: Kubernetes, world: World
) -> None:
    """What was written before the kill is read back after it."""
    world.rds.quirks.growth = "announced"  # else no mounted volume grows
    steps: list[str] = []
    order = ["stage", "publish", "grow", "unpublish", "unstage"]
    for number in itertools.count(1):
        volume = Node(kubernetes, claim(f"{operation}-{number}", access))
        await volume.create()
        await volume.stage()
        await volume.publish()
        written = await volume.write()
        if operation == "publish":
            await volume.unpublish()
        for name in order[2 : order.index(operation)]:
            if name != "grow":
                await getattr(volume, name)()
        step = await killer.kill_during(getattr(volume, operation), number)
        await volume.stage()
        await volume.publish()
        assert data.intact(written), f"lost at {step!r}"
        assert len(node.controllers(PREFIX)) == 1
        assert len(node.mounts(KUBELET)) == (1 if access == "block" else 2), "mounts stack"
        await volume.unpublish()
        await volume.unstage()
        await gone(volume, world)
        if not step:
            break
        steps.append(step)
    report(operation, steps)


async def gone(volume: Node, world: World) -> None:
    await volume.release()
    assert world.leftovers() == []


def report(operation: str, steps: list[str]) -> None:
    assert steps, "no step was ever killed at"
    for step in steps:
        print(f"{operation}: killed at {step}")  # noqa: T201 - the evidence, with -rP
