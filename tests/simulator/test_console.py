"""One exec: lines, what of them runs, and how texts end."""

from pathlib import Path

from rds_csi.simulator import Simulator
from tests.simulator.language.lines import put


async def test_what_ran_before_a_runtime_error_stays(tmp_path: Path) -> None:
    assert await put(tmp_path, ":put 1; :error boom; :put 2") == "1\nboom (:error; line 1)"


async def test_error_texts_end_in_lf_and_output_in_crlf(tmp_path: Path) -> None:
    assert await Simulator(tmp_path).run(":put a; :error b") == "a\r\nb (:error; line 1)\n"


async def test_a_line_end_ends_the_command(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path)
    output = await simulator.run(":put 1\n:nope\r\n:error x\n:put 2")
    assert output == "1\r\nbad command name nope (line 1 column 2)\nx (:error; line 1)\n2\r\n"
