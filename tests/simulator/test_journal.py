"""The journal: what was asked, what ran of it, and how many in all."""

from rds_csi.simulator import journal
from rds_csi.simulator.journal import Journal


def test_an_exec_is_numbered_and_begins_as_running() -> None:
    found = Journal()
    first, second = found.begin(":put 1"), found.begin(":put 2")
    assert (first.number, second.number) == (1, 2)
    assert first.outcome == "running"
    assert found.since(1) == [second]
    assert found.since(0) == [first, second]


def test_what_ran_is_counted_at_the_end() -> None:
    found = Journal()
    record = found.begin("/disk/print; /disk/print; /disk/get x")
    record.enter("/disk/print", {})
    record.enter("/disk/print", {})
    record.enter("/disk/get", {"numbers": "x"})
    assert found.commands == {}
    found.end(record)
    assert found.commands == {"/disk/print": 2, "/disk/get": 1}


def test_only_the_latest_are_there_but_all_are_counted() -> None:
    found = Journal()
    for number in range(journal._LATEST + 5):
        found.begin(f":put {number}")
    assert found.count == journal._LATEST + 5
    assert len(found.execs) == journal._LATEST
    assert found.execs[0].number == 6
    assert [each.number for each in found.since(found.count - 1)] == [found.count]


def test_as_json_for_other_processes() -> None:
    found = Journal()
    found.begin("before")
    record = found.begin("/disk/get x")
    record.parsed.append("/disk/get")
    record.enter("/disk/get", {"numbers": "x"})
    record.outcome, record.output, record.fault = "ok", "text", "garbage"
    assert found.as_json(since=1) == [
        {
            "number": 2,
            "line": "/disk/get x",
            "parsed": ["/disk/get"],
            "executed": [{"name": "/disk/get", "arguments": {"numbers": "x"}}],
            "outcome": "ok",
            "output": "text",
            "fault": "garbage",
        }
    ]
