"""What the tests of this room share."""

import os
from pathlib import Path

import pytest

from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.format import Formatter
from rds_csi.model.block_device import Device
from rds_csi.runtime.process import SubprocessRunner
from tests.unit.fakes.sysfs import namespace_of
from tests.unit.filesystem.disk_files import (
    FILE,
    HOST_NQN,
    NQN,
    SIZE,
)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A blank one."""
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, SIZE)
    return Device(path, FILE, NQN, HOST_NQN)


@pytest.fixture
def devices(tmp_path: Path) -> BlockDevices:
    """This machine's, with a sysfs that says whose the file is."""
    namespace_of(tmp_path / "sys", FILE, NQN, HOST_NQN)
    return BlockDevices(SubprocessRunner(), root=tmp_path / "sys")


@pytest.fixture
def formatter(devices: BlockDevices) -> Formatter:
    """The one that is tried."""
    return Formatter(devices)
