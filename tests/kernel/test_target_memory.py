"""A target that loses its power forgets what it acknowledged, and the node says so.

Nobody else does: the writer's ``fsync`` succeeds. A target that only could not be reached is told
apart from it, by counters that the kernel's own target keeps.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from tests.lab.application import tell
from tests.lab.remembering import SIZE, Used, read, using, write
from tests.lab.sqlite_writer import ROWS, Writer, rows

# Half a minute each.
pytestmark = pytest.mark.exhaustive


@pytest.fixture
async def used(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Used]:
    monkeypatch.setattr("rds_csi.nvme.returns.INTERVAL", 1.0)
    # No link is cut here while a target is being asked: what the pause before is for.
    monkeypatch.setattr("rds_csi.driver.connections.SETTLED", 1.0)
    async with using(request.param, tmp_path_factory.mktemp("power")) as made:
        yield made


@pytest.mark.parametrize("used", ["ext4", "xfs", "block"], indirect=True)
async def test_a_loss_of_power_is_told_from_a_broken_link(
    used: Used, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable, lost = os.urandom(SIZE), os.urandom(SIZE)
    descriptor = write(used.file, durable)
    os.fsync(descriptor)
    os.close(descriptor)

    descriptor = write(used.file, lost)
    await used.looked_at()
    assert await used.outage(power=False) == "kept"
    await used.until_health()
    assert await asyncio.to_thread(read, used.file) == lost

    # The kernel alone tells of the return: nobody looks any more.
    monkeypatch.setattr("rds_csi.nvme.returns.INTERVAL", 3600.0)
    await used.returns.look()
    assert await used.outage(power=True) == "booted"
    said = await used.until_health("TargetRestarted")
    os.fsync(descriptor)  # it succeeds: that is the danger
    assert read(used.file) == durable
    os.close(descriptor)
    tell(str(said))
    assert [
        used.metric("target_returns_total", verdict="kept"),
        used.metric("target_returns_total", verdict="booted"),
        used.metric("volumes_target_restarted"),
    ] == [1, 1, 1]
    assert "what was written before and not flushed is lost" in said["TargetRestarted"]

    # What the advice leads to: mounted anew it is what the target has, and nothing is doubted.
    await used.restage()
    assert read(used.file) == durable
    await used.until_health()
    assert used.metric("volumes_target_restarted") == 0


@pytest.mark.parametrize("used", ["ext4"], indirect=True)
async def test_what_a_database_has_after_a_loss_of_power(used: Used) -> None:
    """What it commits after the outage lies in its log behind what was lost."""
    path = used.staging / "db"
    with Writer(path) as writer:
        assert await asyncio.to_thread(writer.commit, "durable", 0) == "ok"
        assert await asyncio.to_thread(writer.commit, "hasty", ROWS) == "ok"
        await used.looked_at()
        assert await used.outage(power=True) == "booted"
        assert await asyncio.to_thread(writer.commit, "durable", 2 * ROWS) == "ok"
    await used.restage()
    found = await asyncio.to_thread(rows, path)
    # What was flushed before it. Fifty commits of after it were flushed, said so, and are gone.
    assert found == list(range(ROWS))
