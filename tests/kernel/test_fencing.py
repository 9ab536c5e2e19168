"""A former holder comes back: its kernel and its driver try for as long as they like, in vain.

Two nodes on one kernel, with two host identities. The first one's volumes are taken from it by
force while it is cut off from one of them and connected to the other, and a program of its has
something to write to each. The export has another name by then, so to the kernel the second one's
are other volumes.
"""

import re
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from tests.kernel.test_handover import file_of
from tests.kernel.test_resilience_target import OBEYS
from tests.lab import mapped, node, volumes
from tests.lab.application import Application, tell
from tests.lab.kernel_log import KernelLog
from tests.lab.late_writer import EARLY, LATE, LateWriter, holds
from tests.lab.processes import Driver
from tests.lab.volumes import volume
from tests.lab.waiting import until
from tests.lab.world import KUBELET, World

pytestmark = [pytest.mark.timeout(600), pytest.mark.kernels]

KINDS: Final = (("fenced-cut", "ext4"), ("fenced-live", "block"))
MAPPED: Final = (pytest.mark.path_layer, pytest.mark.exhaustive)


@pytest.mark.parametrize(
    ("serves", "reboots"),
    [
        pytest.param(False, False, id="dead", marks=pytest.mark.exhaustive),
        pytest.param(True, True, id="mapped-reboot", marks=MAPPED),
        pytest.param(False, False, id="mapped-dead", marks=MAPPED),
        pytest.param(True, True, id="reboot", marks=pytest.mark.exhaustive),
    ],
)
async def test_a_former_holder_gets_no_block_through(
    serves: bool, reboots: bool, world: World, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """``serves``: its driver lives all the while; else it is dead until the volume is another's."""
    layered = request.node.get_closest_marker("path_layer") is not None
    mapped.load_modules()
    # One kernel refuses a second namespace of the same UUID while it has the first.
    world.rds.quirks.stable_identifiers = False
    controller = world.driver("controller", path_layer=layered)
    first, second = world.driver("node"), world.driver("node", node_id="node-2")
    for process in (controller, first, second):
        await process.start()
    async with (
        Kubernetes(controller.socket, first.socket) as a,
        Kubernetes(controller.socket, second.socket) as b,
    ):
        holder = FormerHolder(world, a, first, layered=layered)
        await holder.work()
        await holder.lose(serves=serves)
        if reboots and not layered:  # nothing else brings a volume with another UUID back
            await reboot(world)
            await holder.is_refused(2)
        there = [replace(each, kubelet_dir=KUBELET / "node-2") for each in holder.claims]
        for claim in there:
            await b.attach(claim)
            assert claim.publish_context["nqn"].endswith(".2")
            await b.mount(claim)
        application = Application(there, tmp_path / "application")
        await application.start()

        await holder.is_refused(3)
        if layered:
            await holder.is_not_healed()
        if reboots and layered:
            await reboot(world)
            back = time.monotonic()
            for claim in there:
                tell(f"{await application.resumed(claim, back, seconds=120):.1f} s")
            await holder.is_not_healed()
        await holder.says_why_and_clears_up()

        assert [journal.errors() for journal in application.journals] == [{}, {}]
        await application.stop()
        await application.prove()
        tell(application.summary())
        assert (there[0].target / "late").read_bytes().startswith(EARLY)
        await b.unmount(there[0])
        volumes.run("e2fsck", "-fn", file_of(world, there[0]))
        assert not holder.got_through()
        await b.mount(there[0])
        await volumes.take_down(b, *there)


async def reboot(world: World) -> None:
    await world.rds.reboot(down=2)
    await world.rds.exports_up()


class FormerHolder:
    """The first node: its volumes, its driver, and its kernel's connections to them."""

    def __init__(
        self, world: World, kubernetes: Kubernetes, driver: Driver, *, layered: bool
    ) -> None:
        self.claims = [volume(name, kind, reconnectDelay=1) for name, kind in KINDS]
        self._world = world
        self._kubernetes = kubernetes
        self._driver = driver
        self._layered = layered
        self._connections: list[str] = []
        self._late: list[LateWriter] = []
        self._log = KernelLog()

    async def work(self) -> None:
        await volumes.bring_up(self._kubernetes, *self.claims)
        for claim in self.claims:
            connection = volumes.controller(claim)
            assert connection is not None
            self._connections.append(connection.name)
            self._late.append(LateWriter(claim))
            assert holds(file_of(self._world, claim), EARLY)

    async def lose(self, *, serves: bool) -> None:
        """Cut off from the one, connected to the other, taken from it; then its programs write."""
        cut, live = self.claims
        await self._world.rds.cut(cut.volume.volume_id)
        await until(lambda: volumes.state(cut) in ("connecting", "gone"), "it is cut off")
        assert volumes.state(live) == "live"
        if not serves:
            await self._driver.kill()
        for claim in self.claims:
            await self._kubernetes.controller.controller_unpublish_volume(
                csi.ControllerUnpublishVolumeRequest(volume_id=claim.volume.volume_id)
            )
        await self._world.rds.restore(None)
        for late in self._late:
            late.write()

    async def is_refused(self, times: int) -> None:
        """Its kernel has been turned away so often from now on, or has given up."""
        for claim, connection in zip(self.claims, self._connections, strict=True):
            if OBEYS:
                await until(partial(_is, claim, "gone"), f"{claim.name} is given up")
                continue
            words = f"{connection}: Failed reconnect attempt"
            enough = len(self._log.lines(words)) + times
            await until(partial(self._said, words, enough), f"{claim.name} is turned away")
            assert volumes.state(claim) == "connecting"
        assert not self.got_through()

    def _said(self, words: str, times: int) -> bool:
        return len(self._log.lines(words)) >= times

    async def is_not_healed(self) -> None:
        """Its kernel gives up, and its driver is turned away three times more."""
        for claim in self.claims:
            await mapped.given_up(claim)
        if not self._driver.running():
            await self._driver.start()
        for claim in self.claims:
            enough = await self._tries(claim) + 3
            while await self._tries(claim) < enough:
                assert volumes.state(claim) != "live"
        assert not self.got_through()

    async def _tries(self, claim: Claim) -> int:
        """How often the healer tried, once it was told that there is no such export."""
        said = await mapped.until_said(
            self._kubernetes, claim, "ConnectionGivenUp", "does not export"
        )
        found = re.search(r"tried (\d+) times", said)
        assert found is not None
        return int(found[1])

    async def says_why_and_clears_up(self) -> None:
        """The driver says what there is; the operator ends the waiting, and it undoes the rest."""
        if not self._driver.running():
            await self._driver.start()
        for claim, late in zip(self.claims, self._late, strict=True):
            if not self._layered:  # what else it says was seen before
                said = await volumes.health(self._kubernetes, claim)
                assert ("NotConnected" if OBEYS else "Reconnecting") in said
            if self._layered or not OBEYS:
                assert not late.ended
            self._end_waiting(claim)
            assert await late.end() != 0
            await self._kubernetes.unmount(claim)
            assert volumes.state(claim) == "gone"
        self._log.close()

    def _end_waiting(self, claim: Claim) -> None:
        """What the commands do that are tested elsewhere, and take half a minute here."""
        for uuid in node.maps().values():
            if uuid.endswith(f"-{claim.volume.volume_id}.1"):
                node.dmsetup("message", uuid, "0", "fail_if_no_path")
        if volumes.state(claim) == "connecting":
            volumes.run("nvme", "disconnect", "-n", claim.publish_context["nqn"])

    def got_through(self) -> list[str]:
        """The volumes whose files hold anything of what was written too late."""
        return [each.name for each in self.claims if holds(file_of(self._world, each), LATE)]


def _is(claim: Claim, state: str) -> bool:
    return volumes.state(claim) == state
