"""The checks of a node: nothing to say of a good one, and each fault with its way out."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from rds_csi.doctor.check import Status
from rds_csi.doctor.node.time_sync import ClockState
from rds_csi.runtime.process import Result
from tests.unit.doctor.places import IDENTITY, VOLUME, FakeNode, named, not_ok, one


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
    node.forget_nvme()
    node.runner.on("nvme", result=Result(0, "nvme version 1.16\n", ""))


def odd_nvme(node: FakeNode) -> None:
    node.forget_nvme()
    node.runner.on("nvme", result=Result(0, "hello\n", ""))


def broken_nvme(node: FakeNode) -> None:
    node.forget_nvme()
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


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("parameter", ["N\n", ""])
async def test_a_kernel_that_gives_requests_up_and_joins_no_addresses(
    node: FakeNode, unused_tcp_port: int, several: bool, parameter: str
) -> None:
    setting = node.places.module / "multipath"
    if parameter:
        setting.write_text(parameter)
    else:
        setting.unlink()
    addresses = ("127.0.0.1", "127.0.0.2") if several else ("127.0.0.1",)
    checks = await node.examine(nvme=tuple((each, unused_tcp_port) for each in addresses))
    check = one(checks, "native multipath")
    assert check.status is Status.WARNING
    assert check.found.startswith("off: " if parameter else "the kernel has none: ")
    assert "may fail" in check.found
    assert ("several addresses" in check.found) is several
    assert "nvme_core.multipath=Y" in check.advice


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
