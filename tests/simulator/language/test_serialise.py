"""JSON as RouterOS writes and reads it."""

from pathlib import Path

import pytest

from tests.simulator.language.lines import put

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
