"""Running a script: scopes, globals, functions, and where an error says it came from."""

from pathlib import Path

from rds_csi.simulator import Simulator
from tests.simulator.language.lines import put


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
