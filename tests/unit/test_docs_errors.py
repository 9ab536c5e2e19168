"""``docs/errors.md``: each class, each code and each place of a final code, or it fails."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from docs import error_codes, generate
from docs.error_codes import Unexplained
from rds_csi.errors import Code


@pytest.fixture
def table() -> dict[str, Any]:
    return tomllib.loads((generate.DOCS / "errors-table.toml").read_text())


def test_every_class_of_error_is_there_with_its_code_and_every_code_with_its_callers(
    table: dict[str, Any],
) -> None:
    text = error_codes.page(table, error_codes.raised(generate.PACKAGE))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    told = {cells[0].strip("`"): cells[-1] for cells in rows}
    for name, kind in error_codes.KINDS.items():
        assert told[name] == Code(kind.code).name
        assert Code(kind.code).name in table["code"]
    assert {len(each["cells"]) for each in table["code"].values()} == {len(table["caller"])}


def test_every_place_that_raises_a_doubtful_code_is_found(tmp_path: Path) -> None:
    (tmp_path / "doctor").mkdir()
    (tmp_path / "doctor" / "x.py").write_text("raise Internal('speaks for itself')")
    (tmp_path / "errors.py").write_text("Internal('no place')")
    (tmp_path / "a.py").write_text(
        """
def f():
    raise errors.NotOurs("a")
def g():
    return NotReady("b") if x else Unavailable("open, so not asked for")
x = SizeOutOfRange("final, but of the request")
"""
    )
    assert error_codes.raised(tmp_path) == {"a.py": {"NotOurs", "NotReady"}}


def test_a_doubtful_code_that_nobody_has_thought_about_fails(table: dict[str, Any]) -> None:
    found = error_codes.raised(generate.PACKAGE)
    with pytest.raises(Unexplained, match=r"^new.py raises Internal: why may it be final\?"):
        error_codes.page(table, found | {"new.py": {"Internal"}})
    del found["node/publish.py"]
    with pytest.raises(Unexplained, match=r"node/publish.py raises no FailedPrecondition"):
        error_codes.page(table, found)


def test_a_code_without_its_consequences_fails(table: dict[str, Any]) -> None:
    del table["code"]["ABORTED"]
    with pytest.raises(Unexplained, match=r"^ABORTED: nothing says what the callers do"):
        error_codes.page(table, error_codes.raised(generate.PACKAGE))


def test_what_is_open_is_the_same_in_the_table_and_in_the_code(table: dict[str, Any]) -> None:
    table["code"]["INTERNAL"]["cells"][0] = "open: so it says"
    with pytest.raises(Unexplained, match="INTERNAL is said to be open"):
        error_codes.page(table, error_codes.raised(generate.PACKAGE))
