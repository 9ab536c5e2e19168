"""The writer of the resilience tests, and the proof: each sees what it is there to see."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rds_csi.demo.kubelet import Claim
from tests.lab import writer
from tests.lab.application import Application, Journal, verify


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


@pytest.mark.parametrize(
    ("begin", "end", "numbers"),
    [(0.5, 10.0, [0, 2]), (1.0, 10.0, [2]), (0.5, 9.0, [0]), (0.5, 1.5, []), (5.0, 10.0, [])],
)
def test_what_was_tried_and_acknowledged_between_two_instants(
    tmp_path: Path, begin: float, end: float, numbers: list[int]
) -> None:
    journal = Journal(tmp_path / "journal")
    journal.path.write_text(
        "try 0 1.0\nack 0 1.5\ntry 1 2.0\nerr 1 5.0 EIO\ntry 2 5.0\nack 2 9.0\n"
    )

    assert journal.answered_within(begin, end) == numbers


@pytest.fixture
async def application(written: tuple[Path, Journal], tmp_path: Path) -> Application:
    """One that writes to a file, where the file system has O_DIRECT."""
    volume = Claim(name="left", access="ext4", size=1, kubelet_dir=tmp_path)
    volume.target.mkdir(parents=True)
    application = Application([volume], tmp_path / "journals")
    await application.start()
    return application


@pytest.mark.usefixtures("application")
async def test_a_writer_that_a_failed_test_left_is_killed() -> None:
    (killed,) = Application.kill_all()

    assert killed.wait(timeout=10) == -signal.SIGKILL
    assert Application.kill_all() == []


async def test_a_writer_that_was_stopped_is_nobodys_to_kill(application: Application) -> None:
    await application.stop()

    assert Application.kill_all() == []


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
