"""To which volume a device, a connection and a mount belong: by name and host, never by number."""

from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.errors import OPEN, ConnectFailed, FailedPrecondition, InvalidRequest
from rds_csi.filesystem.mounts import Mount, parse
from rds_csi.model.block_device import Device
from rds_csi.model.contexts import Target
from rds_csi.node.connected import Front, Volumes, belongs, check_target, not_undone, same_export
from tests.unit.fakes.no_maps import maps_of
from tests.unit.fakes.sysfs import HOST_NQN, OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import PREFIX, TARGET, A, B, Kernel

VOLUME, OTHER = (nqn.rpartition(":")[2] for nqn in (A, B))


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(FakeSysfs(tmp_path / "fake"))


@pytest.fixture
def volumes(kernel: Kernel) -> Volumes:
    return Volumes(kernel.connector(), kernel.sysfs, maps_of(kernel.tree), HOST_NQN)


@pytest.mark.parametrize(
    "nqn",
    [
        B,
        f"{B}.1",
        f"{A}.0",
        "",
        VOLUME,
        f":{VOLUME}",
        f"{A}x",
        f"{A}:x",
        f"{PREFIX}:x{VOLUME}",
        f"{A}\n",
        A.upper(),
    ],
)
def test_an_export_of_any_other_name_is_not_the_volumes(nqn: str) -> None:
    assert not belongs(nqn, VOLUME)
    with pytest.raises(InvalidRequest, match="not of this volume") as caught:
        check_target(replace(TARGET, nqn=nqn), VOLUME)
    assert caught.value.volume == VOLUME


def test_its_own_export_is_whatever_prefix_and_generation() -> None:
    for nqn in (A, f"nqn.2014-08.org.example:a:{VOLUME}", f"{A}.1", f"{A}.12"):
        assert belongs(nqn, VOLUME)
        target = Target(("192.0.2.1",), 4420, nqn)
        assert check_target(target, VOLUME) is target


@pytest.mark.parametrize(
    ("other", "same"),
    [(A, True), (f"{A}.1", True), (B, False), (f"{B}.3", False), (f"x{A}", False), ("", False)],
)
def test_an_export_is_the_same_at_each_of_its_hand_overs(other: str, same: bool) -> None:
    for nqn in (A, f"{A}.3"):
        assert same_export(nqn, other) == same_export(other, nqn) == same
    assert not same_export("", "")


def test_the_newest_generation_is_the_volumes(kernel: Kernel, volumes: Volumes) -> None:
    """A session of an older one may be there still, and looks as well as ever."""
    for nqn in (A, f"{A}.9", f"{A}.10"):
        kernel.tree.connect(nqn)
    found = volumes.find(VOLUME)
    assert found is not None
    assert found[0] == f"{A}.10"
    assert volumes.namespace(volumes.controllers(VOLUME)) == found
    assert volumes.nqns(VOLUME) == {A, f"{A}.9", f"{A}.10"}


def test_what_could_not_be_undone_is_an_open_answer_that_tells_both() -> None:
    failure = ConnectFailed("the device did not appear", volume=VOLUME)
    told = not_undone(failure, OSError("it is busy"), VOLUME)
    assert told.code in OPEN
    assert told.volume == VOLUME
    assert told.what.startswith("the device did not appear; and ")
    assert told.what.endswith("could not be undone: it is busy")
    assert not_undone(ValueError("no"), OSError("busy"), VOLUME).what.startswith("no; and ")


def test_only_connections_of_this_host_count(kernel: Kernel, volumes: Volumes) -> None:
    kernel.tree.connect(A, hostnqn=OTHER_NQN)
    assert volumes.controllers(VOLUME) == []
    assert volumes.find(VOLUME) is None
    kernel.tree.connect(A, state="connecting")
    assert [each.name for each in volumes.controllers(VOLUME)] == ["nvme1"]
    assert volumes.nqns(VOLUME) == {A}
    assert volumes.nqns(OTHER) == set()


def test_all_controllers_are_those_to_volumes(kernel: Kernel, volumes: Volumes) -> None:
    kernel.tree.connect("nqn.2014-08.org.nixos:boot-disk")
    kernel.tree.connect(B, hostnqn=OTHER_NQN)
    names = [kernel.tree.connect(A), kernel.tree.connect(B, size=None)]
    assert [each.name for each in volumes.all_controllers()] == names


def test_the_first_name_that_leads_to_a_device_is_found(kernel: Kernel, volumes: Volumes) -> None:
    """A volume may be connected under two names for a moment: the former's may lead nowhere."""
    later = f"nqn.2014-08.org.example:{VOLUME}"
    kernel.tree.connect(A, size=None)
    assert volumes.find(VOLUME) is None
    assert volumes.namespace(volumes.controllers(VOLUME)) == ("", None)
    kernel.tree.connect(later, size=1 << 20)
    found = volumes.find(VOLUME)
    assert found is not None
    nqn, namespace = found
    assert (nqn, namespace.size) == (later, 1 << 20)
    assert volumes.namespace(volumes.controllers(VOLUME)) == found
    assert volumes.nqns(VOLUME) == {A, later}


def test_a_device_is_to_be_proven_by_name_and_host(kernel: Kernel, volumes: Volumes) -> None:
    kernel.tree.connect(A)
    found = volumes.find(VOLUME)
    assert found is not None
    node = kernel.tree.dev / "nvme0n1"
    nqn, namespace = found
    assert volumes.device(nqn, Front.bare(namespace)) == Device(
        node, kernel.tree.devno("nvme0n1"), A, HOST_NQN
    )


def mount(devno: tuple[int, int], root: str = "/", fs_type: str = "ext4") -> Mount:
    line = f"20 1 {devno[0]}:{devno[1]} {root} /mnt rw - {fs_type} none rw\n"
    return parse(line.encode())[0]


def test_mounts_of_the_volume_and_of_no_volume_are_no_strangers(
    kernel: Kernel, volumes: Volumes
) -> None:
    kernel.tree.connect(A)
    own = kernel.tree.devno("nvme0n1")
    volumes.require_own([], VOLUME)
    volumes.require_own(
        [mount(own), mount((0, 6), "/nvme0n1", "devtmpfs"), mount((8, 1)), mount((0, 40))], VOLUME
    )


@pytest.mark.parametrize("how", ["file system", "device node"])
def test_a_mount_of_another_volume_is_said_and_left(
    kernel: Kernel, volumes: Volumes, how: str
) -> None:
    kernel.tree.connect(A)
    kernel.tree.connect(B)
    others = kernel.tree.devno("nvme1n1")
    shown = mount(others) if how == "file system" else mount((0, 6), "/nvme1n1", "devtmpfs")
    own = mount(kernel.tree.devno("nvme0n1"))
    with pytest.raises(FailedPrecondition, match=f"/mnt belongs to {B}; it was left") as caught:
        volumes.require_own([own, shown], VOLUME)
    assert caught.value.volume == VOLUME
