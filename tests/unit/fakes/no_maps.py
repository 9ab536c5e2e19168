"""A node's maps where only sysfs is asked: whoever runs a program fails the test."""

from rds_csi.filesystem.devices import BlockDevices
from rds_csi.pathlayer.maps import Maps
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import FakeSysfs

OWNER = "rds.csi.srvlab.io/test"


def maps_of(tree: FakeSysfs) -> Maps:
    """The maps that the tree shows."""
    runner = FakeRunner()
    return Maps(runner, BlockDevices(runner, root=tree.sys), OWNER, root=tree.sys, dev=tree.dev)
