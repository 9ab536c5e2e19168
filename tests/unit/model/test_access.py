"""How a volume may be used: which modes, on how many nodes, with which file system."""

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.model.access import AccessMode, Capability, minimum_size
from rds_csi.model.volume import MINIMUM_SIZE, MINIMUM_XFS


@pytest.mark.parametrize("mode", AccessMode)
def test_block_takes_every_mode(mode: AccessMode) -> None:
    assert Capability(access_type="block", mode=mode).unsupported() == ""


@pytest.mark.parametrize("mode", AccessMode)
def test_a_file_system_is_never_written_from_two_nodes(mode: AccessMode) -> None:
    refused = mode in (AccessMode.MULTI_NODE_MULTI_WRITER, AccessMode.MULTI_NODE_SINGLE_WRITER)
    why = Capability(access_type="mount", mode=mode, fs_type="xfs").unsupported()
    assert bool(why) == refused
    assert not refused or "volumeMode: Block" in why


def test_other_file_systems_are_refused_by_name() -> None:
    wanted = Capability(access_type="mount", mode=AccessMode.SINGLE_NODE_WRITER, fs_type="btrfs")
    assert "btrfs" in wanted.unsupported()
    assert Capability(access_type="mount", mode=AccessMode(1)).file_system == "ext4"
    assert Capability(access_type="block", mode=AccessMode(1)).file_system == ""


def test_a_mode_is_csis_by_its_number_and_its_name() -> None:
    theirs = {mode.value: mode.name for mode in csi.VolumeCapabilityAccessModeMode if mode.value}
    assert {mode.value: mode.name for mode in AccessMode} == theirs


def test_what_the_name_of_a_mode_says_holds() -> None:
    for mode in AccessMode:
        assert mode.multi_node is mode.name.startswith("MULTI_NODE_")
        assert mode.read_only is mode.name.endswith("_READER_ONLY")


def test_a_record_is_told_the_file_system_or_block() -> None:
    assert Capability(access_type="mount", mode=AccessMode(1)).use == "ext4"
    assert Capability(access_type="mount", mode=AccessMode(1), fs_type="xfs").use == "xfs"
    assert Capability(access_type="block", mode=AccessMode(1), fs_type="xfs").use == "block"


def test_a_volume_that_may_become_xfs_is_large_enough_for_it() -> None:
    ext4, xfs = (
        Capability(access_type="mount", mode=AccessMode(1), fs_type=each)
        for each in ("ext4", "xfs")
    )
    block = Capability(access_type="block", mode=AccessMode(1), fs_type="xfs")
    assert minimum_size([ext4, block]) == minimum_size([]) == MINIMUM_SIZE
    assert minimum_size([ext4, xfs]) == MINIMUM_XFS > MINIMUM_SIZE
