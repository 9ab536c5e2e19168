"""A volume in use on a target that can lose its memory, staged by a driver's own parts."""

import asyncio
import contextlib
import mmap
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.csi import v1 as csi
from rds_csi.driver.node_part import node_part
from rds_csi.node.service import Node
from rds_csi.nvme.returns import Returns
from rds_csi.rpc.operations import Operations
from rds_csi.runtime.scope import Scope
from rds_csi.telemetry.metrics import Metrics
from tests.lab import node
from tests.lab.power import PoweredTarget
from tests.lab.waiting import until
from tests.lab.world import KUBELET, MIB, PREFIX, STATE

VOLUME: Final = "pvc-" + "5" * 28
NQN: Final = f"{PREFIX.removesuffix('pvc-')}{VOLUME}.3"
PORT: Final = 4433
SIZE: Final = 8 * MIB
"""Bytes of what the tests write."""


@dataclass
class Used:
    """The volume, its target, and what the driver says of them."""

    access: str
    target: PoweredTarget
    service: Node
    returns: Returns
    metrics: Metrics
    verdicts: list[str] = field(default_factory=list)

    @property
    def staging(self) -> Path:
        return KUBELET / "memory" / "stage"

    @property
    def capability(self) -> csi.VolumeCapability:
        mode = csi.VolumeCapabilityAccessMode(
            mode=csi.VolumeCapabilityAccessModeMode.SINGLE_NODE_WRITER
        )
        if self.access == "block":
            return csi.VolumeCapability(block=csi.VolumeCapabilityBlockVolume(), access_mode=mode)
        # Nothing but what the test flushes is to be flushed meanwhile: no commit of the journal,
        # and no inode tables made in the background, which ends with a flush.
        flags = ["commit=300", "noinit_itable"] if self.access == "ext4" else []
        mount = csi.VolumeCapabilityMountVolume(fs_type=self.access, mount_flags=flags)
        return csi.VolumeCapability(mount=mount, access_mode=mode)

    async def stage(self) -> None:
        self.staging.mkdir(parents=True, exist_ok=True)
        await self.service.node_stage_volume(
            csi.NodeStageVolumeRequest(
                volume_id=VOLUME,
                publish_context={
                    "nvmeAddress": "127.0.0.1",
                    "nvmePort": str(PORT),
                    "nqn": NQN,
                    "size": str(self.target.size),
                    "generation": "3",
                },
                volume_context={"reconnectDelay": "1"},
                staging_target_path=str(self.staging),
                volume_capability=self.capability,
            )
        )
        await until(lambda: NQN in self.returns._known, "the target was asked")

    async def unstage(self) -> None:
        request = csi.NodeUnstageVolumeRequest(
            volume_id=VOLUME, staging_target_path=str(self.staging)
        )
        await self.service.node_unstage_volume(request)

    async def restage(self) -> None:
        """Its pods are stopped, and start again."""
        await self.unstage()
        await self.returns.look()
        assert NQN not in self.returns._known
        await self.stage()

    async def health(self) -> dict[str, str]:
        answer = await self.service.node_get_volume_health(
            csi.NodeGetVolumeHealthRequest(volume_id=VOLUME)
        )
        found = answer.volume_health.health_statuses if answer.volume_health else []
        return {each.reason: each.message for each in found}

    async def until_health(self, *wanted: str) -> dict[str, str]:
        """The driver's own look at it takes a moment."""
        async with asyncio.timeout(60):
            # Asked again and again, as a kubelet does.
            while set(found := await self.health()) != set(wanted):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        return found

    def metric(self, name: str, **labels: str) -> float | None:
        """What a scrape would show."""
        return self.metrics.registry.get_sample_value(f"rds_csi_{name}", labels)

    @property
    def state(self) -> str:
        return next((each.state for each in node.controllers() if each.nqn == NQN), "gone")

    @property
    def file(self) -> Path:
        if self.access != "block":
            return self.staging / "data"
        (namespace,) = Path("/sys/class/nvme-subsystem").glob("*/nvme*n1")
        return Path("/dev") / namespace.name

    async def looked_at(self) -> None:
        """What was sent until now is known to have been sent, by two looks."""
        now = time.time()
        await until(lambda: self.returns._known[NQN].earlier.at > now, "two looks")

    async def outage(self, *, power: bool) -> str:
        """The target is away until the kernel has seen it; the verdict about its return."""
        before = len(self.verdicts)
        (self.target.cut_power if power else self.target.cut_link)()
        await until(lambda: self.state == "connecting", "the outage is seen")
        (self.target.boot if power else self.target.mend_link)()
        await until(lambda: len(self.verdicts) > before, "the return was judged")
        assert len(self.verdicts) == before + 1
        return self.verdicts[-1]


@contextlib.asynccontextmanager
async def using(access: str, folder: Path) -> AsyncIterator[Used]:
    """Staged; unstaged and forgotten afterwards, and nothing is left of it whatever happened."""
    target = PoweredTarget(NQN, folder, size=(320 if access == "xfs" else 128) * MIB, port=PORT)
    target.start()
    operations, metrics = Operations(), Metrics("node")
    part = node_part(
        DriverConfig(endpoint=folder / "csi.sock", cluster_id="lab"),
        NodeConfig(node_id="memory", state_dir=STATE / "memory", kubelet_dir=KUBELET),
        "memory.lab",
        locked=lambda _volume: False,
        operations=lambda: operations,
        scope=Scope(),
        metrics=metrics,
    )
    returns = part.background["targets"].__self__  # type: ignore[attr-defined]
    made = Used(access, target, part.service, returns, metrics)
    count = returns._on_verdict

    def told(verdict: str) -> None:
        count(verdict)
        made.verdicts.append(verdict)

    returns._on_verdict = told
    tasks = [asyncio.ensure_future(part.background["targets"]())]
    assert part.close is not None
    try:
        await made.stage()
        yield made
        await made.unstage()
        await returns.look()
        assert NQN not in returns._known
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await part.close()
        node.clean(KUBELET, NQN)
        target.stop()


def write(file: Path, content: bytes) -> int:
    """Send it past the cache: the target has acknowledged it, and was not told to flush."""
    descriptor = os.open(file, os.O_RDWR | os.O_DIRECT | os.O_CREAT)
    with mmap.mmap(-1, len(content)) as buffer:
        buffer.write(content)
        assert os.pwrite(descriptor, buffer, 0) == len(content)
    return descriptor


def read(file: Path) -> bytes:
    """What the target has."""
    descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, SIZE) as buffer:
            assert os.preadv(descriptor, [buffer], 0) == SIZE
            return buffer[:]
    finally:
        os.close(descriptor)
