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
from rds_csi.model.volume import GIB, MAXIMUM_SIZE, MIB
from tests.unit.fakes.sysfs import HOST_NQN, OTHER_NQN, namespace_of

SIZE = 64 * MIB
NQN = "nqn.2000-02.com.mikrotik:pvc-1"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture(autouse=True)
def sysfs(tmp_path: Path) -> Path:
    """A regular file has the device number 0:0: it is the volume's namespace."""
    namespace_of(tmp_path / "sys", (0, 0), NQN)
    return tmp_path / "sys"


def words(path: Path, *command: object, devno: str = "0:0", **other: str) -> list[str]:
    whose = {"nqn": NQN, "host": HOST_NQN, "dm_uuid": probe.NO_MAP, **other}
    return [str(path.parent / "sys"), str(path), devno, *whose.values(), *map(str, command)]


def run(
    path: Path, *command: object, devno: str = "0:0", **other: str
) -> subprocess.CompletedProcess[str]:
    program = (
        sys.executable,
        "-I",
        "-S",
        "-B",
        probe.__file__,
        *words(path, *command, devno=devno, **other),
    )
    return subprocess.run(program, check=False, capture_output=True, text=True)


def inspect(path: Path) -> dict[str, object]:
    found = json.loads(run(path, "inspect").stdout)
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
    assert (found["size"], found["data"], found["superblock"]) == (SIZE, None, None)
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
    assert run(disk, "run", digest, "touch", proof).returncode == 0
    assert proof.exists()
    proof.unlink()
    with disk.open("r+b") as file:
        file.write(b"x")
    refused = run(disk, "run", digest, "touch", proof)
    assert refused.returncode == probe.CHANGED
    assert "has changed" in refused.stderr
    assert not proof.exists()


def test_the_program_keeps_the_device_open_and_its_own_status(disk: Path) -> None:
    digest = inspect(disk)["digest"]
    listing = run(disk, "run", digest, "ls", "-l", "/proc/self/fd")
    assert str(disk) in listing.stdout
    assert run(disk, "run", digest, "sh", "-c", "exit 7").returncode == 7


COMMANDS = (("inspect",), ("claim",), ("run", "-", "touch", "ran"))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"devno": "259:3"}, "not 259:3"),
        ({"nqn": f"{NQN}2"}, f"now that of {NQN}"),
        ({"host": OTHER_NQN}, "another host NQN"),
    ],
)
def test_another_device_or_another_owner_is_refused(
    disk: Path, command: tuple[str, ...], other: dict[str, str], why: str
) -> None:
    refused = run(disk, *command, **other)
    assert refused.returncode == probe.OTHER
    assert why in refused.stderr
    assert refused.stdout == ""
    assert not Path("ran").exists()


def test_a_map_is_proven_by_its_uuid_and_by_all_that_it_leads_to(tmp_path: Path) -> None:
    """Two of its own devices are fine; another's, or none, is not, whatever the map's name."""
    sys, uuid = str(tmp_path / "sys"), "RDSCSI-00000000-pvc-1.3"
    for minor, nqn in ((1, NQN), (2, NQN), (3, "nqn.b")):
        namespace_of(tmp_path / "sys", (259, minor), nqn, name=f"nvme{minor}n1")
    slaves = tmp_path / "sys/dev/block/253:0/slaves"
    slaves.mkdir(parents=True)
    (slaves.parent / "dm").mkdir()
    (slaves.parent / "dm/uuid").write_text(f"{uuid}\n")

    def lead_to(*minors: int) -> None:
        for link in slaves.iterdir():
            link.unlink()
        for minor in minors:
            block = (tmp_path / f"sys/dev/block/259:{minor}").resolve()
            (slaves / f"nvme{minor}n1").symlink_to(block)

    def prove(dm_uuid: str = uuid, nqn: str = NQN, host: str = HOST_NQN) -> None:
        probe.prove(sys, "253:0", nqn, host, dm_uuid)

    for right in ((1,), (1, 2)):
        lead_to(*right)
        prove()
    with pytest.raises(probe.Refused, match=f"is now {uuid}"):
        prove(f"{uuid}1")
    with pytest.raises(probe.Refused, match="another host NQN"):
        prove(host=OTHER_NQN)
    with pytest.raises(probe.Refused, match="is now that of"):
        prove(nqn="nqn.b")
    with pytest.raises(probe.Refused, match="is now that of no NVMe"):
        prove(probe.NO_MAP)
    for wrong, why in (((), "no device"), ((1, 3), r"now that of nqn\.b"), ((9,), "any more")):
        lead_to(*wrong)
        with pytest.raises(probe.Refused, match=why):
            prove()
    with pytest.raises(probe.Refused, match="is now no map"):
        probe.prove(sys, "259:1", NQN, HOST_NQN, uuid)


@pytest.mark.parametrize("command", ["inspect"])
def test_a_device_that_changed_hands_meanwhile_is_refused(
    disk: Path, sysfs: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    original = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        (sysfs / "devices/nvme-subsys0/subsysnqn").write_text("nqn.b")
        return original(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert probe.main(words(disk, command)) == probe.OTHER


def test_a_claim_touches_nothing_of_another(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To hold another volume's device alone, for a moment even, would fail its mount."""
    flags: list[int] = []
    original: Callable[..., int] = os.open

    def record(path: str, how: int) -> int:
        flags.append(how)
        return original(path, how)

    monkeypatch.setattr(os, "open", record)
    assert probe.main(words(disk, "claim", nqn="nqn.b")) == probe.OTHER
    assert not any(how & os.O_EXCL for how in flags)
    assert probe.main(words(disk, "claim")) == 0
    assert any(how & os.O_EXCL for how in flags)


@pytest.mark.parametrize("command", [("inspect",), ("run", "-", "true")])
def test_all_is_read_directly_past_the_page_cache(
    disk: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """The cache may still hold what the device does not, from before an outage."""
    opened: list[bool] = []
    original: Callable[..., int] = os.open

    def record(path: str, flags: int) -> int:
        if path == str(disk):
            opened.append(bool(flags & os.O_DIRECT))
        return original(path, flags)

    monkeypatch.setattr(os, "open", record)
    monkeypatch.setattr(os, "execvp", lambda *_: None)
    probe.main(words(disk, *command))
    assert opened == [True]


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no direct reads")
def test_the_reads_of_the_program_are_direct_for_the_kernel(disk: Path) -> None:
    """The flag that the descriptor has in the kernel, seen in the program it is handed to."""
    info = run(disk, "run", "-", "sh", "-c", "cat /proc/self/fdinfo/3").stdout
    flags = int(info.split("flags:")[1].split()[0], 8)
    assert flags & os.O_DIRECT


def test_errors_are_errors(tmp_path: Path) -> None:
    missing = run(tmp_path / "none", "inspect")
    assert (missing.returncode, missing.stdout) == (probe.OTHER, "")
    assert "No such file" in missing.stderr
    (tmp_path / "directory").mkdir()
    assert run(tmp_path / "directory", "inspect").returncode == probe.ERROR
    assert run(tmp_path / "none", "claim").returncode == 0


def test_a_missing_program_is_named(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = run(disk, "run", "-", "no-such-program")
    assert (missing.returncode, missing.stderr) == (probe.MISSING, "no-such-program\n")
    monkeypatch.setenv("PATH", "/nowhere")
    assert probe.main(words(disk, "inspect")) == probe.MISSING


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
    assert probe.main(words(disk, "inspect")) == probe.ERROR
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
    assert probe.main(words(disk, "claim")) == status


def test_a_device_without_direct_reads_is_read_otherwise(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., int] = os.open

    def no_direct(path: str, flags: int, *more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return original(path, flags, *more)

    monkeypatch.setattr(os, "open", no_direct)
    assert probe.main(words(disk, "inspect")) == 0


def test_it_needs_nothing_but_the_standard_library() -> None:
    assert "rds_csi" not in Path(probe.__file__).read_text().replace("rds_csi/", "")
