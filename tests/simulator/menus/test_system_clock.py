"""The clock of the simulator."""

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds") as simulator:
        yield simulator


@pytest.mark.parametrize(("offset", "number"), [(0, 0), (7200, 7200), (-3600, 2**32 - 3600)])
async def test_the_clock_shows_local_time_and_its_offset(
    rds: Simulator, offset: int, number: int
) -> None:
    rds.quirks.set("clock_error", 500)
    rds.quirks.set("gmt_offset", offset)
    line = ":put [:serialize to=json value=[/system/clock/print as-value]]"
    clock = json.loads(await rds.run(line))
    assert clock["gmt-offset"] == number
    local = datetime.fromisoformat(f"{clock['date']}T{clock['time']}").replace(tzinfo=UTC)
    assert abs(local.timestamp() - offset - 500 - time.time()) < 30
    hours = {0: "+00:00", 7200: "+02:00", -3600: "-01:00"}[offset]
    assert f"gmt-offset: {hours}" in await rds.run("/system/clock/print")


async def test_dates_were_american_before_7_10(tmp_path: Path) -> None:
    rds = Simulator(tmp_path / "old", version="7.9")
    assert (await rds.run(":put [/system/clock/get date]"))[3] == "/"
