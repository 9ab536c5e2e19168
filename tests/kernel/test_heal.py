"""What a real kernel gave up, under real maps: brought back, and nothing of it lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.demo.kubelet import Claim, Kubernetes
from rds_csi.pathlayer.events import Events
from tests.lab import volumes
from tests.lab.application import Application, tell
from tests.lab.processes import Driver
from tests.lab.target import Target
from tests.lab.volumes import volume
from tests.lab.waiting import until
from tests.lab.world import MIB, PREFIX

# Three and a half minutes: the default run has no room for them while the path layer is off by
# default.
pytestmark = [pytest.mark.timeout(900), pytest.mark.exhaustive]

SIZE = 320 * MIB
"""Bytes: mkfs.xfs makes none smaller than 300 MiB."""
GENERATION = 3


@dataclass(frozen=True, slots=True)
class Volume:
    """A claim, and its export with a generation in its name: no RDS is in this."""

    claim: Claim
    target: Target
    file: Path

    def away(self) -> None:
        """The export is gone from one moment to the next."""
        self.target.cut()

    async def given_up(self) -> None:
        """The operator, a finite timeout, or a newer kernel makes an end of the controller."""
        found = volumes.controller(self.claim)
        if found is not None:
            tmo = Path("/sys/class/nvme", found.name, "ctrl_loss_tmo")
            with suppress(OSError):  # it may be gone by itself
                await asyncio.to_thread(tmo.write_text, "1")
        await until(lambda: volumes.state(self.claim) == "gone", "the kernel gives up")


def made(name: str, access: str, number: int, folder: Path) -> Volume:
    claim = volume(name, access)
    identity = f"pvc-{number:028x}"
    nqn = f"{PREFIX.removesuffix('pvc-')}{identity}.{GENERATION}"
    file = folder / f"{name}.img"
    with file.open("wb") as content:
        content.truncate(SIZE)
    port = 4480 + number
    claim.volume = csi.Volume(
        volume_id=identity,
        capacity_bytes=SIZE,
        volume_context={"ctrlLossTmo": "-1", "reconnectDelay": "1"},
    )
    claim.publish_context = {
        "nvmeAddress": "127.0.0.1",
        "nvmePort": str(port),
        "nqn": nqn,
        "size": str(SIZE),
        "generation": str(GENERATION),
        "pathLayer": "true",
    }
    return Volume(claim, Target(nqn, file, port=port), file)


@pytest.fixture
async def mapped(tmp_path: Path, kubernetes: Kubernetes) -> AsyncIterator[list[Volume]]:
    volumes.run("modprobe", "-a", "dm-multipath", "dm-round-robin")
    found = [
        made(f"heal-{access}", access, number, tmp_path)
        for number, access in enumerate(("ext4", "xfs", "block"))
    ]
    for each in found:
        each.target.start()
        await kubernetes.mount(each.claim)
    yield found
    for each in found:
        each.target.stop()


async def test_what_the_kernel_gave_up_comes_back_and_nothing_is_lost(
    mapped: list[Volume], kubernetes: Kubernetes, driver: Driver, tmp_path: Path
) -> None:
    application = Application([each.claim for each in mapped], tmp_path / "application")
    await application.start()

    async def simply() -> None:
        """Nothing more happens."""

    async def with_new_uuids() -> None:
        for each in mapped:
            each.target.change_uuid()

    async def larger() -> None:
        for each in mapped:
            each.target.remake(SIZE + 64 * MIB)

    async def with_a_dead_driver() -> None:
        await driver.kill()

    for meanwhile in (simply, with_new_uuids, larger, with_a_dead_driver):
        await outage(application, mapped, kubernetes, meanwhile, driver)
    await application.stop()
    await application.prove()
    tell(application.summary())
    for each in mapped:
        assert application.journal(each.claim).errors() == {}
        await kubernetes.unmount(each.claim)


async def outage(
    application: Application,
    mapped: list[Volume],
    kubernetes: Kubernetes,
    meanwhile: Callable[[], Awaitable[None]],
    driver: Driver,
) -> None:
    for each in mapped:
        each.away()
    for each in mapped:
        await each.given_up()
    for each in mapped:
        await until_health(kubernetes, each.claim, {"ConnectionGivenUp"})
    await meanwhile()
    before = {each.claim.name: writes(application, each.claim) for each in mapped}
    for each in mapped:
        each.target.restore()
    if not driver.running():
        await driver.start()
    for each in mapped:
        await until(
            lambda each=each: writes(application, each.claim) > before[each.claim.name] + 20,  # type: ignore[misc]
            f"{each.claim.name} writes again after: {meanwhile.__name__}",
        )
        await until_health(kubernetes, each.claim, set())
    tell(f"{meanwhile.__name__}: {application.summary()}")


def writes(application: Application, claim: Claim) -> int:
    return sum(entry.what == "ack" for entry in application.journal(claim).entries())


async def until_health(kubernetes: Kubernetes, claim: Claim, wanted: set[str]) -> None:
    """Health is that of what the healer has seen, which takes it a moment."""
    async with asyncio.timeout(60):
        while set(found := await volumes.health(kubernetes, claim)) != wanted:
            tell(f"{claim.name}: {found}")
            await asyncio.sleep(0.5)


def test_the_kernel_tells_of_an_event_of_device_mapper_once() -> None:
    events = Events()
    assert events.changed() is True
    assert events.changed() is False
    volumes.run("dmsetup", "create", "heal-event", "--table", "0 8 error")
    volumes.run("dmsetup", "remove", "heal-event")
    assert events.changed() is True
    assert events.changed() is False
    events.close()
