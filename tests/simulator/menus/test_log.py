"""The log of the simulator: what a boot leaves in it."""

import json
from pathlib import Path

from rds_csi.simulator import Simulator

LINE = ':put [:serialize to=json value=[/log/print as-value where message~"rebooted"]]'


async def test_a_boot_in_order_is_in_the_log(tmp_path: Path) -> None:
    async with Simulator(tmp_path / "rds") as rds:
        assert json.loads(await rds.run(LINE)) == []
        await rds.reboot()
        (line,) = json.loads(await rds.run(LINE))
        assert line["message"] == "router rebooted"
        assert line["topics"] == "system,info"
        assert "router rebooted" in await rds.run("/log/print")
        assert await rds.run(":log info hello") == ""
