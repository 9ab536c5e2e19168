"""What the simulator remembers: a kill leaves the old state or the new."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator
from rds_csi.simulator.device.store import Store

GIB = 1024**3


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds", pools={"raid10": 16 * GIB}) as simulator:
        simulator.make_directory("raid10/csi")
        yield simulator


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    root = tmp_path / "rds"
    async with Simulator(root, pools={"raid10": 16 * GIB}) as rds:
        await rds.run(
            "/disk/add type=file slot=a file-path=raid10/a.img file-size=1G nvme-tcp-export=yes "
            'comment="\\C3\\A9 \\"x\\""'
        )
        identifiers = {export.seed for export in rds.device.exporter.exports.values()}
    assert rds.exported == set()
    async with Simulator(root, pools={"raid10": 32 * GIB}) as rds:
        assert rds.exported == {"a"}
        assert await rds.run(":put [/disk/get a comment]") == 'é "x"\r\n'
        assert await rds.run(":put [/disk/find slot=a]") == "*2\r\n"
        assert rds.free("raid10") == 31 * GIB
        assert {export.seed for export in rds.device.exporter.exports.values()} == identifiers


async def test_state_is_written_before_the_reply(rds: Simulator) -> None:
    await rds.run("/disk/add type=file slot=a file-path=raid10/a.img file-size=1M")
    # What a kill -9 right now would leave to the next run:
    assert "a" in Store(rds.root).by_slot
    await rds.run("/disk/remove a")
    assert "a" not in Store(rds.root).by_slot


async def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="another version"):
        Simulator(tmp_path)
