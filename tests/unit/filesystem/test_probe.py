"""The program that reads a device: its samples, its checks, its exit status."""

import errno
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.filesystem import probe
from rds_csi.volume import GIB, MAXIMUM_SIZE, MIB

SIZE = 64 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, SIZE)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-B", probe.__file__, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def inspect(path: Path) -> dict[str, object]:
    found = json.loads(run("inspect", path, "0:0").stdout)
    assert isinstance(found, dict)
    return found


@given(st.integers(1, MAXIMUM_SIZE // 512).map(lambda sectors: sectors * 512))
def test_the_samples_cover_start_end_and_all_that_lies_between(size: int) -> None:
    ranges = probe.sample_ranges(size)
    assert ranges[0][0] == 0
    assert ranges[0][1] >= min(4 * MIB, size)
    assert ranges[-1][1] == size
    assert ranges[-1][0] <= max(0, size - MIB)
    for (_, end), (start, _) in itertools.pairwise(ranges):
        assert end < start
        assert start - end <= size // 64 + 4096
    assert all(start % 4096 == 0 and end > start for start, end in ranges)
    assert sum(end - start for start, end in ranges) <= 12 * MIB


def test_small_devices_are_read_as_a_whole() -> None:
    for size in (4096, MIB, 5 * MIB):
        assert probe.sample_ranges(size) == [(0, size)]


@pytest.mark.parametrize(
    "place",
    [32768 * 4096, 3 * 32768 * 4096, 49 * 32768 * 4096, 64 * MIB, 256 * GIB, 8 * MIB],
)
def test_the_copies_of_superblocks_are_sampled(place: int) -> None:
    size = 300 * GIB + 4096
    assert any(start <= place < end for start, end in probe.sample_ranges(size))


def test_zeros_are_zeros_and_a_byte_is_found(disk: Path) -> None:
    found = inspect(disk)
    assert (found["size"], found["data"], found["unfinished"]) == (SIZE, None, None)
    with disk.open("r+b") as file:
        file.seek(SIZE - 5)
        file.write(b"x")
    changed = inspect(disk)
    assert changed["data"] == SIZE - 5
    assert changed["digest"] != found["digest"]


def test_another_size_is_another_digest(disk: Path) -> None:
    before = inspect(disk)["digest"]
    os.truncate(disk, SIZE + MIB)
    assert inspect(disk)["digest"] != before


def test_the_program_runs_only_on_what_was_inspected(disk: Path, tmp_path: Path) -> None:
    digest = inspect(disk)["digest"]
    proof = tmp_path / "ran"
    assert run("run", disk, "0:0", digest, "touch", proof).returncode == 0
    assert proof.exists()
    proof.unlink()
    with disk.open("r+b") as file:
        file.write(b"x")
    refused = run("run", disk, "0:0", digest, "touch", proof)
    assert refused.returncode == probe.CHANGED
    assert "has changed" in refused.stderr
    assert not proof.exists()


def test_the_program_keeps_the_device_open_and_its_own_status(disk: Path) -> None:
    digest = inspect(disk)["digest"]
    listing = run("run", disk, "0:0", digest, "ls", "-l", "/proc/self/fd")
    assert str(disk) in listing.stdout
    assert run("run", disk, "0:0", digest, "sh", "-c", "exit 7").returncode == 7
    assert run("run", disk, "0:0", digest, "no-such-program").returncode == probe.ERROR


def test_another_device_number_is_refused(disk: Path) -> None:
    for command in ("inspect", "claim"):
        refused = run(command, disk, "259:3")
        assert refused.returncode == probe.CHANGED
        assert "not 259:3" in refused.stderr


def test_errors_are_errors(tmp_path: Path) -> None:
    missing = run("inspect", tmp_path / "none", "0:0")
    assert (missing.returncode, missing.stdout) == (probe.ERROR, "")
    assert "No such file" in missing.stderr
    assert run("inspect", tmp_path, "0:0").returncode == probe.ERROR


def test_a_short_read_is_an_error(disk: Path) -> None:
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="nothing to read"):
            probe.read(descriptor, SIZE - 4096, 8192)
    finally:
        os.close(descriptor)


def test_a_failing_read_is_no_zero(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if offset >= 32 * MIB:
            raise OSError(errno.EIO, "Input/output error")
        return original(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert probe.main(["inspect", str(disk), "0:0"]) == probe.ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Input/output error" in captured.err


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.EBUSY, probe.HELD),
        (errno.ENXIO, 0),
        (errno.ENODEV, 0),
        (errno.ENOENT, 0),
        (errno.EIO, probe.ERROR),
        (errno.EACCES, probe.ERROR),
    ],
)
def test_who_holds_a_device(
    disk: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    assert probe.main(["claim", str(disk), "0:0"]) == status


def test_a_device_without_direct_reads_is_read_otherwise(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., int] = os.open

    def no_direct(path: str, flags: int, *more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return original(path, flags, *more)

    monkeypatch.setattr(os, "open", no_direct)
    assert probe.main(["inspect", str(disk), "0:0"]) == 0


def test_it_needs_nothing_but_the_standard_library() -> None:
    assert "rds_csi" not in Path(probe.__file__).read_text().replace("rds_csi/", "")
