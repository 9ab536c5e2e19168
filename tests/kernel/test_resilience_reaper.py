"""The reaper against volumes that come and go; the stress test of 200 stages plays the kernel."""

import asyncio
import subprocess
from pathlib import Path
from typing import Final

import pytest

from rds_csi.demo.kubelet import Kubernetes
from tests.lab import volumes
from tests.lab.application import Application, tell
from tests.lab.volumes import volume
from tests.lab.waiting import converge, until
from tests.lab.world import World

# The race of 200 stages against the reaper, on a played kernel, is in
# tests/unit/nvme/test_reaper_race.py.
pytestmark = pytest.mark.timeout(900)

LIVES: Final = (3, 4)
"""Volumes at once, and how often each comes and goes."""


@pytest.mark.requirement("PIT-03")
async def test_volumes_come_and_go_while_the_reaper_is_awake(world: World, tmp_path: Path) -> None:
    """The reaper looks five times a second and waits for nobody, while volumes come and go."""
    driver = world.driver(reap_interval="0.2", reap_grace="0.2")
    await driver.start()
    async with Kubernetes(driver.socket, driver.socket) as kubernetes:
        claims = [volume(f"race-{i}", "block", reconnectDelay=1) for i in range(LIVES[0])]
        for each in claims:
            await kubernetes.provision(each)
            await kubernetes.attach(each)

        async def come_and_go(number: int) -> None:
            claim = claims[number]
            application = Application([claim], tmp_path / claim.name)
            for _ in range(LIVES[1]):
                await converge(lambda: kubernetes.mount(claim), "mount")
                await application.start()
                await application.stop()
                await application.prove()
                assert application.journals[0].errors() == {}
                await converge(lambda: kubernetes.unmount(claim), "unmount")

        await asyncio.gather(*(come_and_go(i) for i in range(len(claims))))
        passes = driver.log.read_text().count("looked for orphaned connections")
        tell(f"{LIVES[0] * LIVES[1]} lives, {passes} searches for orphans meanwhile")
        assert passes > 20

        # It is awake: what nobody needs, it takes down.
        orphan = claims[0]
        await kubernetes.mount(orphan)
        host = volumes.setting(orphan, "hostnqn"), volumes.setting(orphan, "hostid")
        await kubernetes.unmount(orphan)
        connect = ["nvme", "connect", "-t", "tcp", "-a", "127.0.0.1", "-s", "4420"]
        connect += ["-n", orphan.publish_context["nqn"], "-q", host[0], "-I", host[1]]
        # It may be taken away before nvme-cli has seen it, which is then an error.
        done = await asyncio.to_thread(
            subprocess.run, connect, check=False, capture_output=True, text=True
        )
        tell(f"nvme connect: {done.returncode} {done.stderr.strip()}")
        # The driver says so once it has seen it gone, a moment after we may see it.
        await until(lambda: "orphan disconnected" in driver.log.read_text(), "an orphan is reaped")
        assert volumes.state(orphan) == "gone"
        for each in claims:
            await kubernetes.release(each)
