"""The device's files: where a name leads, what they take of a pool, and what is refused."""

import os
from pathlib import Path

import pytest

from rds_csi.simulator.device.faults import Quirks
from rds_csi.simulator.device.files import INTERNAL_SIZE, Files, normalise
from rds_csi.simulator.device.store import Pool, Store
from rds_csi.simulator.language.values import RuntimeFault

MIB = 2**20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    found.add_pool("raid10", 16 * MIB)
    return found


@pytest.fixture
def pool(store: Store) -> Pool:
    [found] = store.pools.values()
    return found


@pytest.fixture
def quirks() -> Quirks:
    return Quirks()


@pytest.fixture
def files(tmp_path: Path, store: Store, quirks: Quirks) -> Files:
    return Files(tmp_path, store, quirks)


@pytest.mark.parametrize(("path", "name"), [("/raid10/a", "raid10/a"), ("raid10", "raid10")])
def test_names_have_no_leading_slash(path: str, name: str) -> None:
    assert normalise(path) == name


@pytest.mark.parametrize("path", ["", "/", "a//b", "a/../b", "./a", "a/", "a\0b", ".."])
def test_names_that_lead_astray(path: str) -> None:
    with pytest.raises(RuntimeFault, match="bad file name"):
        normalise(path)


def test_a_file_lies_on_its_pool_and_elsewhere_while_that_is_not_mounted(
    files: Files, pool: Pool, tmp_path: Path
) -> None:
    assert files.path("raid10/a") == tmp_path / "raid10/a"
    assert files.path("note") == tmp_path / "internal/note"
    assert files.path("raid100/a") == tmp_path / "internal/raid100/a"
    pool.mounted = False
    assert files.path("raid10/a") == tmp_path / "internal/raid10/a"


def test_space_is_taken_in_full_and_given_back(files: Files, pool: Pool) -> None:
    files.create("raid10/a", 10 * MIB)
    assert files.path("raid10/a").stat().st_blocks == 0
    assert files.free(pool) == 6 * MIB
    with pytest.raises(RuntimeFault, match="not enough space"):
        files.create("raid10/b", 7 * MIB)
    assert not files.exists("raid10/b")
    files.resize("raid10/a", 16 * MIB)
    assert files.free(pool) == 0
    files.resize("raid10/a", MIB)
    assert files.free(pool) == 15 * MIB
    files.remove("raid10/a")
    assert files.free(pool) == 16 * MIB


def test_a_device_that_does_not_preallocate(files: Files, pool: Pool, quirks: Quirks) -> None:
    quirks.preallocate = False
    files.create("raid10/a", 64 * MIB)
    assert files.free(pool) == 16 * MIB
    files.path("raid10/a").write_bytes(os.urandom(MIB))
    assert files.free(pool) <= 15 * MIB


def test_what_a_fault_fills_counts_and_free_is_never_negative(files: Files, pool: Pool) -> None:
    pool.filled = 10 * MIB
    assert files.free(pool) == 6 * MIB
    pool.filled = 20 * MIB
    assert files.free(pool) == 0
    assert files.free(None) == INTERNAL_SIZE


def test_an_existing_file_is_taken_over_with_its_content(files: Files, pool: Pool) -> None:
    files.create("raid10/a", 3)
    files.path("raid10/a").write_bytes(b"old")
    files.create("raid10/a", MIB)
    assert files.path("raid10/a").read_bytes()[:4] == b"old\0"
    assert files.free(pool) == 15 * MIB


def test_folders_have_to_be_there_unless_the_device_makes_them(
    files: Files, quirks: Quirks
) -> None:
    with pytest.raises(RuntimeFault, match="no such directory"):
        files.create("raid10/x/a", 1)
    with pytest.raises(RuntimeFault, match="no such directory"):
        files.add_directory("raid10/x/y")
    quirks.create_directories = True
    files.create("raid10/x/a", 1)
    with pytest.raises(RuntimeFault, match="already exists"):
        files.add_directory("raid10/x")


def test_nothing_is_written_over(files: Files) -> None:
    files.write("raid10/a", b"one", new=True)
    files.write("raid10/b", b"two", new=True)
    for change in (
        lambda: files.write("raid10/a", b"x", new=True),
        lambda: files.rename("raid10/b", "raid10/a"),
        lambda: files.copy("raid10/b", "raid10/a"),
    ):
        with pytest.raises(RuntimeFault, match="already exists"):
            change()
    assert files.path("raid10/a").read_bytes() == b"one"
    files.write("raid10/a", b"x", new=False)
    assert files.path("raid10/a").read_bytes() == b"x"


def test_a_copy_has_the_bytes_and_the_holes(files: Files, pool: Pool) -> None:
    files.create("raid10/a", 8 * MIB)
    with files.path("raid10/a").open("r+b") as file:
        file.seek(4 * MIB)
        file.write(b"middle")
    files.copy("raid10/a", "raid10/b")
    assert files.path("raid10/b").read_bytes() == files.path("raid10/a").read_bytes()
    assert files.path("raid10/b").stat().st_blocks < 1000
    assert files.free(pool) == 0
    with pytest.raises(RuntimeFault, match="not enough space"):
        files.copy("raid10/a", "raid10/c")


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (b"XFSB", "xfs"),
        (bytes(0x438) + b"\x53\xef", "ext4"),
        (bytes(0x438) + b"\x53\xee", ""),
        (b"\0XFSB", ""),
        (b"", ""),
    ],
)
def test_a_file_system_is_known_by_its_superblock(files: Files, start: bytes, found: str) -> None:
    files.write("raid10/a", start, new=True)
    assert files.file_system("raid10/a") == found
    assert files.file_system("raid10/none") == ""


def test_the_listing_has_folders_before_what_is_in_them_and_no_links(
    files: Files, pool: Pool
) -> None:
    files.add_directory("raid10/d")
    files.write("raid10/d/a.img", b"12", new=True)
    files.write("raid10/.hidden", b"", new=True)
    files.write("plain", b"", new=True)
    files.path("raid10/link").symlink_to("/")
    assert [(each.name, each.type, each.size) for each in files.entries()] == [
        ("raid10", "disk", None),
        ("raid10/.hidden", "file", 0),
        ("raid10/d", "directory", None),
        ("raid10/d/a.img", ".img file", 2),
        ("plain", "file", 0),
    ]
    pool.mounted = False
    assert [each.name for each in files.entries()] == ["plain"]
    assert files.entry("raid10/d/a.img") is None


def test_a_folder_goes_with_all_that_is_in_it(files: Files, pool: Pool) -> None:
    files.add_directory("raid10/d")
    files.create("raid10/d/a", MIB)
    files.remove("raid10/d")
    assert not files.exists("raid10/d/a")
    assert files.free(pool) == 16 * MIB
    files.remove("raid10/d")


def test_holes_give_room_and_go_with_the_file(files: Files, pool: Pool) -> None:
    files.create("raid10/a", 8 * MIB)
    files.punch("raid10/a", MIB, 2 * MIB)
    assert files.free(pool) == 10 * MIB
    # What was written is no hole, however often it was discarded before.
    files.path("raid10/a").write_bytes(os.urandom(7 * MIB) + bytes(MIB))
    assert files.free(pool) == 8 * MIB
    # The bytes are gone, and the room is back.
    files.punch("raid10/a", 0, 4 * MIB)
    assert files.path("raid10/a").read_bytes()[: 4 * MIB] == bytes(4 * MIB)
    assert files.free(pool) == 12 * MIB
    files.rename("raid10/a", "raid10/b")
    assert files.free(pool) == 12 * MIB
    files.remove("raid10/b")
    assert files.free(pool) == 16 * MIB
    files.create("raid10/b", 8 * MIB)
    assert files.free(pool) == 8 * MIB


def test_holes_go_and_come_with_the_folder(files: Files, pool: Pool) -> None:
    files.add_directory("raid10/d")
    files.create("raid10/d/a", 8 * MIB)
    files.punch("raid10/d/a", 0, 4 * MIB)
    files.rename("raid10/d", "raid10/e")
    assert files.free(pool) == 12 * MIB
    files.remove("raid10/e")
    files.add_directory("raid10/e")
    files.create("raid10/e/a", 8 * MIB)
    assert files.free(pool) == 8 * MIB


def test_files_that_take_their_space_here_too_show_their_holes(
    files: Files, pool: Pool, quirks: Quirks
) -> None:
    quirks.allocate = True
    files.create("raid10/a", 8 * MIB)
    assert files.path("raid10/a").stat().st_blocks * 512 >= 8 * MIB
    taken = files.free(pool)
    assert taken <= 8 * MIB
    files.punch("raid10/a", 0, 4 * MIB)
    assert files.free(pool) == taken + 4 * MIB
    # What is written again takes its room again: nobody has to count.
    with files.path("raid10/a").open("r+b") as file:
        os.pwrite(file.fileno(), os.urandom(MIB), 0)
        file.flush()
        os.fsync(file.fileno())
    assert files.free(pool) == taken + 3 * MIB


def test_a_punch_that_is_refused_is_told(files: Files) -> None:
    files.create("raid10/a", MIB)
    with pytest.raises(OSError, match="Invalid argument"):
        files.punch("raid10/a", 0, 0)
