"""The write that proves what it writes in, run for real on a fake tree."""

from collections.abc import AsyncIterator

import pytest

from rds_csi.errors import CommandFailed
from rds_csi.nvme.readiness import Timings
from rds_csi.nvme.removal import Remover
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.process import SubprocessRunner
from tests.unit.fakes.sysfs import OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import HOST, A, B


@pytest.fixture
async def remover(tree: FakeSysfs) -> AsyncIterator[Remover]:
    runner = SubprocessRunner()
    sysfs = Sysfs(tree.sys)
    yield Remover(runner, sysfs, HOST, in_use=lambda _devno: False, timings=Timings())
    await runner.close()


def written(tree: FakeSysfs, controller: str) -> str:
    return (tree.controller(controller) / "delete_controller").read_text()


async def test_writes_into_the_controller_it_means(remover: Remover, tree: FakeSysfs) -> None:
    tree.connect(A)
    (controller,) = Sysfs(tree.sys).controllers(A)
    assert await remover.write(controller, "delete_controller", volume="")
    assert written(tree, "nvme0") == "1\n"


@pytest.mark.parametrize("now", ["another volume", "another host", "nothing"])
async def test_not_when_its_name_is_anothers_by_now(
    remover: Remover, tree: FakeSysfs, now: str
) -> None:
    tree.connect(A)
    (controller,) = Sysfs(tree.sys).controllers(A)
    tree.disconnect("nvme0")
    if now == "another volume":
        tree.connect(B)
    elif now == "another host":
        tree.connect(A, hostnqn=OTHER_NQN)
    assert not await remover.write(controller, "delete_controller", volume="")
    assert now == "nothing" or written(tree, "nvme0") == ""


async def test_a_write_that_fails_says_why(remover: Remover, tree: FakeSysfs) -> None:
    tree.connect(A)
    (controller,) = Sysfs(tree.sys).controllers(A)
    (tree.controller("nvme0") / "delete_controller").unlink()
    (tree.controller("nvme0") / "delete_controller").mkdir()
    with pytest.raises(CommandFailed, match=r"delete_controller of nvme0.*Is a directory"):
        await remover.write(controller, "delete_controller", volume="pvc-1")
