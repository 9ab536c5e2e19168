"""SIGTERM while the driver is at work on something that does not end: it ends, and all of it."""

import asyncio
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import family, node, volumes
from tests.lab.application import tell
from tests.lab.network import dropped
from tests.lab.processes import Driver
from tests.lab.standin import standing_in
from tests.lab.volumes import SLACK, volume
from tests.lab.waiting import converge, until
from tests.lab.world import PREFIX, World

pytestmark = pytest.mark.timeout(900)

DRAIN: Final = 2.0
"""--drain-budget: shorter than the 15 s of a real node, which no test needs to wait for."""
GRACE: Final = 3.0
"""What cancelled operations have to tidy up, after the drain."""
QUEUED: Final = 50

_HUNG: Final = """#!/bin/sh
trap '' TERM
echo hangs >&2
while :; do sleep 1; done
"""


def hung(program: str) -> AbstractContextManager[Path]:
    """A program that never ends and does not listen to SIGTERM."""
    return standing_in(program, _HUNG)


def copies(claim: Claim) -> list[csi.NodeStageVolumeRequest]:
    """Stage requests of many volumes, made from one."""
    requests = []
    for i in range(QUEUED):
        name = f"pvc-{i:028x}"
        context = {**claim.publish_context, "nqn": f"{PREFIX.removesuffix('pvc-')}{name}"}
        staging = claim.staging.parent.parent / name / "globalmount"
        staging.mkdir(parents=True)
        requests.append(
            csi.NodeStageVolumeRequest(
                volume_id=name,
                publish_context=context,
                staging_target_path=str(staging),
                volume_capability=claim.capability,
                volume_context={**claim.volume.volume_context, "nqn": context["nqn"]},
            )
        )
    return requests


async def stop_and_look(driver: Driver, calls: list[asyncio.Task[object]]) -> None:
    """SIGTERM: gone within its budget, with its children; each call was answered."""
    below = family.descendants(driver.pid)
    assert below, "no program runs: there is nothing to see"
    assert not any(call.done() for call in calls)
    began = time.monotonic()
    await driver.stop()
    took = time.monotonic() - began
    tell(f"stopped {took:.1f} s after SIGTERM, with {len(below)} processes below it")
    assert took < DRAIN + GRACE + 2 + SLACK
    assert "hard exit" not in driver.log.read_text()
    left = {pid: family.command(pid) for pid in below}
    assert not any(left.values()), f"left behind: {left}"
    results = await asyncio.gather(*calls, return_exceptions=True)
    words = {
        each.status.name if isinstance(each, GRPCError) else type(each).__name__ for each in results
    }
    tell(f"the callers were told: {words}")
    assert all(isinstance(each, GRPCError | StreamTerminatedError) for each in results)
    assert not {Status.OK.name, Status.INTERNAL.name, Status.UNKNOWN.name} & words


async def test_connect_retries_against_a_black_hole(world: World) -> None:
    driver = world.driver(drain_budget=str(DRAIN))
    await driver.start()
    async with Kubernetes(driver.socket, driver.socket) as kubernetes:
        claim = volume("hole", "ext4", reconnectDelay=1)
        await kubernetes.provision(claim)
        await kubernetes.attach(claim)
        with dropped("both ways"):
            call = asyncio.create_task(kubernetes.mount(claim))
            await until(lambda: "retrying" in driver.log.read_text(), "the first attempt failed")
            await until(lambda: bool(family.descendants(driver.pid)), "the second one runs")
            await stop_and_look(driver, [call])
        assert node.controllers(PREFIX) == []
        await driver.start()
        await kubernetes.mount(claim)
        await volumes.take_down(kubernetes, claim)


async def test_fifty_calls_wait_for_a_hung_nvme(world: World) -> None:
    driver = world.driver(drain_budget=str(DRAIN))
    await driver.start()
    async with Kubernetes(driver.socket, driver.socket) as kubernetes:
        claim = volume("hung", "ext4", reconnectDelay=1)
        await kubernetes.provision(claim)
        await kubernetes.attach(claim)
        with hung("nvme"):
            calls: list[asyncio.Task[object]] = [
                asyncio.create_task(kubernetes.node.node_stage_volume(request))
                for request in copies(claim)
            ]
            calls.append(asyncio.create_task(kubernetes.mount(claim)))
            await until(
                lambda: len(family.descendants(driver.pid)) >= 12, "as many run as may at once"
            )
            await asyncio.sleep(1)
            # The queue holds up nobody who does not connect.
            await asyncio.wait_for(kubernetes.node.node_get_info(csi.NodeGetInfoRequest()), 5)
            await stop_and_look(driver, calls)
        await driver.start()
        await kubernetes.mount(claim)
        await volumes.take_down(kubernetes, claim)


async def test_a_hung_mkfs(world: World) -> None:
    driver = world.driver(drain_budget=str(DRAIN))
    await driver.start()
    async with Kubernetes(driver.socket, driver.socket) as kubernetes:
        claim = volume("mkfs", "ext4", reconnectDelay=1)
        await kubernetes.provision(claim)
        await kubernetes.attach(claim)
        with hung("mkfs.ext4"):
            call = asyncio.create_task(kubernetes.mount(claim))
            await until(
                lambda: any(
                    "mkfs" in family.command(pid) for pid in family.descendants(driver.pid)
                ),
                "mkfs runs",
            )
            await stop_and_look(driver, [call])
        await driver.start()
        # Connected, marked as being formatted, not formatted: the next call goes on from there.
        await kubernetes.mount(claim)
        assert await volumes.health(kubernetes, claim) == {}
        await volumes.take_down(kubernetes, claim)


async def test_a_hung_disconnect(world: World) -> None:
    # The write that disconnects goes through sh; the target is gone, and the kernel waits for it.
    driver = world.driver(drain_budget=str(DRAIN))
    await driver.start()
    async with Kubernetes(driver.socket, driver.socket) as kubernetes:
        claim = volume("leave", "block", reconnectDelay=1, keepAliveTmo=5)
        await volumes.bring_up(kubernetes, claim)
        await kubernetes.node.node_unpublish_volume(
            csi.NodeUnpublishVolumeRequest(
                volume_id=claim.volume.volume_id, target_path=str(claim.target)
            )
        )
        with dropped("both ways"):
            call = asyncio.create_task(
                kubernetes.node.node_unstage_volume(
                    csi.NodeUnstageVolumeRequest(
                        volume_id=claim.volume.volume_id, staging_target_path=str(claim.staging)
                    )
                )
            )
            await asyncio.sleep(0.5)
            began = time.monotonic()
            await driver.stop()
            took = time.monotonic() - began
            tell(f"stopped {took:.1f} s after SIGTERM, in a disconnect")
            assert took < DRAIN + GRACE + 5 + SLACK
            tell(f"the caller: {(await asyncio.gather(call, return_exceptions=True))[0]!r}")
        await driver.start()
        # The kubelet repeats its call, until it is true.
        await converge(lambda: kubernetes.unmount(claim), "disconnect")
        assert node.controllers(PREFIX) == []
        await kubernetes.mount(claim)
        await volumes.take_down(kubernetes, claim)
