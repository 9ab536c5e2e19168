"""The simulator's parser: what it takes, what it refuses, and that a refused line does nothing."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rds_csi.simulator import Simulator
from rds_csi.simulator.language.grammar import Grammar, MenuNode
from rds_csi.simulator.language.parser import parse
from rds_csi.simulator.language.scanner import ParseFault

settings.register_profile("box", deadline=None, max_examples=50)
BOX = settings.get_profile("box")
EMPTY = Grammar((7, 24), MenuNode(), {})

# The escape rules of the RouterOS scripting manual, written down a second time on purpose.
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\", "$": "\\$"}


def quoted(text: str) -> str:
    return '"' + "".join(NAMED.get(char, char) for char in text) + '"'


def hexadecimal(text: str) -> str:
    return '"' + "".join(f"\\{byte:02X}" for byte in text.encode()) + '"'


class Box:
    """A simulator that is driven line by line from synchronous tests."""

    def __init__(self, root: Path) -> None:
        self._runner = asyncio.Runner()
        self.simulator = Simulator(root, pools={"raid10": 2**40})
        self.simulator.make_directory("raid10/csi")

    def run(self, line: str) -> str:
        return self._runner.run(self.simulator.run(line))

    def outcome(self) -> str:
        return self.simulator.journal.execs[-1].outcome

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = Box(tmp_path_factory.mktemp("rds"))
    yield box
    box.close()


ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@BOX
@given(text=ANY_TEXT)
@example(text='"; /disk/remove [find]; :put "')
@example(text="$[/disk/remove [find]]")
@example(text="$(1 + 1) $x \\")
@example(text="\\\\\\")
@example(text="[ ] { } ; # ~ ( )")
def test_quoted_text_arrives_verbatim(box: Box, text: str) -> None:
    assert box.run(f":put {quoted(text)}") == text + "\r\n"
    assert box.simulator.journal.execs[-1].parsed == [":put"]


@BOX
@given(text=ANY_TEXT)
def test_hexadecimal_text_arrives_verbatim(box: Box, text: str) -> None:
    assert box.run(f":put {hexadecimal(text)}") == text + "\r\n"


@BOX
@given(text=ANY_TEXT)
def test_quoted_text_arrives_verbatim_in_a_property(box: Box, text: str) -> None:
    if not box.simulator.disks:
        box.run("/disk/add type=file slot=q file-path=raid10/csi/q.img file-size=1M")
    assert box.run(f"/disk/set [find where slot=q] comment={quoted(text)}") == ""
    assert box.run(":put [/disk/get q comment]") == text + "\r\n"
    assert box.run(f":put [:len [/disk/find where slot=q comment={quoted(text)}]]") == "1\r\n"


PIECES = st.sampled_from(
    [
        *'";{}[]()$\\=~!<>+-*/,.:#& \n\r\t',
        ":put",
        ":if",
        "do=",
        "/disk/",
        "remove",
        "[find]",
        "where",
        "slot=a",
        "file-size=1",
        "and",
        "x",
        "1",
        "->",
        ":onerror e in=",
        "\x00",
        "é",
    ]
)
CHANGES = ('/disk/set a comment="changed"', "/disk/remove a", ':global g "x"')


def state(simulator: Simulator) -> object:
    disks = {slot: (disk.size, dict(disk.properties)) for slot, disk in simulator.disks.items()}
    return disks, dict(simulator.device.globals), dict(simulator.files)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = Box(tmp_path_factory.mktemp("changed"))
    yield box
    box.close()


@BOX
@given(
    before=st.sampled_from(CHANGES),
    garbage=st.lists(PIECES, min_size=1, max_size=12).map("".join),
    after=st.sampled_from(CHANGES),
)
@example(before=CHANGES[0], garbage="}", after=CHANGES[1])
@example(before=CHANGES[0], garbage='"', after=CHANGES[1])
@example(before=CHANGES[0], garbage=":nope", after=CHANGES[1])
def test_a_refused_line_has_no_effect_whatever_is_around(
    changed: Box, before: str, garbage: str, after: str
) -> None:
    if "a" not in changed.simulator.disks:
        changed.run("/disk/add type=file slot=a file-path=raid10/csi/a.img file-size=1M")
    # A line end would make several lines of it, each of which stands for itself.
    garbage = garbage.replace("\n", " ").replace("\r", " ")
    unchanged = state(changed.simulator)
    changed.run(f"{before}; {garbage}; {after}")
    record = changed.simulator.journal.execs[-1]
    if record.outcome == "parse-error":
        assert record.executed == []
        assert state(changed.simulator) == unchanged


VALID = (
    ':onerror e in={ :local d [/disk/find where slot="a" and size>5]; :if ([:len $d] = 0) do={ '
    '/disk/add type=file slot="a" file-path="raid10/csi/a.img" file-size=1048576 } else={ '
    '/disk/set $d comment="x\\$y" }; :put ("OK" . 1) } do={ :put "ERR $e" }'
)


def test_every_truncation_of_a_line_is_refused_without_effect(box: Box) -> None:
    for length in range(1, len(VALID)):
        line = VALID[:length]
        execs = box.simulator.journal.count
        box.run(line)
        record = box.simulator.execs(execs)[0]
        assert record.outcome == "parse-error", line
        assert not record.executed, line
    assert "a" not in box.simulator.disks
    assert box.run(VALID) == "OK1\r\n"
    assert box.run("/disk/remove a") == ""


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("/nope", "bad command name nope (line 1 column 2)"),
        ("/disk/nope", "bad command name nope (line 1 column 7)"),
        ("/disk nope", "bad command name nope (line 1 column 7)"),
        ("/disk/monitor-once 0", "bad command name monitor-once (line 1 column 7)"),
        (":nope", "bad command name nope (line 1 column 2)"),
        ("/interface/nvme-tcp/print", "bad command name interface (line 1 column 2)"),
        ("/disk/add nope=1", "expected end of command (line 1 column 11)"),
        ("/disk/set a size=5", "expected end of command (line 1 column 13)"),
        ("/disk/set a slot-default=x", "expected end of command (line 1 column 13)"),
        ("/disk/add type=file stray", "expected end of command (line 1 column 21)"),
        ("/disk/print where nope=1", "expected end of command (line 1 column 19)"),
        # A flag that is given a value is refused at its "=" (seen on 7.20.8 with /export).
        ("/disk/print detail=yes", "expected end of command (line 1 column 19)"),
        ("/system/resource/print once", "bad parameter once (line 1 column 24)"),
        (':put "a', "syntax error (line 1 column 8)"),
        (':put "\\q"', "syntax error (line 1 column 8)"),
        (':put "\\?"', "syntax error (line 1 column 8)"),
        (':put "\\e2"', "syntax error (line 1 column 8)"),
        (':put "5$"', "syntax error (line 1 column 8)"),
        (':put "a$"b""', "syntax error (line 1 column 8)"),
        ("/disk/set a comment=", "syntax error (line 1 column 21)"),
        ("/disk/set a comment= slot=b", "syntax error (line 1 column 21)"),
        ("/disk/set a comment=a\\b", "expected end of command (line 1 column 22)"),
        ("/disk/remove *zz", "expected item id (line 1 column 14)"),
        (":if (1 = 1) do={ :put 1", "syntax error (line 1 column 24)"),
        (":put [:put 1", "syntax error (line 1 column 13)"),
        (":put (1 +", "syntax error (line 1 column 10)"),
        (":put 1 2", "expected end of command (line 1 column 8)"),
        (":put 1; }", "syntax error (line 1 column 9)"),
        (":set x 1", "syntax error (line 1 column 6)"),
        (":local 1x 1", "expected variable name (line 1 column 8)"),
        (":local a_b 1", "syntax error (line 1 column 9)"),
        ("\x00", "syntax error (line 1 column 1)"),
    ],
)
def test_refusals(box: Box, line: str, text: str) -> None:
    assert box.run(line) == text + "\n"
    assert box.outcome() == "parse-error"


def test_a_parse_error_cannot_be_caught(box: Box) -> None:
    for inner in ("/disk/add nope=1", ":nope", "/nope/print", ':put "\\q"'):
        output = box.run(f":onerror e in={{ {inner} }} do={{ :put caught }}")
        assert "caught" not in output
        assert box.outcome() == "parse-error"


@pytest.mark.parametrize(
    "line",
    [
        "/disk/print",
        "/disk print",
        "/ disk print",
        "/disk/print detail where type=raid",
        "/disk print detail where type = raid",
        "  /disk/print  ;  ; ",
        "/disk; print",
        "/disk { print; print }",
        "{ /disk/print }",
        "put [/disk print as-value]",
        ":if (1=1) do={:put 1}else={:put 2}",
        "# only a comment",
        "",
        ":put 1; # comment",
    ],
)
def test_forms_that_are_taken(box: Box, line: str) -> None:
    box.run(line)
    assert box.outcome() == "ok"


def test_both_path_forms_are_the_same_command(box: Box) -> None:
    for line in ("/disk/print", "/disk print", "/disk; print"):
        box.run(line)
        assert box.simulator.journal.execs[-1].parsed == ["/disk/print"]


def test_find_in_brackets_means_the_menu_of_the_command(box: Box) -> None:
    box.run("/disk/set [find where slot=none] comment=x")
    assert box.simulator.journal.execs[-1].parsed == ["/disk/set", "/disk/find"]
    box.run("/file/remove [find where name=none]")
    assert box.simulator.journal.execs[-1].parsed == ["/file/remove", "/file/find"]


def test_nesting_has_an_end() -> None:
    for line in ("(" * 5000, "{" * 5000, ":put " + "[" * 5000, "a" + "{;" * 3000):
        with pytest.raises(ParseFault):
            parse(line, EMPTY)


def test_a_long_chain_of_operators_does_no_harm(box: Box) -> None:
    box.run(":put (" + "1 + " * 3000 + "1)")
    assert box.run(":put alive") == "alive\r\n"


@BOX
@given(line=st.text(max_size=80))
def test_no_text_breaks_the_parser(line: str) -> None:
    with contextlib.suppress(ParseFault):
        parse(line.encode("utf-8", "surrogatepass").decode("latin-1"), EMPTY)
