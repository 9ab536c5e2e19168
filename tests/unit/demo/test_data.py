"""The demo's application: what it wrote is known again, and nothing else is taken for it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.demo.data import intact, write

MIB = 2**20


def test_what_was_written_is_there(tmp_path: Path) -> None:
    written = write(tmp_path / "a", offset=0, size=2 * MIB + 5)
    assert written.path.stat().st_size == 2 * MIB + 5
    assert intact(written)
    assert written.digest != write(tmp_path / "b", offset=0, size=2 * MIB + 5).digest


def test_an_offset_leaves_what_is_before_it_alone(tmp_path: Path) -> None:
    first = write(tmp_path / "a", offset=0, size=MIB)
    second = write(tmp_path / "a", offset=MIB, size=MIB)
    assert intact(first)
    assert intact(second)
    assert not intact(replace(first, offset=1))


@pytest.mark.parametrize("position", [0, MIB, 2 * MIB + 4])
def test_one_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    written = write(tmp_path / "a", offset=0, size=2 * MIB + 5)
    with written.path.open("r+b") as file:
        file.seek(position)
        [byte] = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))
    assert not intact(written)


def test_what_is_missing_is_noticed(tmp_path: Path) -> None:
    written = write(tmp_path / "a", offset=0, size=MIB)
    os.truncate(written.path, MIB - 1)
    assert not intact(written)


def test_it_is_on_the_device_before_the_write_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "a", offset=0, size=MIB + 1)
    assert synced == [MIB + 1]


def test_a_device_that_takes_little_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, block, at: real(fd, block[:70_000], at))
    assert intact(write(tmp_path / "a", offset=3, size=MIB + 7))
