"""The simulator as one object: its version, its folder."""

from pathlib import Path

import pytest

from rds_csi.simulator import Simulator
from rds_csi.simulator.simulator import parse_version


@pytest.mark.parametrize("version", ["7.15", "7.16", "7.20", "7.21", "7.22", "7.23", "7.24"])
async def test_every_version_says_what_it_is(tmp_path: Path, version: str) -> None:
    rds = Simulator(tmp_path, version=version)
    output = await rds.run(":put [/system/resource/get version]")
    assert output == f"{version} (stable)\r\n"


async def test_the_full_version_text_is_kept(tmp_path: Path) -> None:
    rds = Simulator(tmp_path, version="7.24.4 (stable)")
    assert await rds.run(":put [/system/resource/get version]") == "7.24.4 (stable)\r\n"


async def test_an_upgrade_takes_effect_at_once(tmp_path: Path) -> None:
    rds = Simulator(tmp_path, version="7.20")
    line = "/disk/set [find slot=none] nvme-tcp-server-nqn=x"
    assert "expected end" in await rds.run(line)
    rds.set_version("7.24")
    assert await rds.run(line) == ""


@pytest.mark.parametrize("text", ["", "7", "seven.one"])
def test_bad_versions(text: str) -> None:
    with pytest.raises(ValueError):
        parse_version(text)


async def test_a_temporary_root_is_gone_at_the_end() -> None:
    async with Simulator() as rds:
        root = rds.root
        assert root.is_dir()
    assert not root.exists()
