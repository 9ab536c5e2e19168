"""The fake behaves as Linux 6.1 did, where it matters."""

from pathlib import Path

import pytest

from tests.unit.fakes.device_mapper import BUSY, MISSING, FakeDeviceMapper, FakeTable
from tests.unit.fakes.sysfs import namespace_of

TABLE = "0 8 multipath 3 queue_if_no_path queue_mode bio 0 1 1 round-robin 0 1 1 259:1 1"


@pytest.fixture
def mapper(tmp_path: Path) -> FakeDeviceMapper:
    (tmp_path / "dev").mkdir()
    for minor in (1, 2):
        namespace_of(tmp_path / "sys", (259, minor), f"nqn.{minor}", name=f"nvme{minor}n1")
    return FakeDeviceMapper(tmp_path / "sys", tmp_path / "dev")


def run(mapper: FakeDeviceMapper, *words: str) -> tuple[int, str]:
    result = mapper.run(["dmsetup", *words])
    return result.returncode, result.stdout + result.stderr


def create(mapper: FakeDeviceMapper, name: str, table: str = TABLE) -> tuple[int, str]:
    return run(mapper, "create", "--noudevsync", name, "--uuid", f"U-{name}", "--table", table)


RESUME = ("resume", "--uuid", "U-a", "--noflush", "--nolockfs", "--noudevsync")


def test_a_map_is_shown_where_the_kernel_shows_it(mapper: FakeDeviceMapper, tmp_path: Path) -> None:
    assert create(mapper, "a") == (0, "")
    entry = tmp_path / "sys/block/dm-0"
    assert (entry / "dm/uuid").read_text() == "U-a\n"
    assert (entry / "slaves/nvme1n1/dev").read_text() == "259:1\n"
    assert (tmp_path / "sys/dev/block/259:1/holders/dm-0").exists()
    assert (tmp_path / "sys/dev/block/253:0/size").read_text() == "8\n"
    assert (tmp_path / "dev/dm-0").exists()


def test_name_and_uuid_are_one_maps_but_not_the_device(mapper: FakeDeviceMapper) -> None:
    create(mapper, "a")
    assert BUSY in create(mapper, "a", TABLE.replace("259:1", "259:2"))[1]
    assert create(mapper, "b") == (0, "")
    assert MISSING in create(mapper, "c", TABLE.replace("259:1", "259:9"))[1]
    mapper.held.add((259, 2))
    assert BUSY in create(mapper, "c", TABLE.replace("259:1", "259:2"))[1]


def test_a_map_without_a_table_is_not_shown_and_has_its_name(
    mapper: FakeDeviceMapper, tmp_path: Path
) -> None:
    mapper.add("a", "U-a")
    assert not (tmp_path / "sys/block/dm-0").exists()
    assert BUSY in create(mapper, "a")[1]
    assert run(mapper, "remove", "--uuid", "U-a", "--noudevsync") == (0, "")
    assert create(mapper, "a") == (0, "")


def test_a_loaded_table_waits_for_resume(mapper: FakeDeviceMapper, tmp_path: Path) -> None:
    create(mapper, "a")
    other = TABLE.replace("259:1", "259:2").replace("0 8", "0 16", 1)
    assert run(mapper, "load", "--uuid", "U-a", "--table", other) == (0, "")
    assert "259:1" in run(mapper, "table", "--uuid", "U-a")[1]
    slaves = tmp_path / "sys/block/dm-0/slaves"
    assert sorted(each.name for each in slaves.iterdir()) == ["nvme1n1", "nvme2n1"]
    assert run(mapper, *RESUME) == (0, "")
    assert "259:2" in run(mapper, "table", "--uuid", "U-a")[1]
    assert [each.name for each in slaves.iterdir()] == ["nvme2n1"]
    assert (tmp_path / "sys/block/dm-0/size").read_text() == "16\n"


def test_a_lost_path_is_a_path_that_leads_nowhere(mapper: FakeDeviceMapper, tmp_path: Path) -> None:
    create(mapper, "a")
    mapper.lose((259, 1))
    assert "259:1 F 1" in run(mapper, "status", "--uuid", "U-a")[1]
    assert [each.exists() for each in (tmp_path / "sys/block/dm-0/slaves").iterdir()] == [False]
    assert mapper.holds((259, 1))


def test_what_is_in_use_is_not_removed(mapper: FakeDeviceMapper, tmp_path: Path) -> None:
    remove = ("remove", "--uuid", "U-a", "--noudevsync", "--retry")
    assert MISSING in run(mapper, *remove)[1]
    create(mapper, "a")
    mapper.open.add((253, 0))
    assert BUSY in run(mapper, *remove)[1]
    mapper.open.clear()
    assert run(mapper, *remove) == (0, "")
    assert list((tmp_path / "sys/block").iterdir()) == []
    assert not (tmp_path / "dev/dm-0").exists()
    assert not mapper.holds((259, 1))


def test_messages_and_tables_are_told_as_by_the_kernel(mapper: FakeDeviceMapper) -> None:
    create(mapper, "a")
    run(mapper, "message", "--uuid", "U-a", "0", "fail_if_no_path")
    assert " multipath 3 retain_attached_hw_handler " in run(mapper, "table", "--uuid", "U-a")[1]
    run(mapper, "message", "--uuid", "U-a", "0", "queue_if_no_path")
    assert " multipath 4 queue_if_no_path " in run(mapper, "table", "--uuid", "U-a")[1]
    mapper.add("b", "U-b")
    assert run(mapper, "table", "--uuid", "U-b") == (0, "")


def test_what_it_does_not_know_fails_the_test(mapper: FakeDeviceMapper) -> None:
    create(mapper, "a")
    with pytest.raises(AssertionError, match="unexpected: dmsetup suspend"):
        run(mapper, "suspend", "--uuid", "U-a")
    with pytest.raises(AssertionError, match="unexpected: dmsetup ls"):
        run(mapper, "ls")
    with pytest.raises(AssertionError, match="no such table"):
        FakeTable.parse("0 8 linear 7:0 0")
    mapper.targets = "striped v1\n"
    assert "Invalid argument" in create(mapper, "b")[1]
