"""The checks of a node: nothing to say of a good one, and each fault with its way out."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from rds_csi.doctor.check import Status
from rds_csi.doctor.node.time_sync import ClockState, clock_state
from rds_csi.runtime.process import Result
from tests.unit.doctor.places import IDENTITY, PREFIX, VOLUME, FakeNode, named, not_ok, one


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path)


async def test_a_good_node_before_the_driver_is_started(node: FakeNode) -> None:
    checks = await node.examine()
    assert not_ok(checks) == {
        f"socket {node.shared.endpoint}": Status.WARNING,
        "NVMe address": Status.SKIPPED,
    }
    assert not checks.failed
    assert named(checks, "host NQN")[0].found == IDENTITY.nqn
    assert one(checks, "nvme-cli").found == "version 2.13"
    assert one(checks, "native multipath").found.startswith("on;")


def without_module(node: FakeNode) -> None:
    (node.sysfs.sys / "module/nvme_tcp").rmdir()


def without_fabrics(node: FakeNode) -> None:
    node.change(fabrics=node.root / "nvme-fabrics")


def fabrics_is_a_file(node: FakeNode) -> None:
    (node.root / "nvme-fabrics").touch()
    node.change(fabrics=node.root / "nvme-fabrics")


def old_nvme(node: FakeNode) -> None:
    node.runner.forget()
    node.runner.on("nvme", result=Result(0, "nvme version 1.16\n", ""))


def odd_nvme(node: FakeNode) -> None:
    node.runner.forget()
    node.runner.on("nvme", result=Result(0, "hello\n", ""))


def broken_nvme(node: FakeNode) -> None:
    node.runner.forget()
    node.runner.fail("nvme", stderr="libnvme.so: cannot open shared object file")


def private_mounts(node: FakeNode) -> None:
    node.write_table("master:7")


def no_kubelet(node: FakeNode) -> None:
    node.kubelet.rmdir()


def state_is_a_file(node: FakeNode) -> None:
    node.state.rmdir()
    node.state.touch()


def state_is_fleeting(node: FakeNode) -> None:
    node.write_table("shared:7", state_type="overlay")


def unsynchronised(node: FakeNode) -> None:
    node.change(clock=lambda: ClockState(synchronised=False, maximum_error=16.0))


def clock_refused(node: FakeNode) -> None:
    def refuse() -> ClockState:
        raise OSError(errno.EPERM, "Operation not permitted")

    node.change(clock=refuse)


def not_root(node: FakeNode) -> None:
    node.change(user=lambda: 1000)


def not_a_socket(node: FakeNode) -> None:
    node.shared.endpoint.touch()


@pytest.mark.parametrize(
    ("spoil", "name", "status", "found", "advice"),
    [
        (without_module, "kernel module", Status.FAILED, "not loaded", "modprobe nvme-tcp"),
        (without_fabrics, "{root}/nvme-fabrics", Status.FAILED, "No such file", "modprobe"),
        (fabrics_is_a_file, "{root}/nvme-fabrics", Status.FAILED, "not a device", "/dev has to be"),
        (old_nvme, "nvme-cli", Status.FAILED, "version 1.16", "2.0 or newer"),
        (odd_nvme, "nvme-cli", Status.WARNING, "'hello'", "2.0"),
        (broken_nvme, "nvme-cli", Status.FAILED, "libnvme.so", "nvme version"),
        (private_mounts, "kubelet directory", Status.FAILED, "private", "Bidirectional"),
        (no_kubelet, "kubelet directory", Status.FAILED, "not there", "--kubelet-dir"),
        (state_is_a_file, "state directory", Status.FAILED, "Not a directory", "make it"),
        (state_is_fleeting, "state directory", Status.WARNING, "overlay", "hostPath"),
        (unsynchronised, "clock", Status.WARNING, "not synchronised", "chrony"),
        (clock_refused, "clock", Status.SKIPPED, "not permitted", ""),
        (not_root, "user", Status.WARNING, "user 1000", "as root"),
        (not_a_socket, "socket", Status.FAILED, "not a socket", "remove it"),
    ],
)
async def test_each_fault_is_found_and_says_what_to_do(
    node: FakeNode,
    *,
    spoil: Callable[[FakeNode], None],
    name: str,
    status: Status,
    found: str,
    advice: str,
) -> None:
    expected = set(not_ok(await node.examine()))
    spoil(node)
    checks = await node.examine()
    check = one(checks, name.format(root=node.root))
    assert check.status is status
    assert found in check.found
    assert advice in check.advice
    assert checks.failed is (status is Status.FAILED)
    assert set(not_ok(checks)) <= expected | {check.name}


async def test_missing_programs_are_named_with_their_packages(node: FakeNode) -> None:
    missing = ("nvme", "mkfs.xfs", "xfs_growfs")
    node.change(which=lambda name: None if name in missing else name)
    checks = await node.examine()
    check = one(checks, "programs")
    assert check.found == "missing: mkfs.xfs, nvme, xfs_growfs"
    assert "nvme-cli, xfsprogs" in check.advice
    assert not named(checks, "nvme-cli")
    assert not node.runner.calls


async def test_nothing_is_left_in_the_state_directory(node: FakeNode) -> None:
    await node.examine()
    assert list(node.state.iterdir()) == []


# Who this node is.


async def test_connections_of_ours_are_counted(node: FakeNode) -> None:
    node.sysfs.connect(VOLUME, hostnqn=IDENTITY.nqn, hostid=IDENTITY.hostid)
    node.sysfs.connect(
        f"{VOLUME[:-1]}b", hostnqn=IDENTITY.nqn, hostid=IDENTITY.hostid, state="connecting"
    )
    checks = await node.examine(nvme=("127.0.0.1", 1))
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
    check = one(await node.examine(nvme=("127.0.0.1", 1)), "connections")
    assert check.status is status
    assert found in check.found


async def test_without_an_address_that_of_a_connected_volume_is_asked(
    node: FakeNode, unused_tcp_port: int
) -> None:
    node.sysfs.connect(
        VOLUME,
        hostnqn=IDENTITY.nqn,
        hostid=IDENTITY.hostid,
        address="127.0.0.1",
        port=unused_tcp_port,
    )
    check = one(await node.examine(), "NVMe address")
    assert check.found == f"127.0.0.1:{unused_tcp_port} refuses connections"
    assert check.status is Status.WARNING


async def test_an_ssh_address_that_is_none_fails(node: FakeNode, unused_tcp_port: int) -> None:
    checks = await node.examine(ssh=("127.0.0.1", unused_tcp_port))
    assert one(checks, "SSH address").status is Status.FAILED


def test_the_kernel_answers() -> None:
    state = clock_state()
    assert state.maximum_error >= 0
