"""``/ip/firewall/address-list``: an address is in a list once, for as long as it said."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator


@pytest.fixture
async def rds(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator(tmp_path / "rds", pools={"raid10": 2**34}) as simulator:
        yield simulator


ENTRY = "/ip/firewall/address-list/add list=x address=127.0.0.1"


async def test_addresses_are_in_a_list_once_and_vanish_with_their_timeout(rds: Simulator) -> None:
    assert await rds.run(f":put [{ENTRY} timeout=1s comment=a]") == "*2\r\n"
    assert "already have such entry" in await rds.run(ENTRY)
    assert await rds.run(ENTRY.replace("list=x", "list=y")) == ""
    assert await rds.run(ENTRY.replace("127.0.0.1", "127.0.0.2")) == ""
    count = ":put [:len [/ip/firewall/address-list/find where list=x]]"
    assert await rds.run(count) == "2\r\n"
    shown = await rds.run('/ip/firewall/address-list/print detail where comment="a"')
    assert "timeout=1s" in shown
    assert "dynamic=yes" in shown
    await rds.run(":delay 1100ms")
    assert await rds.run(count) == "1\r\n"
    assert "no such item" in await rds.run("/ip/firewall/address-list/remove *2")
    assert await rds.run(f":put [{ENTRY} timeout=1m]") == "*5\r\n", "ids are not used again"
    await rds.reboot()
    assert await rds.run(count) == "1\r\n", "what has no timeout stays"
    assert "invalid value" in await rds.run(f"{ENTRY} timeout=soon")
