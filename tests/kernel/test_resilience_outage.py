"""The target goes away for seconds or for long, with or without a word: nothing is lost."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.lab import node, volumes
from tests.lab.application import Application, tell
from tests.lab.kernel_log import KernelLog
from tests.lab.network import Direction, dropped
from tests.lab.volumes import SLACK, volume
from tests.lab.waiting import until
from tests.lab.world import KUBELET, World

pytestmark = pytest.mark.timeout(900)

# The kernel counts an outage in attempts, not in seconds: ctrl_loss_tmo over reconnect_delay,
# rounded up. 60 s at 1 s apart are as many as ten minutes at its own delay of 10 s.
OUTAGES: Final = {
    "short": ("ext4", 5, {"reconnectDelay": 2, "ctrlLossTmo": -1, "keepAliveTmo": 7}),
    "middle": ("xfs", 30, {"reconnectDelay": 5, "ctrlLossTmo": 600}),
    "long": ("block", 60, {"reconnectDelay": 1, "ctrlLossTmo": 600, "fastIoFailTmo": 600}),
}


@pytest.fixture
async def kernel_log() -> AsyncIterator[KernelLog]:
    log = KernelLog()
    yield log
    log.close()


async def prove_twice(application: Application, kubernetes: Kubernetes, *claims: Claim) -> None:
    """Intact as it is mounted, and intact for the next pod."""
    await application.stop()
    await application.prove()
    for each in claims:
        await kubernetes.unmount(each)
        await kubernetes.mount(each)
    await application.prove()


@pytest.mark.requirement("CONN-01")
@pytest.mark.requirement("CONN-03")
async def test_the_target_stops(
    kubernetes: Kubernetes, world: World, tmp_path: Path, kernel_log: KernelLog
) -> None:
    claims = [volume(name, access, **more) for name, (access, _, more) in OUTAGES.items()]
    await volumes.bring_up(kubernetes, *claims)
    mounts, controllers = node.mounts(KUBELET), node.controllers()
    for each in claims:
        assert volumes.setting(each, "reconnect_delay") == each.parameters["reconnectDelay"]
        loss = each.parameters["ctrlLossTmo"]
        assert volumes.setting(each, "ctrl_loss_tmo") == ("off" if loss == "-1" else loss)
    assert volumes.setting(claims[0], "kato") == "7"
    assert volumes.setting(claims[2], "fast_io_fail_tmo") == "600"
    application = Application(claims, tmp_path / "application")
    await application.start()

    await world.rds.cut(None)
    began = time.monotonic()
    away = {}
    try:
        for each, (_, seconds, _) in zip(claims, OUTAGES.values(), strict=True):
            await asyncio.sleep(began + seconds - time.monotonic())
            assert list(await volumes.health(kubernetes, each)) == ["Reconnecting"]
            restored = time.monotonic()
            away[each.name] = restored - began
            await world.rds.restore(each.volume.volume_id)
            took = await application.resumed(each, restored)
            tell(f"{each.name}: I/O resumed {took:.2f} s after the target did")
            assert took < int(each.parameters["reconnectDelay"]) + 1 + SLACK
            assert await volumes.health(kubernetes, each) == {}
    finally:
        await world.rds.restore(None)

    tell(application.summary())
    assert node.mounts(KUBELET) == mounts, "a mount did not survive"
    assert node.controllers() == controllers
    for each in claims:
        journal, gone = application.journal(each), away[each.name]
        assert journal.errors() == {}
        assert gone - 0.5 < journal.longest_stall() < gone + 6 + SLACK
        require_delay(kernel_log, each, gone)
    await prove_twice(application, kubernetes, *claims)
    await volumes.take_down(kubernetes, *claims)


def require_delay(log: KernelLog, claim: Claim, outage: float) -> None:
    """The kernel tried as often as the StorageClass says, by the kernel's own clock."""
    delay = int(claim.parameters["reconnectDelay"])
    found = volumes.controller(claim)
    assert found is not None
    tries = [each.when for each in log.lines(f"{found.name}: Reconnecting in {delay} seconds")]
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    tell(f"{claim.name}: {len(tries)} attempts, {delay} s apart: {[round(g, 2) for g in gaps]}")
    assert len(tries) >= outage / (delay + 2), "too few attempts"
    assert all(delay - 0.1 < gap < delay + 1 + SLACK for gap in gaps)


DIRECTIONS: Final[list[Direction]] = ["to the target", "from the target", "both ways"]


async def test_the_network_loses_packets(kubernetes: Kubernetes, tmp_path: Path) -> None:
    # Nobody is told, so only the keep-alive finds out; the class makes it 2 s instead of 5.
    more = {"keepAliveTmo": 2, "reconnectDelay": 1}
    claims = [volume(f"net-{access}", access, **more) for access in ("ext4", "block")]
    await volumes.bring_up(kubernetes, *claims)
    mounts = node.mounts(KUBELET)
    application = Application(claims, tmp_path / "application")
    await application.start()

    for direction in DIRECTIONS:
        with dropped(direction):
            began = time.monotonic()
            for each in claims:
                await until(
                    lambda each=each: volumes.state(each) == "connecting",  # type: ignore[misc]
                    "the keep-alive finds the connection dead",
                )
            noticed = time.monotonic() - began
            await asyncio.sleep(4)
            quiet = time.monotonic()
        healed = time.monotonic()
        took = [await application.resumed(each, healed) for each in claims]
        tell(f"{direction}: noticed after {noticed:.1f} s, resumed after {took}")
        assert noticed < 2 * 2 + SLACK
        # The kernel sends each SYN twice, 1 s apart, and gives the attempt up after 3 s.
        assert max(took) < 2 + 1 + 1 + SLACK
        for each in claims:
            answered = application.journal(each).answered_within(began, quiet)
            assert answered == [], "a write was acknowledged through a dead network"

    tell(application.summary())
    assert all(journal.errors() == {} for journal in application.journals)
    assert node.mounts(KUBELET) == mounts
    await prove_twice(application, kubernetes, *claims)
    await volumes.take_down(kubernetes, *claims)
