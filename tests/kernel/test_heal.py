"""What a real kernel gave up, under real maps: brought back, and nothing of it lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rds_csi.demo.kubelet import Kubernetes
from rds_csi.pathlayer.events import Events
from tests.lab import volumes
from tests.lab.application import Application, tell
from tests.lab.mapped import SIZE, Volume, given_up, load_modules, made, until_health, writes
from tests.lab.processes import Driver
from tests.lab.waiting import until
from tests.lab.world import MIB

# Three and a half minutes: the default run has no room for them while the path layer is off by
# default.
pytestmark = [pytest.mark.timeout(900), pytest.mark.exhaustive]


@pytest.fixture
async def mapped(tmp_path: Path, kubernetes: Kubernetes) -> AsyncIterator[list[Volume]]:
    load_modules()
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


async def test_the_kernel_gives_up_while_the_driver_is_dead(
    mapped: list[Volume], kubernetes: Kubernetes, driver: Driver, tmp_path: Path
) -> None:
    application = Application([each.claim for each in mapped], tmp_path / "application")
    await application.start()
    for target_first in (True, False):
        await driver.kill()
        for each in mapped:
            each.away()
        for each in mapped:
            await given_up(each.claim)
        async with all_back(application, mapped, kubernetes, f"{target_first=}"):
            if not target_first:
                await driver.start()
                for each in mapped:
                    await until_health(kubernetes, each.claim, {"ConnectionGivenUp"})
            for each in mapped:
                each.target.restore()
            if target_first:
                await driver.start()
    await application.stop()
    await application.prove()
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
        await given_up(each.claim)
    for each in mapped:
        await until_health(kubernetes, each.claim, {"ConnectionGivenUp"})
    await meanwhile()
    async with all_back(application, mapped, kubernetes, meanwhile.__name__):
        for each in mapped:
            each.target.restore()
        if not driver.running():
            await driver.start()


@asynccontextmanager
async def all_back(
    application: Application, mapped: list[Volume], kubernetes: Kubernetes, after: str
) -> AsyncIterator[None]:
    """What is done in the block brings every volume back."""
    before = {each.claim.name: writes(application, each.claim) for each in mapped}
    yield
    for each in mapped:
        await until(
            lambda each=each: writes(application, each.claim) > before[each.claim.name] + 20,  # type: ignore[misc]
            f"{each.claim.name} writes again after: {after}",
        )
        await until_health(kubernetes, each.claim, set())
    tell(f"{after}: {application.summary()}")


def test_the_kernel_tells_of_an_event_of_device_mapper_once() -> None:
    events = Events()
    assert events.changed() is True
    assert events.changed() is False
    volumes.run("dmsetup", "create", "heal-event", "--table", "0 8 error")
    volumes.run("dmsetup", "remove", "heal-event")
    assert events.changed() is True
    assert events.changed() is False
    events.close()
