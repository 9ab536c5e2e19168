"""The program that proves is asked with this host's name and the controllers meant."""

import subprocess

import pytest

from rds_csi.nvme.child import PROVEN, Command, Prover
from rds_csi.nvme.proven import HELD
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import Result
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import FakeSysfs
from tests.unit.nvme.kernel import HOST, A


@pytest.mark.parametrize("command", ["delete", "rescan", "give-up"])
async def test_an_act_names_whose_controllers_are_meant(tree: FakeSysfs, command: Command) -> None:
    tree.connect(A)
    tree.connect(A)
    sysfs = Sysfs(tree.sys, dev=tree.dev)
    runner = FakeRunner()
    runner.on(*PROVEN, result=Result(HELD, "", "nvme0 is held"))
    prover = Prover(runner, sysfs, HOST)
    result = await prover.act(command, sysfs.controllers(A), timeout=3, volume="pvc-1")
    assert result == Result(HELD, "", "nvme0 is held"), "a status is an answer, and no error"
    (call,) = runner.calls
    assert call.args == (
        *PROVEN,
        *(command, str(tree.sys), str(tree.dev), A, HOST.nqn),
        *(str(tree.sys / "class/nvme" / name) for name in ("nvme0", "nvme1")),
    )
    assert (call.timeout, call.volume) == (3, "pvc-1")


async def test_a_read_names_the_device_and_its_number(tree: FakeSysfs) -> None:
    tree.connect(A)
    sysfs = Sysfs(tree.sys, dev=tree.dev)
    runner = FakeRunner()
    runner.on(*PROVEN)
    await Prover(runner, sysfs, HOST).read(
        "nvme0n1", (259, 1), sysfs.controllers(A), timeout=3, volume="pvc-1"
    )
    (call,) = runner.calls
    assert call.args == (
        *PROVEN,
        *("read", str(tree.sys), str(tree.dev), A, HOST.nqn, "nvme0n1", "259:1"),
        str(tree.sys / "class/nvme/nvme0"),
    )


def test_the_program_needs_nothing_of_the_package() -> None:
    """It starts without site-packages: quickly, and nothing installed is in its way."""
    done = subprocess.run([*PROVEN], check=False, capture_output=True, text=True, cwd="/")
    assert "ModuleNotFoundError" not in done.stderr
    assert PROVEN[1:4] == ("-I", "-S", "-B")
