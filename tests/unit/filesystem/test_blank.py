"""What is not proven blank is not formatted, with the real blkid and mkfs on sparse files."""

import binascii
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.errors import CommandTimeout, NotBlank, Unavailable
from rds_csi.filesystem import probe
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.format import Formatter, State
from rds_csi.model.block_device import Device
from rds_csi.model.volume import MIB
from rds_csi.runtime import process
from tests.unit.fakes.runner import FakeRunner
from tests.unit.filesystem.disk_files import (
    MARK,
    PROBE,
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
