"""Reading sysfs: both layouts, several hosts, and entries that vanish."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rds_csi.nvme.sysfs import BlockDevice, Namespace, Sysfs
from tests.unit.fakes.sysfs import HOST_ID, HOST_NQN, OTHER_NQN, FakeSysfs

A = "nqn.2000-02.com.mikrotik:pvc-" + "a" * 28
B = "nqn.2000-02.com.mikrotik:pvc-" + "b" * 28


def look(tree: FakeSysfs) -> Sysfs:
    return Sysfs(tree.sys, dev=tree.dev)


def test_a_controller_with_everything_the_kernel_says(tree: FakeSysfs) -> None:
    tree.connect(A, ctrl_loss_tmo="off", reconnect_delay="5")
    (controller,) = look(tree).controllers()
    assert (controller.name, controller.nqn) == ("nvme0", A)
    assert (controller.hostnqn, controller.hostid) == (HOST_NQN, HOST_ID)
    assert (controller.address, controller.port) == ("192.0.2.1", 4420)
    assert (controller.state, controller.live, controller.leaving) == ("live", True, False)
    assert (controller.subsystem, controller.transport) == ("nvme-subsys0", "tcp")
    assert (controller.ctrl_loss_tmo, controller.reconnect_delay) == ("off", "5")


def test_controllers_of_one_nqn_in_the_order_of_their_numbers(tree: FakeSysfs) -> None:
    for _ in range(11):
        tree.connect(A, hostnqn=OTHER_NQN)
    tree.connect(B)
    names = [controller.name for controller in look(tree).controllers(A)]
    assert names == [f"nvme{number}" for number in range(11)]
    assert [controller.nqn for controller in look(tree).controllers()].count(B) == 1


def test_namespace_in_both_layouts(tree: FakeSysfs) -> None:
    tree.connect(B, size=1 << 20)
    tree.connect(A, size=3 << 20)
    assert look(tree).namespace(A, HOST_NQN) == Namespace(
        device=tree.dev / "nvme1n1", size=3 << 20, devno=tree.devno("nvme1n1"), nsid=1
    )


def test_namespace_of_another_host_is_not_ours(tree: FakeSysfs) -> None:
    tree.connect(A, hostnqn=OTHER_NQN)
    assert look(tree).namespace(A, HOST_NQN) is None
    assert look(tree).namespace(A) is not None


def test_our_namespace_beside_another_hosts(tmp_path: Path) -> None:
    tree = FakeSysfs(tmp_path / "x", multipath=False)
    tree.connect(A, hostnqn=OTHER_NQN)
    tree.connect(A)
    ours, others = look(tree).namespace(A, HOST_NQN), look(tree).namespace(A, OTHER_NQN)
    assert ours is not None
    assert others is not None
    assert (ours.device.name, others.device.name) == ("nvme1n1", "nvme0n1")


def test_a_multipath_head_without_a_path_of_ours_is_not_ours(tmp_path: Path) -> None:
    tree = FakeSysfs(tmp_path / "x", multipath=True)
    tree.connect(A, hostnqn=OTHER_NQN)
    tree.connect(A, size=None)
    assert look(tree).namespace(A, HOST_NQN) is None


def test_namespace_id_counts(tree: FakeSysfs) -> None:
    name = tree.connect(A, size=1 << 20, nsid=2)
    assert look(tree).namespace(A, HOST_NQN) is None
    tree.add_namespace(name, size=5 << 20, nsid=1)
    found = look(tree).namespace(A, HOST_NQN)
    assert found is not None
    assert (found.nsid, found.size) == (1, 5 << 20)


@pytest.mark.parametrize("state", ["live", "connecting", "resetting", "new"])
def test_namespace_is_there_whatever_the_state(tree: FakeSysfs, state: str) -> None:
    tree.connect(A, state=state)
    assert look(tree).namespace(A, HOST_NQN) is not None


@pytest.mark.parametrize("state", ["deleting", "deleting (no IO)", "dead"])
def test_but_not_on_a_controller_that_is_leaving(tree: FakeSysfs, state: str) -> None:
    tree.connect(A, state=state)
    (controller,) = look(tree).controllers(A)
    assert controller.leaving
    assert look(tree).namespace(A, HOST_NQN) is None


def test_read_only(tree: FakeSysfs) -> None:
    tree.connect(A)
    (tree.block("nvme0n1") / "ro").write_text("1\n")
    found = look(tree).namespace(A)
    assert found is not None
    assert found.read_only


def test_devices_with_partitions_and_holders(tree: FakeSysfs) -> None:
    tree.connect(A)
    part = tree.add_partition("nvme0n1")
    tree.hold("nvme0n1", "dm-3")
    sysfs = look(tree)
    assert sysfs.devices(sysfs.controllers(A)) == [
        BlockDevice(name="nvme0n1", devno=tree.devno("nvme0n1"), holders=("dm-3",)),
        BlockDevice(name=part, devno=tree.devno(part)),
    ]


def test_subsystems(tree: FakeSysfs) -> None:
    tree.connect(B, size=None)
    tree.connect(A)
    tree.connect(A, hostnqn=OTHER_NQN, size=None)
    first, second = look(tree).subsystems()
    assert (first.nqn, len(first.controllers), len(first.devices)) == (A, 2, 1)
    assert (second.nqn, len(second.controllers), len(second.devices)) == (B, 1, 0)


def test_activity_changes_with_io(tree: FakeSysfs) -> None:
    tree.connect(A)
    (before,) = look(tree).subsystems()
    assert look(tree).subsystems() == [before]
    path = "nvme0c0n1" if tree.multipath else "nvme0n1"
    (tree.block(path) / "stat").write_text(" 1 0 8 0 0 0 0 0 0 0 0\n")
    (after,) = look(tree).subsystems()
    assert after.activity != before.activity


@pytest.mark.requirement("NODE-06")
def test_absent_directories_are_nothing_and_no_error(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path / "nowhere")
    assert sysfs.controllers() == []
    assert sysfs.subsystems() == []
    assert sysfs.namespace(A) is None
    assert not sysfs.has_transport()


@pytest.mark.requirement("NODE-06")
def test_unreadable_entries_are_skipped(tree: FakeSysfs) -> None:
    tree.connect(A)
    tree.connect(B)
    (tree.controller("nvme0") / "subsysnqn").unlink()
    (tree.sys / "class/nvme/nvme7").symlink_to("/nowhere/at/all")
    (tree.sys / "class/nvme/nvme-fabrics").mkdir()
    assert [controller.name for controller in look(tree).controllers()] == ["nvme1"]
    assert [subsystem.nqn for subsystem in look(tree).subsystems()] == [B]


@pytest.mark.parametrize("attribute", ["size", "dev", "nsid"])
@pytest.mark.parametrize("text", [None, "", "x", "1:y"])
def test_a_namespace_that_vanishes_or_is_garbled_is_skipped(
    tree: FakeSysfs, attribute: str, text: str | None
) -> None:
    tree.connect(A)
    file = tree.block("nvme0n1") / attribute
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert look(tree).namespace(A) is None


def test_a_head_that_vanished_while_its_path_stayed(tmp_path: Path) -> None:
    tree = FakeSysfs(tmp_path / "x", multipath=True)
    tree.connect(A)
    shutil.rmtree(tree.block("nvme0n1"))
    assert look(tree).namespace(A) is None
    assert look(tree).subsystems()[0].devices == ()


def test_transport_module(tmp_path: Path) -> None:
    assert look(FakeSysfs(tmp_path / "a")).has_transport()
    assert not look(FakeSysfs(tmp_path / "b", transport=False)).has_transport()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(text=st.text(max_size=60))
def test_any_address_text_is_taken(tmp_path: Path, text: str) -> None:
    root = tmp_path / "any"
    shutil.rmtree(root, ignore_errors=True)
    tree = FakeSysfs(root)
    tree.connect(A)
    (tree.controller("nvme0") / "address").write_text(text, errors="replace")
    (controller,) = look(tree).controllers()
    assert controller.port >= 0


def test_ipv6_address(tree: FakeSysfs) -> None:
    tree.connect(A, address="2001:db8::1", port=4421)
    (controller,) = look(tree).controllers()
    assert (controller.address, controller.port) == ("2001:db8::1", 4421)


async def test_a_subsystem_with_another_number_than_its_controller_is_found(tmp_path: Path) -> None:
    tree = FakeSysfs(tmp_path)
    for nqn in ("nqn.2014-08.org.nixos:boot-disk", A, B):
        tree.connect(nqn)
    tree.disconnect("nvme0")
    # The first subsystem's number is taken by a second controller of another.
    tree.connect(B)
    seen = {each.name: each.subsystem for each in Sysfs(tree.sys).controllers()}
    assert seen == {
        "nvme0": "nvme-subsys2",
        "nvme1": "nvme-subsys1",
        "nvme2": "nvme-subsys2",
    }


@pytest.mark.parametrize("multipath", [True, False])
def test_whose_a_device_is_its_number_and_its_name_tell(tmp_path: Path, multipath: bool) -> None:
    tree = FakeSysfs(tmp_path, multipath=multipath)
    tree.connect(A)
    part = tree.add_partition("nvme0n1")
    sysfs = Sysfs(tree.sys)
    for block in ("nvme0n1", part):
        assert sysfs.owner(tree.devno(block)) == A
        assert sysfs.owner_of_node(block) == A
    assert sysfs.owner((8, 1)) == ""
    # What a bind mount of a node that is gone shows: its name may be another volume's by now.
    for name in ("", "nvme9n1", "nvme0n1//deleted", "../nvme/nvme0/nvme0n1"):
        assert sysfs.owner_of_node(name) == ""


def test_joined_is_what_leads_to_one_device(tree: FakeSysfs) -> None:
    sysfs = Sysfs(tree.sys, dev=tree.dev)
    assert not sysfs.joined(sysfs.controllers(A))
    tree.connect(A, size=None)
    assert not sysfs.joined(sysfs.controllers(A))
    tree.connect(A, address="192.0.2.2")
    assert sysfs.joined(sysfs.controllers(A)) is tree.multipath
    (subsystem,) = sysfs.subsystems()
    assert subsystem.joined is tree.multipath


@pytest.mark.parametrize(
    ("wwid", "identified"),
    [
        ("uuid.11111111-2222-4333-8444-555555555555", True),
        ("eui.0123456789abcdef0123456789abcdef", True),
        ("nvme.0000-61626364-4c696e7578-00000001", False),
        ("", False),
    ],
)
def test_a_namespace_is_identified_by_what_is_its_own(
    tree: FakeSysfs, wwid: str, identified: bool
) -> None:
    sysfs = Sysfs(tree.sys, dev=tree.dev)
    tree.connect(A)
    (tree.block("nvme0n1") / "wwid").write_text(f"{wwid}\n")
    assert sysfs.identified(sysfs.controllers(A)) is identified
    assert not sysfs.identified([])
