"""What tests of the language share: a line is run, and what it prints."""

from pathlib import Path

from rds_csi.simulator import Simulator


async def put(tmp_path: Path, line: str, **quirks: object) -> str:
    """What a line prints, line ends as plain ones."""
    simulator = Simulator(tmp_path)
    for name, value in quirks.items():
        setattr(simulator.quirks, name, value)
    return (await simulator.run(line)).replace("\r\n", "\n").rstrip("\n")
