"""Loop devices as sysfs shows them; that they attach, grow and discard is ``tests/kernel``'s."""

import os
import stat
from pathlib import Path

import pytest

from rds_csi.simulator.device import loops
from rds_csi.simulator.device.loops import Loops

DEVICE = Path("/dev/loop3")


@pytest.fixture
def block(tmp_path: Path) -> Path:
    """What sysfs has of the device."""
    found = tmp_path / "loop3"
    (found / "loop").mkdir(parents=True)
    return found


def test_what_was_discarded_on_a_device(tmp_path: Path, block: Path) -> None:
    # Reads, merged sectors, ms; writes, the same four; in flight, ms, ms; discards, merged, sectors
    (block / "stat").write_text(" 1 2 3 4 5 6 7 8 9 10 11 12 13 2048 15 16 17\n")
    assert Loops(tmp_path).discarded(DEVICE) == 1024**2
    assert Loops(tmp_path).discarded(Path("/dev/loop4")) == 0


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        Loops(tmp_path).attached(tmp_path / "none", direct=False),
    ):
        pass
    with pytest.raises(FileNotFoundError):
        Loops(tmp_path).look_again(tmp_path / "none")


def test_what_the_kernel_is_given_is_as_long_as_its_own() -> None:
    """``struct loop_config``: fd, block_size, loop_info64 (232 bytes), eight reserved words."""
    assert loops._CONFIG.size == 4 + 4 + 232 + 64


def test_a_node_that_nobody_made_is_made(
    tmp_path: Path, block: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container: its ``/dev`` does not get what the kernel makes later."""
    made: list[tuple[Path, int, int]] = []

    def mknod(path: Path, mode: int, device: int) -> None:
        made.append((path, mode, device))
        if len(made) > 1:
            raise FileExistsError

    monkeypatch.setattr(os, "mknod", mknod)
    (block / "dev").write_text("7:48\n")
    node = tmp_path / "dev" / "loop3"
    Loops(tmp_path).make_node(node)
    Loops(tmp_path).make_node(node)  # somebody else was quicker
    assert made == [(node, stat.S_IFBLK | 0o600, os.makedev(7, 48))] * 2
    node.parent.mkdir()
    node.touch()
    Loops(tmp_path).make_node(node)
    assert len(made) == 2
