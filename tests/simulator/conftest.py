"""An RDS as most tests of the simulator want it: one pool of 16 GiB, and a folder in it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds", pools={"raid10": 16 * 1024**3}) as simulator:
        simulator.make_directory("raid10/csi")
        yield simulator
