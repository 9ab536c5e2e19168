"""``rds-csi volumes`` as a person and a program see it; the command whole: tests/rds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rds_csi.cli import volumes
from rds_csi.cli.orphans import Orphan
from rds_csi.cli.volumes import Report, Row
from rds_csi.config import ConfigurationError
from tests.unit.cli.test_orphans import NODE, A, cluster, disk


def shown(report: Report, width: int = 100) -> str:
    lines: list[str] = []
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        volumes.show(report, console, lines.append)
    return capture.get() + "\n".join(lines)


def test_a_row_says_who_has_it_and_for_which_claim() -> None:
    text = shown(Report([Row.of(disk(A, NODE), cluster(A))]))
    assert A in text
    assert "worker-1" in text
    assert NODE not in text, "the tag of the cluster is for programs"
    assert "shop/data" in text
    assert "1 volume, 1.0 GiB" in text
    assert "CLAIM" not in shown(Report([Row.of(disk(A, NODE), None)]))


def test_without_the_cluster_the_record_says_for_which_claim_it_was_made() -> None:
    made = disk(A, NODE)
    assert made.record is not None
    named = replace(made, record=made.record.made_for("shop", "data-0"))
    assert "shop/data-0" in shown(Report([Row.of(named, None)]))
    # What it is bound to now is what Kubernetes says.
    assert Row.of(named, cluster(A)).claim == "shop/data"


def test_what_is_wrong_is_said_below_the_table() -> None:
    text = shown(Report([Row.of(disk(A, size=0), None)]))
    assert f"{A}: BackingFileUnavailable: the RDS shows no size" in text


def test_ids_are_whole_on_a_narrow_terminal() -> None:
    assert A in shown(Report([Row.of(disk(A, NODE), cluster(A))]), width=60)


def test_no_volume_and_no_orphan_are_said() -> None:
    assert shown(Report([], [])) == (
        "No volume of this cluster is on the RDS.\nNothing without an owner was found."
    )
    assert "owner" not in shown(Report([]))


def test_an_orphan_has_its_lines() -> None:
    text = shown(Report([], [Orphan("a.img", "nobody's", ("# look", "/file/print"))]))
    assert "a.img: nobody's\n    # look\n    /file/print" in "".join(text.replace("\n\n", "\n"))


def test_programs_get_all_of_it() -> None:
    report = json.loads(volumes.as_json(Report([Row.of(disk(A, NODE), cluster(A))], [])))
    [row] = report["volumes"]
    assert (row["volume"], row["size"], row["nodes"]) == (A, 1024**3, ["worker-1"])
    assert (row["claim"], row["exported"], row["problems"]) == ("shop/data", True, [])
    assert report["orphans"] == []
    assert "orphans" not in json.loads(volumes.as_json(Report([])))


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "No such file"), (b"\xff\xfe", "it is no text"), (b"{}", "it is no list")],
)
def test_a_file_that_is_none_of_kubectls(tmp_path: Path, content: bytes | None, what: str) -> None:
    file = tmp_path / "pv.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"--pv-file .*{what}"):
        volumes.read_cluster(file, "csi.rds-csi.io")


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pv.json"
    with file.open("wb") as large:
        large.truncate(65 * 1024**2)
    with pytest.raises(ConfigurationError, match="larger than 64 MiB"):
        volumes.read_cluster(file, "csi.rds-csi.io")
