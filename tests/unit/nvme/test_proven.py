"""The program that proves what it acts on, run for real on a fake tree.

Its devices are plain files, and so of number 0:0; that the kernel refuses to hold a device twice is
shown in the lab (``tests/kernel/test_held.py``).
"""

import os
import subprocess
from pathlib import Path

import pytest

from rds_csi.nvme import proven
from rds_csi.nvme.child import PROVEN
from rds_csi.nvme.proven import ERROR, HELD, NOT_OURS
from tests.unit.fakes.sysfs import HOST_NQN, OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import A, B

DEVICE = "nvme0n1"


def plain(tree: FakeSysfs, *names: str) -> None:
    """Let the block devices be what they are here."""
    for name in names or (DEVICE,):
        (tree.block(name) / "dev").write_text("0:0\n")
        (tree.dev / name).write_bytes(bytes(8192))


def run(
    tree: FakeSysfs, command: str, *words: str, nqn: str = A
) -> subprocess.CompletedProcess[str]:
    arguments = [*PROVEN, command, str(tree.sys), str(tree.dev), nqn, HOST_NQN, *words]
    return subprocess.run(arguments, check=False, capture_output=True, text=True)


def directory(tree: FakeSysfs, name: str = "nvme0") -> str:
    return str(tree.sys / "class/nvme" / name)


def written(tree: FakeSysfs, name: str = "nvme0", attribute: str = "delete_controller") -> str:
    return (tree.controller(name) / attribute).read_text()


@pytest.mark.parametrize(
    ("command", "attribute"),
    [("delete", "delete_controller"), ("rescan", "rescan_controller")],
)
def test_writes_into_the_controllers_it_means(
    tree: FakeSysfs, command: str, attribute: str
) -> None:
    for _ in range(2):
        tree.connect(A, size=None)
    done = run(tree, command, directory(tree), directory(tree, "nvme1"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [written(tree, name, attribute) for name in ("nvme0", "nvme1")] == ["1\n", "1\n"]


@pytest.mark.parametrize("now", ["another volume", "another host", "nothing"])
def test_not_when_a_name_is_anothers_by_now(tree: FakeSysfs, now: str) -> None:
    if now != "nothing":
        tree.connect(
            B if now == "another volume" else A,
            hostnqn=OTHER_NQN if now == "another host" else HOST_NQN,
            size=None,
        )
    done = run(tree, "delete", directory(tree))
    assert done.returncode == NOT_OURS
    assert "no controller of" in done.stderr
    assert now == "nothing" or written(tree) == ""


def test_one_of_them_that_is_anothers_by_now_is_left_alone(tree: FakeSysfs) -> None:
    tree.connect(A, size=None)
    tree.connect(B, size=None)
    assert run(tree, "delete", directory(tree), directory(tree, "nvme1")).returncode == 0
    assert (written(tree), written(tree, "nvme1")) == ("1\n", "")


def test_a_write_that_fails_says_why_and_does_not_hold_up_the_others(tree: FakeSysfs) -> None:
    for _ in range(2):
        tree.connect(A, size=None)
    (tree.controller("nvme0") / "delete_controller").unlink()
    (tree.controller("nvme0") / "delete_controller").mkdir()
    done = run(tree, "delete", directory(tree), directory(tree, "nvme1"))
    assert done.returncode == ERROR
    assert "delete_controller of nvme0: Is a directory" in done.stderr
    assert written(tree, "nvme1") == "1\n"


def test_its_devices_are_opened_before_anything_is_written(tree: FakeSysfs) -> None:
    tree.connect(A)
    plain(tree)
    assert run(tree, "delete", directory(tree)).returncode == 0
    assert written(tree) == "1\n"


def test_a_namespace_that_appears_meanwhile_is_held_as_well(
    tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.connect(A)
    meant = proven.Meant(tree.sys, tree.dev, A, HOST_NQN)
    seen = []

    def hold(device: Path, *_: object) -> None:
        seen.append(device.name)
        if device.name == "nvme0n2":
            raise proven.Held("nvme0n2 is held")
        (tree.controller("nvme0") / "nvme0n2").mkdir()

    monkeypatch.setattr(proven, "hold", hold)
    with pytest.raises(proven.Held):
        proven.delete([proven.Controller(Path(directory(tree)), meant)], meant)
    assert seen == [DEVICE, "nvme0n2"]
    assert written(tree) == ""


@pytest.mark.parametrize("wrong", ["number", "unreadable", "node missing"])
def test_a_device_that_cannot_be_proven_unused_keeps_its_controller(
    tree: FakeSysfs, wrong: str
) -> None:
    tree.connect(A)
    plain(tree)
    if wrong == "number":
        (tree.block(DEVICE) / "dev").write_text("259:7\n")
    else:
        (tree.dev / DEVICE).unlink()
        if wrong == "unreadable":
            os.mkfifo(tree.dev / DEVICE)
            (tree.dev / DEVICE).unlink()
            (tree.dev / DEVICE).symlink_to(DEVICE)
    done = run(tree, "delete", directory(tree))
    assert done.returncode == (NOT_OURS if wrong == "number" else ERROR)
    assert DEVICE in done.stderr
    assert written(tree) == ""


def test_a_device_of_another_subsystem_is_not_its_own(tree: FakeSysfs) -> None:
    """The block device below the directory, and a subsystem that is another's by then."""
    tree.connect(A)
    plain(tree)
    (tree.block(DEVICE).parent / "subsysnqn").write_text(f"{B}\n")
    done = run(tree, "delete", directory(tree))
    assert done.returncode == NOT_OURS
    assert written(tree) == ""


def test_reads_the_device_of_that_name_and_number(tree: FakeSysfs) -> None:
    tree.connect(A)
    plain(tree)
    done = run(tree, "read", DEVICE, "0:0", directory(tree))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("what", ["controller", "device"])
def test_what_is_anothers_after_the_read_has_not_answered(
    tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    tree.connect(A)
    plain(tree)
    changed = {
        "controller": tree.controller("nvme0") / "hostnqn",
        "device": tree.block(DEVICE) / "dev",
    }[what]
    monkeypatch.setattr(proven, "read_block", lambda _descriptor: changed.write_text("259:7\n"))
    meant = proven.Meant(tree.sys, tree.dev, A, HOST_NQN)
    with pytest.raises(proven.Gone):
        proven.read([proven.Controller(Path(directory(tree)), meant)], meant, DEVICE, "0:0")


@pytest.mark.parametrize("wrong", ["name", "number", "volume"])
def test_reads_no_other(tree: FakeSysfs, wrong: str) -> None:
    tree.connect(A)
    plain(tree)
    done = run(
        tree,
        "read",
        "nvme7n1" if wrong == "name" else DEVICE,
        "259:7" if wrong == "number" else "0:0",
        directory(tree),
        nqn=B if wrong == "volume" else A,
    )
    assert done.returncode == NOT_OURS


def test_a_read_of_too_little_is_an_error(tree: FakeSysfs) -> None:
    tree.connect(A)
    plain(tree)
    (tree.dev / DEVICE).write_bytes(b"")
    done = run(tree, "read", DEVICE, "0:0", directory(tree))
    assert done.returncode == ERROR
    assert "0 bytes read of 4096" in done.stderr


def test_gives_up_what_the_kernel_tries_in_vain_to_bring_back(tree: FakeSysfs) -> None:
    tree.connect(A, state="connecting")  # its device is not even looked at
    assert run(tree, "give-up", directory(tree)).returncode == 0
    assert written(tree) == "1\n"


def test_never_gives_up_what_carries_io(tree: FakeSysfs) -> None:
    tree.connect(A, state="connecting")
    tree.connect(A, state="live")
    done = run(tree, "give-up", directory(tree), directory(tree, "nvme1"))
    assert done.returncode == HELD
    assert "nvme1 is live" in done.stderr
    assert (written(tree), written(tree, "nvme1")) == ("", "")


def test_an_unknown_command_does_nothing(tree: FakeSysfs, tmp_path: Path) -> None:
    tree.connect(A, size=None)
    assert run(tree, "destroy", directory(tree)).returncode not in (0, NOT_OURS, HELD)
    assert written(tree) == ""
