"""What the tests of this room share."""

from pathlib import Path

import pytest

from tests.unit.fakes.sysfs import FakeSysfs
from tests.unit.nvme.kernel import Kernel


@pytest.fixture(params=[True, False], ids=["multipath", "plain"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> FakeSysfs:
    """A fake ``/sys`` in each of the kernel's two layouts."""
    return FakeSysfs(tmp_path / "fake", multipath=request.param)


@pytest.fixture
def kernel(tree: FakeSysfs) -> Kernel:
    """A kernel played on it."""
    return Kernel(tree)
