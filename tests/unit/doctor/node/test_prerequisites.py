"""What the driver needs of a node; each fault of it is in ``test_checks.py``."""

from pathlib import Path

import pytest

from tests.unit.doctor.places import FakeNode, named, one


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
    assert not node.runner.calls


async def test_nothing_is_left_in_the_state_directory(node: FakeNode) -> None:
    await node.examine()
    assert list(node.state.iterdir()) == []
