"""Reading a line character by character: escapes, words, values, and the column of a fault."""

import pytest

from rds_csi.simulator.language.scanner import ParseFault, Scanner
from rds_csi.simulator.language.syntax import ArrayLiteral, Literal, Node, Text, Variable, Word


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ('""', Literal("")),
        ('"a b"', Literal("a b")),
        ('"\\" \\\\ \\$ \\n\\r\\t\\_\\a\\b\\f\\v"', Literal('" \\ $ \n\r\t \a\b\f\v')),
        ('"\\0A\\FFF"', Literal("\n\xffF")),
        ('"a$b-c"', Text((Literal("a"), Variable("b"), Literal("-c")))),
        ('"$a$b"', Text((Literal(""), Variable("a"), Literal(""), Variable("b"), Literal("")))),
        ("$a1", Variable("a1")),
        ('$"a b"', Variable("a b")),
        ("10.0.0.1/8,fd00::", Word("10.0.0.1/8,fd00::")),
        ("*2B", Word("*2B")),
        ("{}", ArrayLiteral(())),
        (
            '{ a ; "k" = 1 ;n=$v}',
            ArrayLiteral(((None, Word("a")), ("k", Word("1")), ("n", Variable("v")))),
        ),
        ('{"k"}', ArrayLiteral(((None, Literal("k")),))),
        ("{{1};2}", ArrayLiteral(((None, ArrayLiteral(((None, Word("1")),))), (None, Word("2"))))),
    ],
)
def test_values(text: str, node: Node) -> None:
    scanner = Scanner(text + " rest")
    assert scanner.value() == node
    assert scanner.line[scanner.position :] == " rest"


@pytest.mark.parametrize(
    ("text", "what", "column"),
    [
        ('"abc', "syntax error", 5),
        ('"a\\x"', "syntax error", 4),
        ('"\\0a"', "syntax error", 3),
        ('"\\', "syntax error", 3),
        ('"a$"', "syntax error", 3),
        ('"$-"', "syntax error", 3),
        ('$"a$b"', "syntax error", 7),
        ("$", "syntax error", 2),
        ("*xy", "expected item id", 1),
        ("***1", "expected item id", 1),
        ("&", "syntax error", 1),
        ("{1 2}", "syntax error", 4),
        ("{1", "syntax error", 3),
        ("{" * 41, "syntax error", 42),
    ],
)
def test_faults_name_their_column(text: str, what: str, column: int) -> None:
    with pytest.raises(ParseFault) as caught:
        Scanner(text).value()
    assert caught.value.message == f"{what} (line 1 column {column})"


def test_forty_levels_are_read_and_siblings_do_not_count() -> None:
    deep = "{" * 40 + "}" * 40
    assert isinstance(Scanner(deep).value(), ArrayLiteral)
    assert isinstance(Scanner("{" + ";".join(["{}"] * 60) + "}").value(), ArrayLiteral)


def test_take_and_expect_consume_only_what_stands_there() -> None:
    scanner = Scanner("ab")
    assert not scanner.take("b")
    assert scanner.take("a")
    with pytest.raises(ParseFault, match="column 2"):
        scanner.expect("c")
    scanner.expect("b")
    assert scanner.peek() == ""
