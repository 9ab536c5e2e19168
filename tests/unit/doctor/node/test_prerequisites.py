"""What the driver needs of a node; each fault of it is in ``test_checks.py``."""

from pathlib import Path

import pytest

from rds_csi.doctor.check import Status
from rds_csi.runtime.process import Result
from tests.unit.doctor.places import NVME_2_13, FakeNode, named, one


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path)


async def test_missing_programs_are_named_with_their_packages(node: FakeNode) -> None:
    missing = ("nvme", "mkfs.xfs", "xfs_growfs")
    node.change(which=lambda name: None if name in missing else name)
    checks = await node.examine()
    check = one(checks, "programs")
    assert check.found == "missing: mkfs.xfs, nvme, xfs_growfs"
    assert "nvme-cli, xfsprogs" in check.advice
    assert not named(checks, "nvme-cli")
    assert not node.runner.asked("nvme")


@pytest.mark.parametrize(
    "said", [Result(0, "linear v1.4.0\n", ""), Result(1, "", "/dev/mapper/control: no such file")]
)
async def test_a_node_that_cannot_make_maps_is_told_what_it_lacks(
    node: FakeNode, said: Result
) -> None:
    assert one(await node.examine(), "path layer").status is Status.OK
    node.runner.forget()
    node.runner.on("nvme", "version", result=NVME_2_13)
    node.runner.on("dmsetup", "targets", result=said)
    check = one(await node.examine(), "path layer")
    assert check.status is Status.SKIPPED, "it is needed only where the path layer is on"
    assert "modprobe -a dm-multipath" in check.advice
    node.change(which=lambda name: None if name == "dmsetup" else f"/usr/sbin/{name}")
    check = one(await node.examine(), "path layer")
    assert (check.status, check.found) == (Status.SKIPPED, "no dmsetup")


async def test_nothing_is_left_in_the_state_directory(node: FakeNode) -> None:
    await node.examine()
    assert list(node.state.iterdir()) == []
