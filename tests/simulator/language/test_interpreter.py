"""The RouterOS script language in the simulator, as measured on 7.21 and later by others."""

import asyncio
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator


async def put(tmp_path: Path, line: str, **quirks: object) -> str:
    """What a line prints, line ends as plain ones."""
    simulator = Simulator(tmp_path)
    for name, value in quirks.items():
        setattr(simulator.quirks, name, value)
    return (await simulator.run(line)).replace("\r\n", "\n").rstrip("\n")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("(1 + 2 * 3)", "7"),
        ("(10 / 3)", "3"),
        ("(-10 / 3)", "-3"),
        ("(10 % 3)", "1"),
        ("(9223372036854775807 + 1)", "-9223372036854775808"),
        ('("5" + 10)', "15"),
        ("($nothing + 1)", "1"),
        ('("a" . 1 . true)', "a1true"),
        ('($nothing . "text")', "text"),
        ('("abc" = "abc")', "true"),
        ('("abc" != "abc")', "false"),
        ('(5 = "5")', "true"),
        ("(true = 1)", "false"),
        ('("" = $nothing)', "false"),
        ("(1 < 2 && 2 < 1)", "false"),
        ("(1 < 2 and 2 >= 2)", "true"),
        ("(false || true)", "true"),
        ("(!true)", "false"),
        ('("hello" ~ "hel.*")', "true"),
        ('("hello" ~ "^ello")', "false"),
        ('("a1" ~ "^[[:alpha:]][[:digit:]]\\$")', "true"),
        ('("192.168.1.1" ~ "192\\\\.168")', "true"),
        ("(192.168.1.1 in 192.168.0.0/16)", "true"),
        ("(10.0.0.1 in 192.168.0.0/16)", "false"),
        ("({1;2},{3;4})", "1;2;3;4"),
        ('({"b"=1;"a"={2;3}})', "a=2;3;b=1"),
        ('({"a"={"b"="c"}}->"a"->"b")', "c"),
        ("[:len ({})]", "0"),
        ("[:typeof ({})]", "array"),
        ("[:typeof []]", "nil"),
        ("[:typeof $none]", "nothing"),
        ('[:typeof ({"a"=1}->"b")]', "nothing"),
        ("[:typeof ({1}->7)]", "nil"),
        ('[:typeof [:find "abc" "x"]]', "nil"),
        ('[:find "find the needle here" "needle"]', "9"),
        ("[:find {1;5;9} 5]", "1"),
        ('[:tonum "123"]', "123"),
        ('[:typeof [:tonum "23.8"]]', "nil"),
        ('[:typeof [:tonum " 1 "]]', "nil"),
        ("[:typeof [:tonum true]]", "nil"),
        ("[:tobool 1]", "true"),
        ('[:typeof [:tobool "yes"]]', "nil"),
        ("[:tostr {1;2;3}]", "1;2;3"),
        ('[:totime "1h30m"]', "01:30:00"),
        ('[:typeof [:totime "x"]]', "nil"),
        ('[:len [:toarray "a,b,c"]]', "3"),
        ("[:typeof 100ms]", "time"),
        ("100ms", "00:00:00.100"),
        ("1w2d3h", "1w2d03:00:00"),
        ('[:pick "abcdef" 1 3]', "bc"),
        ('[:pick "abcdef" 2]', "c"),
        ("[:pick {1;2;3} 1]", "2"),
        ("[:pick {1;2;3} 1 3]", "2;3"),
        ('[:len "\\C3\\A9"]', "2"),
        ("[:typeof *2B]", "id"),
        ("[:typeof [:toid *2B]]", "id"),
        ("[:typeof true]", "bool"),
        ("[:typeof 0xff]", "num"),
        ("0xff", "255"),
        ('"a$(1+2)b$[:len abc]c"', "a3b3c"),
        ('"\\5F\\_\\t."', "_ \t."),
    ],
)
async def test_values(tmp_path: Path, expression: str, text: str) -> None:
    assert await put(tmp_path, f":put {expression}") == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (":local a 1; :set a ($a + 1); :put $a", "2"),
        (':local "my-var" x; :put $"my-var"', "x"),
        (":local a 1; { :local a 2; :put $a }; :put $a", "2\n1"),
        (":if (1 = 2) do={ :put a } else={ :put b }", "b"),
        (":for i from=1 to=3 do={ :put $i }", "1\n2\n3"),
        (":for i from=4 to=1 step=-2 do={ :put $i }", "4\n2"),
        (":for i from=3 to=1 do={ :put $i }; :put [:typeof $i]", "3\n2\n1\nnothing"),
        (":for i from=1 to=2 do={ :set i 9; :put $i }", "9\n9"),
        (":foreach x in={1;2} do={ :put $x }", "1\n2"),
        (':foreach k,v in={"b"=1;"a"=2} do={ :put "$k=$v" }', "a=2\nb=1"),
        (":foreach x in=[] do={ :put $x }; :put end", "end"),
        (":local i 0; :while ($i < 2) do={ :set i ($i + 1) }; :put $i", "2"),
        (":local i 0; :do { :set i ($i + 1) } while=($i < 3); :put $i", "3"),
        (":local i 5; :do { :set i ($i + 1) } while=(false); :put $i", "6"),
        (':do { :error "x" } on-error={ :put caught }', "caught"),
        (':put [:onerror e in={ :error "x" } do={}]', "true"),
        (":put [:onerror e in={} do={}]", "false"),
        (
            ':onerror o in={ :onerror i in={ :error "x" } do={ :error "y" } } do={ :put $o }',
            "y (:error; line 1)",
        ),
        (':onerror e in={ :put 1; :error "x"; :put 2 } do={ :put $e }', "1\nx (:error; line 1)"),
        (":onerror e in={ /disk/set none slot=x } do={ :put $e }", "no such item"),
        (":put [:if (true) do={ :return a }]", "a"),
        (":local f do={ :return ($1 + $2) }; :put [$f 1 2]", "3"),
        (":local f do={ :return $n }; :put [$f n=4]", "4"),
        (":global g 1; :local f do={ :global g; :set g ($g + 1) }; $f; :put $g", "2"),
        (":local o 1; :local f do={ :return [:typeof $o] }; :put [$f]", "nothing"),
        (
            (
                ":global fact do={ :global fact; :if ($1 < 2) do={ :return 1 }; "
                ":return ($1 * [$fact ($1 - 1)]) }; :put [$fact 5]"
            ),
            "120",
        ),
        (":put (true || [:put called])", "called\nconditional is not boolean (:put; line 1)"),
        (
            (
                ":local n 0; :retry command={ :set n ($n + 1); :if ($n < 3) do={ :error x } } "
                "delay=0 max=5; :put $n"
            ),
            "3",
        ),
        (":retry command={ :put run } delay=0 max=0", ""),
        (":retry command={ :error x } max=2 delay=0 on-error={ :put gave-up }", "gave-up"),
        (':local a {"x"=1}; :set ($a->"y") 2; :put $a', "x=1;y=2"),
        (":local a {1;2}; :set ($a->1) 5; :put $a", "1;5"),
        (':local a; :set ($a->"k") 1; :put [:len $a]', "1"),
        (":log info x; :nothing; :put end", "end"),
    ],
)
async def test_statements(tmp_path: Path, line: str, text: str) -> None:
    assert await put(tmp_path, line) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (':if ("text") do={ }', "conditional is not boolean (:if; line 1)"),
        (':put ("a" < "b")', "cannot compare if string is less than string (:put; line 1)"),
        (":put (1 / 0)", "division by zero (:put; line 1)"),
        (":put (true + 1)", "cannot use bool as a number (:put; line 1)"),
        (':put ("a" + 1)', "cannot use str as a number (:put; line 1)"),
        (':put ("a" ~ "(")', "bad regexp: "),
        (":return", "missing value(s) of argument(s) value (:return; line 1)"),
        (":error boom", "boom (:error; line 1)"),
        (":serialize to=xml value=1", "input does not match any value of to"),
        (":deserialize from=json value=nope", "failed to parse json"),
        (":for i from=1 to=2 step=0 do={}", "step must not be zero"),
    ],
)
async def test_runtime_errors(tmp_path: Path, line: str, text: str) -> None:
    assert (await put(tmp_path, line)).startswith(text)
    assert await put(tmp_path, f":onerror e in={{ {line} }} do={{ :put caught }}") == "caught"


async def test_what_ran_before_a_runtime_error_stays(tmp_path: Path) -> None:
    assert await put(tmp_path, ":put 1; :error boom; :put 2") == "1\nboom (:error; line 1)"


async def test_error_texts_end_in_lf_and_output_in_crlf(tmp_path: Path) -> None:
    assert await Simulator(tmp_path).run(":put a; :error b") == "a\r\nb (:error; line 1)\n"


async def test_place_of_an_error_is_a_quirk(tmp_path: Path) -> None:
    caught = ":onerror e in={ /disk/get none } do={ :put $e }"
    assert await put(tmp_path, "/disk/get none") == "no such item (/disk/get; line 1)"
    assert await put(tmp_path, caught) == "no such item"
    always = await put(tmp_path, caught, error_location="always")
    assert always == "no such item (/disk/get; line 1)"
    assert await put(tmp_path, "/disk/get none", error_location="never") == "no such item"
    never = await put(tmp_path, ":onerror e in={ :error x } do={ :put $e }", error_location="never")
    assert never == "x"


async def test_globals_stay_but_must_be_declared_again(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path)
    await simulator.run(":global kept 5")
    assert await simulator.run(":put [:typeof $kept]") == "nothing\r\n"
    assert await simulator.run(":global kept; :put $kept") == "5\r\n"


async def test_a_line_end_ends_the_command(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path)
    output = await simulator.run(":put 1\n:nope\r\n:error x\n:put 2")
    assert output == "1\r\nbad command name nope (line 1 column 2)\nx (:error; line 1)\n2\r\n"


@pytest.mark.looptime
async def test_delay_waits(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path)
    loop = asyncio.get_running_loop()
    for text, seconds in (("250ms", 0.25), ("3s", 3), ("2", 2), ('"1m"', 60), ("00:00:05", 5)):
        before = loop.time()
        await simulator.run(f":delay {text}")
        assert loop.time() - before == pytest.approx(seconds)


SERIALIZE = ":put [:serialize to=json value={}]"


@pytest.mark.parametrize(
    ("value", "plain", "kept"),
    [
        ("123", "123", "123"),
        ('"123"', "123.000000", '"123"'),
        ('"7.1"', "7.100000", '"7.1"'),
        ('"-5"', "-5.000000", '"-5"'),
        ('"7.24 (stable)"', '"7.24 (stable)"', '"7.24 (stable)"'),
        ("true", "true", "true"),
        ("$none", "null", "null"),
        ("[]", "null", "null"),
        ("({})", "[]", "[]"),
        ("{1;2;3}", "[1,2,3]", "[1,2,3]"),
        ('{"z"=1;"a"="2"}', '{"a":2.000000,"z":1}', '{"a":"2","z":1}'),
        ("1h30m15s", '"01:30:15"', '"01:30:15"'),
        ("*2B", '"*2B"', '"*2B"'),
        ('"a\\"b\\\\c\\n\\t\\01\\$"', '"a\\"b\\\\c\\n\\t\\u0001$"', '"a\\"b\\\\c\\n\\t\\u0001$"'),
        ('"\\C3\\A9"', '"é"', '"é"'),
        ("192.168.1.1", '"192.168.1.1"', '"192.168.1.1"'),
    ],
)
async def test_serialize(tmp_path: Path, value: str, plain: str, kept: str) -> None:
    assert await put(tmp_path, SERIALIZE.format(value)) == plain
    options = f"{value} options=json.no-string-conversion"
    assert await put(tmp_path, SERIALIZE.format(options)) == kept


async def test_serialize_options(tmp_path: Path) -> None:
    pretty = await put(tmp_path, SERIALIZE.format('{"a"={1}} options=json.pretty'))
    assert pretty == '{\n    "a": [\n        1\n    ]\n}'
    both = '{"n"="1"} options=(json.pretty,json.no-string-conversion)'
    assert '"n": "1"' in await put(tmp_path, SERIALIZE.format(both))
    refused = await put(tmp_path, SERIALIZE.format("1 options=JSON.PRETTY"))
    assert refused == "syntax error (line 1 column 42)"


async def test_deserialize(tmp_path: Path) -> None:
    text = '"{\\"a\\":[{\\"b\\":\\"7\\"}],\\"c\\":null,\\"d\\":1.5}"'
    line = f":local v [:deserialize from=json value={text}]; "
    assert await put(tmp_path, line + ':put [:typeof ($v->"a"->0->"b")]') == "num"
    kept = line.replace("value", "options=json.no-string-conversion value")
    assert await put(tmp_path, kept + ':put [:typeof ($v->"a"->0->"b")]') == "str"
    assert await put(tmp_path, line + ':put [:typeof ($v->"c")]; :put ($v->"d")') == "nothing\n1.5"
