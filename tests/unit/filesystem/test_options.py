"""Mount options: a list of what is allowed."""

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
        "context=system_u:object_r:x", "journal_path=/dev/sda", "logdev=/dev/sda", "commit=1,dev",
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
    assert all("," not in option and option.isascii() for option in made)
