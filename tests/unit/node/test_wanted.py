"""What is kept on record of a stage and of a publish is what was asked for."""

from dataclasses import replace

import pytest

from rds_csi.model.access import AccessMode, Capability
from rds_csi.model.contexts import connection_context
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.node.staging import StagedVolume
from rds_csi.node.wanted import Publish, Stage
from tests.unit.nvme.kernel import TARGET, A

VOLUME = A.rpartition(":")[2]
MOUNT = Capability(
    access_type="mount",
    mode=AccessMode.SINGLE_NODE_WRITER,
    fs_type="xfs",
    mount_flags=("noatime",),
)
STAGE = Stage(
    volume=VOLUME,
    target=TARGET,
    config=ConnectionConfig(),
    path="/stage",
    capability=MOUNT,
    read_only=True,
    size=1 << 30,
    generation=3,
    formatted="xfs",
)
PUBLISH = Publish(
    volume=VOLUME,
    target=TARGET,
    staging_path="/stage",
    path="/target",
    capability=MOUNT,
    read_only=True,
    generation=3,
)
KEPT = StagedVolume(
    volume=VOLUME,
    nqn=A,
    address="192.0.2.1",
    port=4420,
    staging_path="/stage",
    fs_type="xfs",
    read_only=True,
    mount_flags=("noatime",),
    generation=3,
    exclusive=True,
)


STAGED = replace(KEPT, connection=tuple(sorted(connection_context(STAGE.config).items())))


@pytest.mark.parametrize(
    ("wanted", "kept"), [(STAGE, STAGED), (PUBLISH, KEPT)], ids=["stage", "publish"]
)
def test_all_that_a_restart_has_to_know_is_kept(
    wanted: Stage | Publish, kept: StagedVolume
) -> None:
    assert wanted.record() == kept


def test_what_brings_a_lost_connection_back_is_kept() -> None:
    config = ConnectionConfig(ctrl_loss_tmo=30, reconnect_delay=2, nr_io_queues=3, queue_size=64)
    record = replace(STAGE, config=config, pinned=True).record(uuid="the-uuid")
    assert record.config == config
    assert record.pinned
    assert record.uuid == "the-uuid"


def test_a_file_system_that_nobody_looked_at_is_the_one_of_before() -> None:
    before = replace(STAGED, uuid="the-uuid")
    assert STAGE.record(before).uuid == "the-uuid"
    assert STAGE.record(before, uuid="another").uuid == "another"
    assert before.unstaged().uuid == ""


def test_a_stage_keeps_the_targets_there_were_and_nothing_else() -> None:
    before = replace(
        KEPT,
        targets=(("/target", False),),
        formatting="a-mark",
        lost="ext4",
        ungrown="it did not work",
        superseded=4,
        generation=2,
    )
    assert STAGE.record(before) == replace(STAGED, targets=(("/target", False),))


@pytest.mark.parametrize("mode", AccessMode)
def test_whether_other_nodes_may_have_it_too_is_kept(mode: AccessMode) -> None:
    assert replace(STAGE, capability=replace(MOUNT, mode=mode)).record().exclusive is (
        "SINGLE_NODE" in mode.name and not mode.name.startswith("MULTI")
    )


def test_a_raw_device_has_no_file_system_on_record() -> None:
    block = Capability(access_type="block", mode=AccessMode.SINGLE_NODE_WRITER, fs_type="xfs")
    assert replace(STAGE, capability=block).record().fs_type == ""
    assert replace(PUBLISH, capability=block).block
    assert not PUBLISH.block
