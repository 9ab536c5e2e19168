"""Formatting, with the real blkid and mkfs on sparse files: no root and no device needed."""

import binascii
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rds_csi.errors import CommandTimeout, FailedPrecondition, Internal, NotBlank, Unavailable
from rds_csi.filesystem import devices as devices_module
from rds_csi.filesystem import probe
from rds_csi.filesystem.devices import BlockDevices, Device
from rds_csi.filesystem.format import Examination, Formatter, State, mkfs_arguments
from rds_csi.model.volume import MIB
from rds_csi.runtime import process
from rds_csi.runtime.process import SubprocessRunner
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import namespace_of

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("blkid", "mkfs.ext4", "mkfs.xfs")),
    reason="needs blkid, mkfs.ext4 and mkfs.xfs",
)

SIZE = 320 * MIB
MARK = "11111111-2222-4333-8444-555555555555"
NQN = "nqn.2000-02.com.mikrotik:pvc-1"
HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-5333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
PROBE = devices_module._PROBE
FILE = (0, 0)
"""A regular file has no device number."""


@pytest.fixture
def device(tmp_path: Path) -> Device:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, SIZE)
    return Device(path, FILE, NQN, HOST_NQN)


@pytest.fixture
def devices(tmp_path: Path) -> BlockDevices:
    namespace_of(tmp_path / "sys", FILE, NQN, HOST_NQN)
    return BlockDevices(SubprocessRunner(), root=tmp_path / "sys")


@pytest.fixture
def formatter(devices: BlockDevices) -> Formatter:
    return Formatter(devices)


async def examine(
    formatter: Formatter,
    device: Device,
    fs_type: str = "ext4",
    *,
    size: int | None = SIZE,
    content_expected: bool = False,
    mark: str = "",
    replay: bool = True,
) -> Examination:
    return await formatter.examine(
        device,
        fs_type,
        size=size,
        content_expected=content_expected,
        mark=mark,
        replay=replay,
        volume="pvc-1",
    )


def write(device: Device, offset: int, content: bytes) -> None:
    with device.path.open("r+b") as disk:
        disk.seek(offset)
        disk.write(content)


def touched(device: Device) -> tuple[int, int]:
    """Changes with every write to the file."""
    status = device.path.stat()
    return status.st_mtime_ns, status.st_blocks


def run(*args: str) -> str:
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout


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


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (("mkfs.xfs", "-q"), "xfs"),
        (("mkfs.ext3", "-q"), "ext3"),
        (("mkswap",), "swap"),
        (("mkfs.btrfs", "-q"), "btrfs"),
        (("gpt",), "gpt"),
        (("dos",), "dos"),
        (("luks",), "crypto_LUKS"),
        (("lvm",), "LVM2_member"),
        (("mdraid",), "linux_raid_member"),
    ],
)
async def test_any_other_signature_is_refused_and_named(
    formatter: Formatter, device: Device, make: tuple[str, ...], found: str
) -> None:
    if make[0] in ("gpt", "dos"):
        write(device, 0, partition_table(make[0]))
    elif make[0] == "luks":
        write(device, 0, b"LUKS\xba\xbe\x00\x01" + bytes(584))
    elif make[0] == "lvm":
        write(device, 512, lvm_label())
    elif make[0] == "mdraid":
        write(device, 4096, mdraid_superblock())
    elif shutil.which(make[0]) is None:
        pytest.skip(f"needs {make[0]}")
    else:
        run(*make, str(device.path))
    before = touched(device)
    with pytest.raises(NotBlank, match=found):
        await examine(formatter, device)
    with pytest.raises(NotBlank):
        await examine(formatter, device, mark=MARK)
    assert touched(device) == before


def mdraid_superblock() -> bytes:
    """Version 1.2, of an array without members, with the checksum that newer programs ask for."""
    words = [0] * 64
    words[0:2] = 0xA92B4EFC, 1
    words[36] = 8  # where it is, in sectors
    words[54] = sum(words)
    return struct.pack("<64I", *words)


def partition_table(label: str) -> bytes:
    """A master boot record with one partition; for a GPT, the one that protects it and the GPT."""
    kind = b"\xee" if label == "gpt" else b"\x83"
    sectors = SIZE // 512
    entry = b"\0\0\2\0" + kind + b"\xff\xff\xff" + struct.pack("<II", 1, sectors - 1)
    record = bytes(446) + entry + bytes(48) + b"\x55\xaa"
    if label == "dos":
        return record
    entries = bytes(16384)

    def header(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, 1, sectors - 1, 34,
            sectors - 34, bytes(range(16)), 2, 128, 128, binascii.crc32(entries),
        )  # fmt: skip

    return record + header(binascii.crc32(header(0))).ljust(512, b"\0") + entries


def lvm_label() -> bytes:
    content = b"LVM2 001" + b"0123456789abcdef0123456789abcdef" + bytes(512 - 24 - 40)
    body = (32).to_bytes(4, "little") + content
    crc = 0xF597A6CF
    table = [
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158,
        0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4,
        0xA00AE278, 0xBDBDF21C,
    ]  # fmt: skip
    for byte in body:
        crc ^= byte
        crc = (crc >> 4) ^ table[crc & 15]
        crc = (crc >> 4) ^ table[crc & 15]
    return b"LABELONE" + (1).to_bytes(8, "little") + crc.to_bytes(4, "little") + body


@pytest.mark.parametrize("offset", [0, 4 * MIB - 1, SIZE // 64 * 7 + 100, SIZE - 1])
async def test_a_single_byte_in_a_sample_is_enough(
    formatter: Formatter, device: Device, offset: int
) -> None:
    write(device, offset, b"\x01")
    with pytest.raises(NotBlank, match=f"at byte {offset}"):
        await examine(formatter, device)


@pytest.mark.parametrize("size", [SIZE + 512, SIZE + MIB, None])
async def test_a_smaller_size_or_an_unknown_one_is_refused(
    formatter: Formatter, device: Device, size: int | None
) -> None:
    with pytest.raises(NotBlank, match="size it should have" if size is None else str(SIZE)):
        await examine(formatter, device, size=size)


async def test_a_file_system_of_any_size_is_used(formatter: Formatter, device: Device) -> None:
    run("mkfs.ext4", "-q", str(device.path))
    assert (await examine(formatter, device, size=None)).state is State.READY


async def test_a_volume_made_from_a_source_is_never_formatted(
    formatter: Formatter, device: Device
) -> None:
    with pytest.raises(NotBlank, match="made from a source"):
        await examine(formatter, device, content_expected=True)


async def test_xfs_on_too_small_a_device_says_so(formatter: Formatter, device: Device) -> None:
    os.truncate(device.path, 64 * MIB)
    with pytest.raises(NotBlank, match="at least 300 MiB"):
        await examine(formatter, device, "xfs", size=64 * MIB)


@pytest.mark.parametrize("mark", ["", MARK])
async def test_a_device_that_cannot_be_read_is_not_blank(
    device: Device, devices: BlockDevices, mark: str
) -> None:
    """Wherever the read fails: blkid is not asked, and nothing is concluded."""
    runner = FakeRunner()
    runner.fail(*PROBE, status=probe.ERROR, stderr="[Errno 5] Input/output error")
    with pytest.raises(NotBlank, match=r"cannot be read.*Input/output error"):
        await examine(Formatter(BlockDevices(runner, root=devices._root)), device, mark=mark)


async def test_a_device_that_does_not_answer_is_not_blank(
    device: Device, devices: BlockDevices
) -> None:
    runner = FakeRunner()
    runner.on(*PROBE, error=CommandTimeout("too slow"))
    with pytest.raises(CommandTimeout):
        await examine(Formatter(BlockDevices(runner, root=devices._root)), device, mark=MARK)


async def test_a_missing_device_is_not_blank(formatter: Formatter, device: Device) -> None:
    with pytest.raises(Unavailable, match="not its device any more"):
        await examine(formatter, replace(device, path=device.path.with_name("none")), mark=MARK)


@pytest.fixture
def blkid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put another program in the place of ``blkid``."""
    programs = tmp_path / "programs"
    programs.mkdir()
    path = f"{programs}:{process.ENVIRONMENT['PATH']}"
    monkeypatch.setattr(process, "ENVIRONMENT", {**process.ENVIRONMENT, "PATH": path})

    def install(script: str) -> None:
        (programs / "blkid").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "blkid").chmod(0o755)

    return install


@pytest.mark.parametrize(
    "answer",
    [
        "exit 1",
        "echo something; exit 2",
        "echo usage >&2; exit 4",
        "echo ambivalent result >&2; exit 8",
        "exit 0",
        "echo DEVNAME=/dev/x",
        "echo TYPE=ext4; exit 8",
        "kill -9 $$",
    ],
)
@pytest.mark.parametrize("mark", ["", MARK])
async def test_any_other_answer_of_blkid_is_refused(
    formatter: Formatter, device: Device, blkid: Callable[[str], None], answer: str, mark: str
) -> None:
    blkid(answer)
    with pytest.raises(NotBlank, match="cannot tell"):
        await examine(formatter, device, mark=mark)


def damaged(device: Device, fs_type: str, content: bytes, *, at: int = 0) -> None:
    run(f"mkfs.{fs_type}", "-q", str(device.path))
    write(device, at, content)


SIGNATURES: dict[str, Callable[[Device], object]] = {
    "ext4": lambda device: run("mkfs.ext4", "-q", str(device.path)),
    "ext4 of small blocks": lambda device: run("mkfs.ext4", "-q", "-b", "1024", str(device.path)),
    "xfs": lambda device: run("mkfs.xfs", "-q", str(device.path)),
    "gpt": lambda device: write(device, 0, partition_table("gpt")),
    "dos": lambda device: write(device, 0, partition_table("dos")),
    "LUKS": lambda device: write(device, 0, b"LUKS\xba\xbe\x00\x01" + bytes(584)),
    "LVM": lambda device: write(device, 512, lvm_label()),
    "swap": lambda device: write(device, 4086, b"SWAPSPACE2"),
    "RAID": lambda device: write(device, 4096, b"\xfc\x4e\x2b\xa9"),
    "btrfs": lambda device: write(device, 65536 + 64, b"_BHRfS_M"),
    "ext4 without its first superblock": lambda device: damaged(device, "ext4", bytes(2048)),
    "xfs without its first superblock": lambda device: damaged(device, "xfs", bytes(4096)),
    "another's unfinished xfs": lambda device: damaged(device, "xfs", b"\x01", at=126),
}


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
@pytest.mark.parametrize("what", SIGNATURES)
async def test_a_stale_mark_and_a_blkid_that_finds_nothing_format_nothing(
    formatter: Formatter, device: Device, blkid: Callable[[str], None], what: str, fs_type: str
) -> None:
    """What ``blkid`` says of a device that it cannot read is what it says of a blank one."""
    SIGNATURES[what](device)
    before = touched(device)
    blkid("exit 2")
    with pytest.raises(NotBlank):
        await examine(formatter, device, fs_type, mark=MARK)
    assert touched(device) == before


async def test_blkid_is_asked_about_what_was_read_and_not_about_the_device(
    formatter: Formatter, device: Device, blkid: Callable[[str], None], tmp_path: Path
) -> None:
    """So it cannot meet a link that was cut after our own reads, or another volume's device."""
    run("mkfs.ext4", "-q", str(device.path))
    blkid(f'echo "$@" > {tmp_path}/asked; exec /usr/sbin/blkid "$@"')
    assert (await examine(formatter, device)).state is State.READY
    asked = (tmp_path / "asked").read_text()
    assert str(device.path) not in asked
    assert "/proc/self/fd/" in asked


@pytest.mark.parametrize("seed", range(3))
async def test_blkid_sees_in_the_samples_what_it_sees_on_the_device(
    formatter: Formatter, device: Device, devices: BlockDevices, seed: int
) -> None:
    """For a finished file system only its start and its end are read."""
    what = ("ext4", "xfs", "btrfs")[seed]
    if shutil.which(f"mkfs.{what}") is None:
        pytest.skip(f"needs mkfs.{what}")
    run(f"mkfs.{what}", "-q", str(device.path))
    found = await devices.inspect(device, volume="pvc-1")
    asked = run("blkid", "-p", "-o", "export", str(device.path))
    assert found.blkid.stdout.splitlines()[1:] == asked.splitlines()[1:]
    del formatter


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


def test_mkfs_is_never_forced_but_on_our_own_half() -> None:
    assert "-F" not in mkfs_arguments("ext4", "/dev/x", uuid=MARK, again=True)
    assert "-f" not in mkfs_arguments("xfs", "/dev/x", uuid=MARK, again=False)
    assert "-f" in mkfs_arguments("xfs", "/dev/x", uuid=MARK, again=True)
