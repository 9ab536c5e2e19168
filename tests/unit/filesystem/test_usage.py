"""How full a file system is: what stat says, within a deadline, or an error."""

import os
from pathlib import Path

import pytest

from rds_csi.errors import CommandTimeout, Internal
from rds_csi.filesystem.usage import Usage, usage
from rds_csi.runtime.process import Result, SubprocessRunner
from tests.unit.fakes.runner import FakeRunner


async def test_bytes_and_inodes_are_told(tmp_path: Path) -> None:
    """What others than root may still write is less than what is free."""
    runner = FakeRunner()
    runner.on("stat", result=Result(0, "4096 1000 600 500 100 90\n", ""))
    assert await usage(runner, str(tmp_path), volume="pvc-1") == Usage(
        total=1000 * 4096,
        used=400 * 4096,
        available=500 * 4096,
        inodes=100,
        inodes_used=10,
        inodes_free=90,
    )
    (call,) = runner.calls
    assert (call.args[-1], call.volume) == (str(tmp_path), "pvc-1")


async def test_the_program_says_what_the_kernel_says(tmp_path: Path) -> None:
    found = await usage(SubprocessRunner(), str(tmp_path), volume="pvc-1")
    kernel = os.statvfs(tmp_path)
    assert found.total == kernel.f_blocks * kernel.f_frsize
    assert found.inodes == kernel.f_files
    assert found.used + found.available <= found.total
    assert found.inodes_used + found.inodes_free == found.inodes


@pytest.mark.looptime
async def test_a_file_system_that_does_not_answer_costs_five_seconds() -> None:
    runner = FakeRunner()
    runner.on("stat", takes=1000)
    with pytest.raises(CommandTimeout) as caught:
        await usage(runner, "/mnt", volume="pvc-1")
    assert caught.value.volume == "pvc-1"
    assert runner.calls[0].timeout == 5


@pytest.mark.parametrize("text", ["", "1 2 3 4 5", "1 2 3 4 5 6 7", "4096 ? 600 500 100 90", "a"])
async def test_an_answer_that_makes_no_sense_is_not_believed(text: str) -> None:
    runner = FakeRunner()
    runner.on("stat", result=Result(0, text, ""))
    with pytest.raises(Internal, match="of /mnt") as caught:
        await usage(runner, "/mnt", volume="pvc-1")
    assert caught.value.volume == "pvc-1"
