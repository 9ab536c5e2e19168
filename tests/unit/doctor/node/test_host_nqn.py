"""Who this node is to the RDS, and whether anybody else on it says to be the same."""

from pathlib import Path

import pytest

from rds_csi.doctor.check import Status
from tests.unit.doctor.places import IDENTITY, PREFIX, VOLUME, FakeNode, one


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path)


async def test_connections_of_ours_are_counted(node: FakeNode) -> None:
    node.sysfs.connect(VOLUME, hostnqn=IDENTITY.nqn, hostid=IDENTITY.hostid)
    node.sysfs.connect(
        f"{VOLUME[:-1]}b", hostnqn=IDENTITY.nqn, hostid=IDENTITY.hostid, state="connecting"
    )
    checks = await node.examine(nvme=(("127.0.0.1", 1),))
    check = one(checks, "connections")
    assert check.status is Status.OK
    assert check.found == "2 over NVMe-oF, 2 of them to our volumes, 1 live"


async def test_disks_of_the_machine_itself_are_no_connections(node: FakeNode) -> None:
    node.sysfs.connect("nqn.2014.08.org.nvmexpress:144d144dSERIAL", hostnqn="", hostid="")
    check = one(await node.examine(), "connections")
    assert (check.status, check.found[:17]) == (Status.OK, "0 over NVMe-oF, 0")


@pytest.mark.parametrize("file", ["hostnqn", "hostid"])
async def test_our_identity_in_the_files_of_others_is_a_duplicate_in_waiting(
    node: FakeNode, file: str
) -> None:
    (node.files / "hostnqn").write_text("nqn.2014-08.org.nvmexpress:uuid:1\n")
    assert not (await node.examine()).failed
    text = IDENTITY.nqn if file == "hostnqn" else IDENTITY.hostid.upper()
    (node.files / file).write_text(text + "\n")
    checks = await node.examine()
    check = one(checks, "host NQN files")
    assert check.status is Status.FAILED
    assert "gen-hostnqn" in check.advice


OTHER = "nqn.2014-08.org.nvmexpress:uuid:99999999-2222-5333-8444-555555555555"


OTHER_ID = "99999999-2222-5333-8444-555555555555"


FOREIGN = "nqn.2020-01.example:boot"


@pytest.mark.parametrize(
    ("nqn", "hostnqn", "hostid", "status", "found"),
    [
        (VOLUME, OTHER, OTHER_ID, Status.FAILED, "under another host NQN"),
        (FOREIGN, IDENTITY.nqn, IDENTITY.hostid, Status.WARNING, "uses its host NQN"),
        (FOREIGN, OTHER, IDENTITY.hostid, Status.FAILED, "refuses the driver's connects"),
        (VOLUME, IDENTITY.nqn, OTHER_ID, Status.FAILED, "refuses the driver's connects"),
        (FOREIGN, OTHER, OTHER_ID, Status.OK, "1 over NVMe-oF, 0 of them"),
        (f"{PREFIX}:boot", OTHER, OTHER_ID, Status.OK, "1 over NVMe-oF, 0 of them"),
    ],
)
async def test_host_nqns_of_other_connections(
    node: FakeNode, *, nqn: str, hostnqn: str, hostid: str, status: Status, found: str
) -> None:
    node.sysfs.connect(nqn, hostnqn=hostnqn, hostid=hostid, address="127.0.0.1", port=1)
    check = one(await node.examine(nvme=(("127.0.0.1", 1),)), "connections")
    assert check.status is status
    assert found in check.found
