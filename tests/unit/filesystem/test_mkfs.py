"""What is made: with the real programs on sparse files, and what they are told in each version."""

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from rds_csi.filesystem.format import Formatter
from rds_csi.filesystem.mkfs import EXT4_FEATURES, mkfs_arguments
from rds_csi.model.block_device import Device
from tests.unit.filesystem.disk_files import MARK, SIZE, examine, run

needs_programs = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("blkid", "mkfs.ext4", "mkfs.xfs")),
    reason="needs blkid, mkfs.ext4 and mkfs.xfs",
)

USAGES: Mapping[str, str] = {
    "5.10": "[-m crc=0|1,finobt=0|1,uuid=xxx,rmapbt=0|1,reflink=0|1]\n"
    "[-i log=n|perblock=n|size=num,maxpct=n,attr=0|1|2,\n projid32bit=0|1,sparse=0|1]\n"
    "[-n size=num,version=2|ci,ftype=0|1]\n",
    "6.1": "[-m crc=0|1,finobt=0|1,uuid=xxx,rmapbt=0|1,reflink=0|1,\n inobtcount=0|1,bigtime=0|1]\n"
    "[-i perblock=n|size=num,maxpct=n,attr=0|1|2,\n projid32bit=0|1,sparse=0|1,nrext64=0|1]\n"
    "[-n size=num,version=2|ci,ftype=0|1]\n",
    "7.2": "[-m crc=0|1,finobt=0|1,uuid=xxx,rmapbt=0|1,reflink=0|1,\n"
    " inobtcount=0|1,bigtime=0|1,autofsck=xxx,\n metadir=0|1]\n"
    "[-i perblock=n|size=num,maxpct=n,attr=0|1|2,\n projid32bit=0|1,sparse=0|1,nrext64=0|1,\n"
    " exchange=0|1,max_atomic_write=n]\n"
    "[-n size=num,version=2|ci,ftype=0|1,parent=0|1]]\n",
}
"""What ``mkfs.xfs`` of these versions prints of itself, shortened."""

XFS_5_10 = {"ro_compat": 0xF, "incompat": 0xF}
"""``XFS_SB_FEAT_RO_COMPAT_ALL``, ``XFS_SB_FEAT_INCOMPAT_ALL`` of Linux 5.10, without NEEDSREPAIR:
finobt, rmapbt, reflink, inobtcount; ftype, spinodes, meta_uuid, bigtime."""


def pinned(command: list[str]) -> list[str]:
    return command[command.index("-K") + 1 : command.index(f"uuid={MARK}") - 1]


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("5.10", []),
        ("6.1", ["-i", "nrext64=0"]),
        ("7.2", ["-i", "nrext64=0", "-i", "exchange=0", "-n", "parent=0", "-m", "metadir=0"]),
    ],
)
def test_xfs_is_told_of_what_its_program_knows(version: str, options: list[str]) -> None:
    usage = USAGES[version]
    command = mkfs_arguments("xfs", "/dev/x", uuid=MARK, again=False, usage=usage)
    assert pinned(command) == options
    newest = mkfs_arguments("xfs", "/dev/x", uuid=MARK, again=False, usage=usage, newest=True)
    assert pinned(newest) == []


def test_ext4_is_told_all_of_it() -> None:
    command = mkfs_arguments("ext4", "/dev/x", uuid=MARK, again=False)
    assert command[command.index("-O") + 1].split(",") == ["none", *EXT4_FEATURES]
    assert not {"orphan_file", "metadata_csum_seed"} & set(EXT4_FEATURES)
    assert "-O" not in mkfs_arguments("ext4", "/dev/x", uuid=MARK, again=False, newest=True)


def test_mkfs_is_never_forced_but_on_our_own_half() -> None:
    assert "-F" not in mkfs_arguments("ext4", "/dev/x", uuid=MARK, again=True)
    assert "-f" not in mkfs_arguments("xfs", "/dev/x", uuid=MARK, again=False)
    assert "-f" in mkfs_arguments("xfs", "/dev/x", uuid=MARK, again=True)


def ext4_features(path: Path) -> set[str]:
    [line] = [
        line
        for line in run("dumpe2fs", "-h", str(path)).splitlines()
        if line.startswith("Filesystem features:")
    ]
    return set(line.split()[2:])


@needs_programs
async def test_an_xfs_has_nothing_that_linux_5_10_does_not_mount(
    formatter: Formatter, device: Device
) -> None:
    found = await examine(formatter, device, "xfs")
    await formatter.make(device, "xfs", found, uuid=MARK, volume="pvc-1")
    # Big-endian, from byte 208 of the superblock: compat, ro_compat, incompat.
    compat, ro_compat, incompat = struct.unpack_from(">III", device.path.read_bytes()[:512], 208)
    assert compat == 0
    assert ro_compat & ~XFS_5_10["ro_compat"] == 0
    assert incompat & ~XFS_5_10["incompat"] == 0
    assert incompat & 1, "it is of version 5"


@needs_programs
async def test_a_program_is_asked_what_it_knows_before_it_is_told(
    formatter: Formatter, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for the newest: it takes the options, and hands on those that this machine's knows."""
    programs, told = tmp_path / "bin", tmp_path / "told"
    programs.mkdir()
    (programs / "usage").write_text(USAGES["7.2"])
    (programs / "mkfs.xfs").write_text(
        f'#!/bin/sh\n[ $# -gt 0 ] || {{ cat {programs}/usage >&2; exit 1; }}\necho "$@" >> {told}\n'
        f'exec /usr/sbin/mkfs.xfs -q -K -m uuid={MARK} "{device.path}"\n'
    )
    (programs / "mkfs.xfs").chmod(0o755)
    monkeypatch.setattr(
        "rds_csi.runtime.process.ENVIRONMENT", {"PATH": f"{programs}:{os.environ['PATH']}"}
    )
    found = await examine(formatter, device, "xfs")
    await formatter.make(device, "xfs", found, uuid=MARK, volume="pvc-1")
    options = "-i nrext64=0 -i exchange=0 -n parent=0 -m metadir=0"
    assert told.read_text() == f"-q -K {options} -m uuid={MARK} {device.path}\n"


@needs_programs
@pytest.mark.parametrize("newest", [False, True])
def test_an_ext4_has_what_is_named_whatever_the_system_would_make(
    tmp_path: Path, *, newest: bool
) -> None:
    """With the configuration of e2fsprogs 1.47 and newer."""
    image, config = tmp_path / "image", tmp_path / "mke2fs.conf"
    image.touch()
    os.truncate(image, SIZE)
    config.write_text(
        "[defaults]\nbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,"
        "ext_attr\n[fs_types]\next4 = {\nfeatures = has_journal,extent,huge_file,flex_bg,"
        "metadata_csum,metadata_csum_seed,64bit,dir_nlink,extra_isize,orphan_file\n}\n"
    )
    command = mkfs_arguments("ext4", str(image), uuid=MARK, again=False, newest=newest)
    environment = {**os.environ, "MKE2FS_CONFIG": str(config)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert ("metadata_csum_seed" in ext4_features(image)) == newest
    if not newest:
        assert ext4_features(image) == set(EXT4_FEATURES)
    run("e2fsck", "-fn", str(image))


@needs_programs
@pytest.mark.parametrize("size", [16 * 2**20, 2**34])
def test_of_any_size_it_is_the_ext4_that_was_named(tmp_path: Path, size: int) -> None:
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, size)
    run(*mkfs_arguments("ext4", str(image), uuid=MARK, again=False))
    assert ext4_features(image) == set(EXT4_FEATURES)
    run("e2fsck", "-fn", str(image))
