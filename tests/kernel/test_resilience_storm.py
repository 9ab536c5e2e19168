"""Twenty volumes at once: cut and restored, and staged against a target that is not there yet."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from rds_csi.demo.kubelet import Kubernetes
from tests.lab import node
from tests.lab.application import Application, tell
from tests.lab.standin import standing_in
from tests.lab.volumes import SLACK, volume
from tests.lab.world import PREFIX, World

pytestmark = pytest.mark.timeout(900)

VOLUMES: Final = 20
LIMIT: Final = 4
"""Connects at once; less than the default of 8, so that twenty volumes have to wait for it."""

_LOGGING: Final = """#!/bin/sh
[ "$1" = connect ] || exec /usr/sbin/nvme "$@"
read -r now _ </proc/uptime; echo "begin $now $8 $9" >>{log}
/usr/sbin/nvme "$@"; status=$?
read -r now _ </proc/uptime; echo "end $now $8 $9" >>{log}
exit $status
"""


@pytest.fixture
def connects(tmp_path: Path) -> Iterator[Path]:
    """Where each ``nvme connect`` notes when it begins and when it ends."""
    log = tmp_path / "connects"
    with standing_in("nvme", _LOGGING.format(log=log)):
        yield log


def noted(log: Path) -> list[str]:
    return log.read_text().splitlines()


def most_at_once(lines: list[str]) -> int:
    now = most = 0
    for line in lines:
        now += 1 if line.startswith("begin") else -1
        most = max(most, now)
    return most


@pytest.mark.requirement("PIT-02")
@pytest.mark.requirement("ANTI-02")
async def test_twenty_volumes(world: World, tmp_path: Path, connects: Path) -> None:
    driver = world.driver(connects=str(LIMIT))
    await driver.start()
    claims = [volume(f"storm-{i:02}", "block", reconnectDelay=2) for i in range(VOLUMES)]
    async with Kubernetes(driver.socket, driver.socket) as kubernetes:
        for each in claims:
            await kubernetes.provision(each)
            await kubernetes.attach(each)

        # A node comes up while the target is away: everybody tries, in turn, and again.
        await world.rds.cut(None)
        staging = [asyncio.create_task(kubernetes.mount(each)) for each in claims]
        await asyncio.sleep(6)
        await world.rds.restore(None)
        ended = await asyncio.gather(*staging, return_exceptions=True)
        failed = [each for each in ended if isinstance(each, BaseException)]
        lines = noted(connects)
        begun = [float(line.split(" ")[1]) for line in lines if line.startswith("begin")]
        tell(f"{len(begun)} connects for {VOLUMES} volumes, {most_at_once(lines)} at once")
        assert failed == [], "an outage of 6 s was not outlasted by the retries"
        assert most_at_once(lines) == LIMIT
        assert len(begun) > VOLUMES
        assert begun[-1] - begun[0] > 1, "the retries are not spread"
        assert len(node.controllers(PREFIX)) == VOLUMES

        # The target goes away under all of them: the kernel brings them back, not we.
        application = Application(claims, tmp_path / "application", pause=0.1)
        await application.start()
        await world.rds.cut(None)
        await asyncio.sleep(5)
        restored = time.monotonic()
        await world.rds.restore(None)
        took = [await application.resumed(each, restored) for each in claims]
        tell(f"I/O resumed after {min(took):.1f} to {max(took):.1f} s")
        # Twenty handshakes take their time in an emulated machine.
        assert max(took) < 2 + 1 + 3 * SLACK
        assert len(noted(connects)) == len(lines), "somebody connected anew"
        assert all(journal.errors() == {} for journal in application.journals)
        await application.stop()
        await application.prove()
        await asyncio.gather(*(kubernetes.unmount(each) for each in claims))
        for each in claims:
            await kubernetes.release(each)
