"""The writer of the resilience tests, and the proof: each sees what it is there to see."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import writer
from tests.lab.application import Journal, verify


@pytest.fixture
def written(original: Path, tmp_path: Path) -> tuple[Path, Journal]:
    """A file that a writer wrote to for a moment, and its journal."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path / "data", Journal(tmp_path / "journal")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writer")
    path, journal = folder / "data", Journal(folder / "journal")
    path.write_bytes(bytes(writer.SLOTS * writer.BLOCK))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", writer.__file__, "--pause=0", path, journal.path]
    )
    while len(journal.entries()) < 2 * writer.SLOTS + 40:
        assert process.poll() is None
        time.sleep(0.01)  # a real process is waited for
    process.terminate()
    assert process.wait(10) == 0
    if "EINVAL" in journal.errors():
        pytest.skip("this file system has no O_DIRECT")
    return folder


def test_what_was_written_is_proven(written: tuple[Path, Journal]) -> None:
    proof = verify(*written)

    assert proof.intact
    assert proof.checked == writer.SLOTS
    assert proof.acknowledged > writer.SLOTS


def test_a_lost_write_is_seen(written: tuple[Path, Journal]) -> None:
    path, journal = written
    last = writer.last_number(journal.path)
    with path.open("r+b") as file:
        file.seek(writer.place(last, path))
        file.write(writer.block(last - writer.SLOTS))

    proof = verify(path, journal)

    assert not proof.intact
    assert len(proof.lost) == 1
    assert proof.corrupted == []


@pytest.mark.parametrize("offset", [0, 20, 2000, writer.BLOCK - 1])
def test_a_flipped_bit_is_seen(written: tuple[Path, Journal], offset: int) -> None:
    path, journal = written
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)

    proof = verify(path, journal)

    assert len(proof.corrupted) == 1
    assert proof.lost == []


def test_a_block_from_elsewhere_is_seen(written: tuple[Path, Journal]) -> None:
    path, journal = written
    with path.open("r+b") as file:
        file.write(writer.block(10**6))

    assert not verify(path, journal).intact


def test_an_unanswered_write_may_have_arrived_or_not(written: tuple[Path, Journal]) -> None:
    path, journal = written
    number = writer.last_number(journal.path) + 1
    with journal.path.open("a") as file:
        file.write(f"try {number} 1.0\nerr {number} 1.0 EIO\n")
    assert verify(path, journal).intact
    with path.open("r+b") as file:
        file.seek(writer.place(number, path))
        file.write(writer.block(number))
    assert verify(path, journal).intact


def test_stalls_and_errors_are_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.path.write_text(
        "try 0 1.0\nack 0 1.5\ntry 1 2.0\nerr 1 5.0 EIO\ntry 2 5.0\nack 2 9.0\n"
    )

    assert journal.longest_stall() == 7.5
    assert journal.errors() == {"EIO": 1}
    assert journal.acknowledged_after(1.5) == 9.0
    assert journal.acknowledged_after(9.0) is None
    assert writer.last_number(journal.path) == 2


def test_a_second_writer_goes_on_counting(written: tuple[Path, Journal]) -> None:
    path, journal = written
    before = writer.last_number(journal.path)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", writer.__file__, "--pause=0.01", path, journal.path]
    )
    while writer.last_number(journal.path) == before:
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    process.wait(10)

    numbers = [entry.number for entry in journal.entries() if entry.what == "try"]
    assert numbers == list(range(len(numbers)))
    assert verify(path, journal).intact
