"""Formatting, with the real blkid and mkfs on sparse files: no root and no device needed."""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rds_csi.errors import FailedPrecondition, Internal, NotBlank, Unavailable
from rds_csi.filesystem.format import Formatter, State
from rds_csi.filesystem.mkfs import mkfs_arguments
from rds_csi.model.block_device import Device
from rds_csi.model.volume import MIB
from rds_csi.runtime import process
from tests.unit.filesystem.disk_files import (
    MARK,
    NQN,
    OTHER,
    SIZE,
    examine,
    run,
    touched,
    write,
)

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("blkid", "mkfs.ext4", "mkfs.xfs")),
    reason="needs blkid, mkfs.ext4 and mkfs.xfs",
)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
async def test_a_blank_device_is_formatted_and_then_ready(
    formatter: Formatter, device: Device, fs_type: str
) -> None:
    found = await examine(formatter, device, fs_type)
    assert found.state is State.BLANK
    await formatter.make(device, fs_type, found, uuid=MARK, volume="pvc-1")
    assert (await examine(formatter, device, fs_type)).state is State.READY
    if fs_type == "ext4":
        assert run("e2fsck", "-fn", str(device.path))
        header = run("dumpe2fs", "-h", str(device.path))
        assert "Reserved block count:     0\n" in header
        assert "Filesystem volume name:   <none>" in header
    else:
        run("xfs_repair", "-n", "-f", str(device.path))
    assert MARK in run("blkid", "-p", str(device.path))


async def test_a_file_system_of_any_size_is_used(formatter: Formatter, device: Device) -> None:
    run("mkfs.ext4", "-q", str(device.path))
    assert (await examine(formatter, device, size=None)).state is State.READY


@pytest.mark.parametrize("change", [{"devno": (259, 3)}, {"nqn": f"{NQN}2"}, {"host_nqn": "nqn.b"}])
@pytest.mark.parametrize("mark", ["", MARK])
async def test_another_device_under_the_name_is_not_touched(
    formatter: Formatter, device: Device, change: dict[str, Any], mark: str
) -> None:
    found = await examine(formatter, device)
    before = touched(device)
    with pytest.raises(Unavailable, match="not its device any more"):
        await examine(formatter, replace(device, **change), mark=mark)
    with pytest.raises(Unavailable, match="not its device any more"):
        await formatter.make(replace(device, **change), "ext4", found, uuid=MARK, volume="pvc-1")
    assert touched(device) == before


async def test_content_that_came_after_the_look_is_not_touched(
    formatter: Formatter, device: Device
) -> None:
    found = await examine(formatter, device)
    write(device, 100 * MIB // 64 * 64, b"x" * (SIZE // 32))
    before = touched(device)
    with pytest.raises(Internal, match="has changed since"):
        await formatter.make(device, "ext4", found, uuid=MARK, volume="pvc-1")
    assert touched(device) == before


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
async def test_a_finished_file_system_is_never_made_again_despite_the_mark(
    formatter: Formatter, device: Device, fs_type: str
) -> None:
    found = await examine(formatter, device, fs_type)
    await formatter.make(device, fs_type, found, uuid=MARK, volume="pvc-1")
    assert (await examine(formatter, device, fs_type, mark=MARK)).state is State.READY
    assert (await examine(formatter, device, fs_type, mark=OTHER)).state is State.READY


async def test_an_unfinished_xfs_is_made_again_only_under_its_own_mark(
    formatter: Formatter, device: Device
) -> None:
    run(*mkfs_arguments("xfs", str(device.path), uuid=MARK, again=False))
    write(device, 126, b"\x01")
    for mark in ("", OTHER):
        with pytest.raises(NotBlank):
            await examine(formatter, device, "xfs", mark=mark)
    found = await examine(formatter, device, "xfs", mark=MARK)
    assert found.state is State.UNFINISHED
    await formatter.make(device, "xfs", found, uuid=OTHER, volume="pvc-1")
    assert (await examine(formatter, device, "xfs")).state is State.READY


async def test_data_without_a_mark_is_refused_with_a_mark_it_is_our_own_half(
    formatter: Formatter, device: Device
) -> None:
    write(device, 8 * MIB, b"\x01" * MIB)
    with pytest.raises(NotBlank, match="no signature explains"):
        await examine(formatter, device)
    assert (await examine(formatter, device, mark=MARK)).state is State.UNFINISHED


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
@pytest.mark.parametrize("seed", range(8))
async def test_mkfs_killed_at_any_moment_converges(
    formatter: Formatter, device: Device, fs_type: str, seed: int
) -> None:
    kill_mkfs(fs_type, device, after=random.Random(seed).uniform(0.002, 0.05))
    found = await examine(formatter, device, fs_type, mark=MARK)
    if found.state is not State.READY:
        await formatter.make(device, fs_type, found, uuid=MARK, volume="pvc-1")
    assert (await examine(formatter, device, fs_type)).state is State.READY
    checker: dict[str, Callable[[], str]] = {
        "ext4": lambda: run("e2fsck", "-fn", str(device.path)),
        "xfs": lambda: run("xfs_repair", "-n", "-f", str(device.path)),
    }
    checker[fs_type]()


def kill_mkfs(fs_type: str, device: Device, *, after: float) -> None:
    command = mkfs_arguments(fs_type, str(device.path), uuid=MARK, again=False)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.parametrize("uuid", ["", OTHER])
async def test_mkfs_that_left_something_else_is_not_believed(
    formatter: Formatter, device: Device, tmp_path: Path, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    made = f'exec /usr/sbin/mkfs.ext4 -q -U {uuid} "{device.path}"' if uuid else "exit 0"
    (programs / "mkfs.ext4").write_text(f"#!/bin/sh\n{made}\n")
    (programs / "mkfs.ext4").chmod(0o755)
    path = f"{programs}:{process.ENVIRONMENT['PATH']}"
    monkeypatch.setattr(process, "ENVIRONMENT", {**process.ENVIRONMENT, "PATH": path})
    found = await examine(formatter, device)
    with pytest.raises(Internal, match="reported success"):
        await formatter.make(device, "ext4", found, uuid=MARK, volume="pvc-1")


async def test_on_a_device_that_takes_no_writes_the_kernel_replays_nothing(
    formatter: Formatter, device: Device, tmp_path: Path
) -> None:
    """Whoever is to mount it: the journal would be passed over in silence."""
    run("mkfs.ext4", "-q", str(device.path))
    run("debugfs", "-w", "-R", "feature needs_recovery", str(device.path))
    protection = tmp_path / "sys/dev/block/0:0/ro"
    protection.write_text("0\n")
    assert (await examine(formatter, device, replay=True)).state is State.READY
    protection.write_text("1\n")
    with pytest.raises(FailedPrecondition, match="use it writable once first"):
        await examine(formatter, device, replay=True)


@pytest.mark.parametrize("replay", [True, False])
async def test_a_journal_that_waits_is_replayed_or_the_file_system_refused(
    formatter: Formatter, device: Device, replay: bool
) -> None:
    run("mkfs.ext4", "-q", str(device.path))
    assert (await examine(formatter, device, replay=False)).state is State.READY
    run("debugfs", "-w", "-R", "feature needs_recovery", str(device.path))
    if replay:
        assert (await examine(formatter, device)).state is State.READY
    else:
        with pytest.raises(FailedPrecondition, match="use it writable once first"):
            await examine(formatter, device, replay=False)


async def test_what_cannot_be_told_of_a_log_is_not_taken_for_clean(
    formatter: Formatter, device: Device
) -> None:
    run("mkfs.xfs", "-q", str(device.path))
    assert (await examine(formatter, device, "xfs", replay=False)).state is State.READY
    start = int(run("xfs_db", "-c", "sb 0", "-c", "convert fsblock "
                    + run("xfs_db", "-c", "sb 0", "-c", "p logstart", str(device.path)).split()[-1]
                    + " byte", str(device.path)).split()[-1].strip("()"))  # fmt: skip
    write(device, start, b"\xff" * MIB)
    with pytest.raises(NotBlank, match="cannot be read"):
        await examine(formatter, device, "xfs", replay=False)
