"""What is there is read, and what is not there is nothing."""

from pathlib import Path

import pytest

from rds_csi.runtime.attributes import children, device_number, read


def test_what_is_there_is_read(tmp_path: Path) -> None:
    (tmp_path / "size").write_bytes(b"2048\n")
    (tmp_path / "odd").write_bytes(b"\xff\n")
    assert sorted(children(str(tmp_path))) == ["odd", "size"]
    assert read(f"{tmp_path}/size") == "2048"
    assert read(f"{tmp_path}/odd") == "\N{REPLACEMENT CHARACTER}"


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert children(f"{tmp_path}/gone") == []
    assert read(f"{tmp_path}/gone") == ""
    assert read(str(tmp_path)) == "", "a directory cannot be read"


@pytest.mark.parametrize(
    ("text", "number"),
    [("259:1\n", (259, 1)), ("259\n", None), ("259:\n", None), ("a:1", None), ("", None)],
)
def test_a_device_number_is_two_numbers(
    tmp_path: Path, text: str, number: tuple[int, int] | None
) -> None:
    (tmp_path / "dev").write_text(text)
    assert device_number(str(tmp_path)) == number


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "size").write_text("1")
    before = len(children("/proc/self/fd"))
    for _ in range(20):
        assert read(f"{tmp_path}/size") == "1"
        assert read(str(tmp_path)) == ""
    assert len(children("/proc/self/fd")) == before
