"""Mount options: a list of what is allowed."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import InvalidRequest
from rds_csi.filesystem.options import mount_options


def options(fs_type: str, *flags: str, read_only: bool = False, shared: bool = False) -> str:
    return ",".join(mount_options(fs_type, flags, read_only=read_only, shared=shared))


@pytest.mark.parametrize(
    ("fs_type", "flags", "expected"),
    [
        ("ext4", "", "rw"),
        ("ext4", "noatime discard", "rw,noatime,discard"),
        ("ext4", "data=journal commit=30", "rw,data=journal,commit=30"),
        ("ext4", "errors=remount-ro", "rw,errors=remount-ro"),
        ("ext4", "rw defaults noexec", "rw,noexec"),
        ("ext4", "ro noatime", "ro,noatime"),
        ("xfs", "", "rw,nouuid"),
        ("xfs", "nouuid allocsize=64k inode64", "rw,nouuid,allocsize=64k,inode64"),
        ("xfs", "logbsize=256k sunit=8 prjquota", "rw,logbsize=256k,sunit=8,prjquota,nouuid"),
    ],
)
def test_ordinary_flags(fs_type: str, flags: str, expected: str) -> None:
    assert options(fs_type, *flags.split()) == expected


def test_a_file_system_read_by_several_nodes_is_never_written_to() -> None:
    assert options("ext4", read_only=True) == "ro"
    assert options("ext4", read_only=True, shared=True) == "ro,noload"
    assert options("xfs", "rw", read_only=True, shared=True) == "ro,nouuid,norecovery"


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
@pytest.mark.parametrize(
    "flag",
    [
        "", " ", "noatime,exec", "suid", "dev", "bind", "remount", "loop", "nobarrier",
        "context=system_u:object_r:x", 'context="', 'context=""', 'context="a:b"', 'context="a:b:c',
        'context="a:b:c",dev', 'context="a:b:c",context="a:b:d"', 'context="a:b:c d"', "context",
        'context="a:b:c\\"', 'context="a:b:c""', "context='a:b:c'", 'context="a:b:c"\n',
        'context="a:b:c:s0,\tdev"', f'context="a:b:{"c" * 600}"', 'fscontext="a:b:c"',
        'defcontext="a:b:c"', 'rootcontext="a:b:c"', 'Context="a:b:c"', "seclabel",
        "journal_path=/dev/sda", "logdev=/dev/sda", "commit=1,dev",
        "commit=", "commit=x", "commit", "noatime=1", "data=", "errors=panic", "offset=512",
        "X-mount.mkdir", "helper=x", "noload", "norecovery", "allocsize=1,dev", "noatime\n", "ROO",
    ],
)  # fmt: skip
def test_other_flags_are_refused_by_name(fs_type: str, flag: str) -> None:
    with pytest.raises(InvalidRequest, match="not allowed"):
        options(fs_type, flag)


def test_flags_of_the_other_file_system_are_refused() -> None:
    for fs_type, flag in (("xfs", "data=ordered"), ("ext4", "nouuid"), ("ext4", "allocsize=64k")):
        with pytest.raises(InvalidRequest):
            options(fs_type, flag)


@given(st.text(), st.sampled_from(["ext4", "xfs"]))
def test_no_flag_brings_in_a_second_option(flag: str, fs_type: str) -> None:
    try:
        made = mount_options(fs_type, [flag], read_only=False, shared=False)
    except InvalidRequest:
        return
    assert all(outside_quotes(option) and option.isascii() for option in made)


def outside_quotes(option: str) -> bool:
    """Whether mount(8) takes it for one option."""
    return "," not in re.sub(r'="[^"]*"$', "", option)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
@pytest.mark.parametrize(
    "label",
    [
        "system_u:object_r:container_file_t:s0:c1,c2",  # what the kubelet passes, by Go's %q
        "system_u:object_r:container_file_t:s0",
        "system_u:object_r:container_file_t:s0-s0:c0.c1023",
        "system_u:object_r:svirt_sandbox_file_t",
    ],
)
def test_the_label_of_the_kubelet_is_passed_on_as_it_is(fs_type: str, label: str) -> None:
    flag = f'context="{label}"'
    assert flag in mount_options(fs_type, ["noatime", flag], read_only=False, shared=False)
    # As the kubelet does when the StorageClass has one as well, if it is the same.
    twice = mount_options(fs_type, [flag, flag], read_only=False, shared=False)
    assert twice.count(flag) == 1


def test_two_labels_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than one SELinux context"):
        options("ext4", 'context="a:b:c"', 'context="a:b:d"')


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_mount_reads_the_label_as_one_option(tmp_path: Path) -> None:
    """On this host, with SELinux or without; unquoted, the comma would end the option."""
    text = options("ext4", "noatime", 'context="system_u:object_r:tmpfs_t:s0:c1,c2"', "nodev")
    script = (
        'mount -t tmpfs -o "$1" tmpfs "$0" && findmnt -n -o VFS-OPTIONS,FS-OPTIONS "$0" && '
        'umount "$0"'
    )
    run = ["unshare", "--mount", "sh", "-c", script, str(tmp_path)]
    done = subprocess.run([*run, text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"rw", "noatime", "nodev"} <= set(done.stdout.replace(",", " ").split())
    bare = subprocess.run([*run, text.replace('"', "")], capture_output=True, check=False)
    assert bare.returncode != 0
