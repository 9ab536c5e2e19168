"""The NQNs of controllers: each is read once, of a name given out again once more."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rds_csi.nvme.names import Names
from tests.unit.fakes.sysfs import FakeSysfs

A, B = ("nqn.2000-02.com.mikrotik:pvc-" + letter * 28 for letter in "ab")


class Reads:
    """Reads of a tree, counted; ``before`` is called once, at the next one."""

    def __init__(self, tree: FakeSysfs) -> None:
        self.tree = tree
        self.count: Counter[str] = Counter()
        self.before: Callable[[], object] | None = None

    def __call__(self, name: str) -> str:
        self.count[name] += 1
        act, self.before = self.before, None
        if act is not None:
            act()
        try:
            return (self.tree.controller(name) / "subsysnqn").read_text().strip()
        except OSError:
            return ""


@pytest.fixture
def reads(tree: FakeSysfs) -> Reads:
    return Reads(tree)


def names(reads: Reads) -> Names:
    return Names(str(reads.tree.sys / "class/nvme"), reads)


def test_each_is_read_once(reads: Reads) -> None:
    for number in range(12):
        reads.tree.connect(A if number % 2 else B)
    looks = names(reads)
    expected = {f"nvme{number}": A if number % 2 else B for number in range(12)}
    for _ in range(3):
        assert list(looks.nqns().items()) == list(expected.items())
    assert set(reads.count.values()) == {1}
    reads.tree.connect(B)
    assert looks.nqns() == expected | {"nvme12": B}
    assert set(reads.count.values()) == {1}


@pytest.mark.parametrize("shown", ["(efault)", "(null)", ""])
def test_what_is_being_made_is_read_until_it_has_an_nqn(reads: Reads, shown: str) -> None:
    """Whoever looks while the target is still asked sees no NQN yet."""
    standing, made = reads.tree.connect(A), reads.tree.connect(B)
    reads.tree.set(made, "subsysnqn", shown)
    looks = names(reads)
    for _ in range(2):
        assert looks.nqns()[standing] == A
        assert looks.nqns().get(made) != B
    reads.tree.set(made, "subsysnqn", B)
    for _ in range(2):
        assert looks.nqns() == {standing: A, made: B}
    assert reads.count[standing] == 1
    assert reads.count[made] == 5


def test_a_name_that_was_given_out_again_is_read_again(reads: Reads) -> None:
    """The same name, and perhaps the same NQN: another object either way."""
    reads.tree.connect(A)
    reads.tree.connect(B)
    looks = names(reads)
    looks.nqns()
    for nqn in (B, B, A, A):
        reads.tree.disconnect("nvme0")
        assert reads.tree.connect(nqn) == "nvme0"
        assert looks.nqns() == {"nvme0": nqn, "nvme1": B}
    assert reads.count == {"nvme0": 5, "nvme1": 1}


def test_who_left_is_forgotten(reads: Reads) -> None:
    reads.tree.connect(A)
    looks = names(reads)
    looks.nqns()
    reads.tree.disconnect("nvme0")
    assert looks.nqns() == {}


def test_one_that_shows_none_yet_is_asked_until_it_does(reads: Reads) -> None:
    reads.tree.connect(A)
    reads.tree.connect(B)
    reads.tree.set("nvme1", "subsysnqn", "")
    looks = names(reads)
    assert looks.nqns() == looks.nqns() == {"nvme0": A}
    reads.tree.set("nvme1", "subsysnqn", B)
    assert looks.nqns() == looks.nqns() == {"nvme0": A, "nvme1": B}
    assert reads.count == {"nvme0": 1, "nvme1": 3}


def test_what_changes_between_listing_and_reading_is_not_kept(reads: Reads) -> None:
    """B took the name after the listing showed A: the answer is kept for neither."""
    reads.tree.connect(A)
    looks = names(reads)

    def replaced() -> None:
        reads.tree.disconnect("nvme0")
        reads.tree.connect(B)

    reads.before = replaced
    assert looks.nqns() == {"nvme0": B}
    reads.tree.disconnect("nvme0")
    reads.tree.connect(A)
    assert looks.nqns() == {"nvme0": A}


def test_no_directory_has_no_controllers(tmp_path: Path) -> None:
    assert Names(str(tmp_path / "nowhere"), lambda _name: A).nqns() == {}
