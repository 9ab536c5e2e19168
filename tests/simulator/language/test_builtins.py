"""The language's own commands, as measured on 7.21 and later by others."""

import asyncio
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator
from tests.simulator.language.lines import put


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


@pytest.mark.looptime
async def test_delay_waits(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path)
    loop = asyncio.get_running_loop()
    for text, seconds in (("250ms", 0.25), ("3s", 3), ("2", 2), ('"1m"', 60), ("00:00:05", 5)):
        before = loop.time()
        await simulator.run(f":delay {text}")
        assert loop.time() - before == pytest.approx(seconds)
