"""The fake sysfs has the shape of a live kernel's."""

from pathlib import Path

import pytest

from tests.unit.fakes.sysfs import FakeSysfs

A = "nqn.2000-02.com.mikrotik:pvc-" + "a" * 28
B = "nqn.2000-02.com.mikrotik:pvc-" + "b" * 28


def test_multipath_head_is_below_the_subsystem_and_its_path_below_the_controller(
    tmp_path: Path,
) -> None:
    fake = FakeSysfs(tmp_path / "x", multipath=True)
    name = fake.connect(A, size=1 << 20)
    assert name == "nvme0"
    assert fake.block("nvme0n1") == fake.subsystem(name) / "nvme0n1"
    assert fake.block("nvme0c0n1") == fake.controller(name) / "nvme0c0n1"
    assert not (fake.block("nvme0c0n1") / "dev").exists()
    assert (fake.block("nvme0n1") / "size").read_text() == "2048\n"
    assert (fake.dev / "nvme0n1").exists()


def test_plain_namespace_is_below_the_controller(tmp_path: Path) -> None:
    fake = FakeSysfs(tmp_path / "x", multipath=False)
    name = fake.connect(A)
    assert fake.block("nvme0n1") == fake.controller(name) / "nvme0n1"
    assert [entry.name for entry in (fake.sys / "class/block").iterdir()] == ["nvme0n1"]


def test_names_are_given_out_again(tree: FakeSysfs) -> None:
    assert (tree.connect(A), tree.connect(B)) == ("nvme0", "nvme1")
    before = tree.devno("nvme0n1")
    tree.disconnect("nvme0")
    assert tree.controllers() == ["nvme1"]
    assert not (tree.dev / "nvme0n1").exists()
    assert tree.connect(A) == "nvme0"
    assert tree.devno("nvme0n1") != before


def test_two_hosts_share_one_subsystem(tmp_path: Path) -> None:
    fake = FakeSysfs(tmp_path / "x", multipath=True)
    fake.connect(A)
    fake.connect(A, hostnqn="other")
    assert fake.subsystem("nvme0") == fake.subsystem("nvme1")
    fake.disconnect("nvme0")
    assert fake.block("nvme0n1").exists()  # the other path is still there
    fake.disconnect("nvme1")
    with pytest.raises(FileNotFoundError):
        fake.block("nvme0n1")


def test_namespaces_may_go_while_the_controller_stays(tree: FakeSysfs) -> None:
    name = tree.connect(A)
    tree.remove_namespaces(name)
    assert tree.controllers() == [name]
    assert not list((tree.sys / "class/block").iterdir())


@pytest.fixture(params=[True, False], ids=["multipath", "plain"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path / "fake", multipath=request.param)
