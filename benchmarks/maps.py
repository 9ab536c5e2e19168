"""What a map of the path layer costs a volume's I/O, beside the bare device, in one run.

Runs in the lab (``nox -s benchmark-maps``). The volume is a raw block volume that the driver
staged: the same blocks of the same export are read and written past the page cache through the
map and through the NVMe device under it. Both take turns of a few requests each, in random order,
so that whatever else the machine does meets both alike. Of some rounds the median counts.

Exits with 1 unless p50 of 4 KiB random reads is at most 1.05 times that of the bare device, and
the throughput of 1 MiB reads and writes at least 0.95 times.
"""

import asyncio
import mmap
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncssh

from rds_csi.demo.kubelet import Kubernetes
from rds_csi.runtime.attributes import children
from rds_csi.simulator import Simulator
from tests.lab import node, volumes
from tests.lab.processes import Zygote
from tests.lab.world import BASE, GIB, MIB, SIZE, World

ROUNDS: Final = 5
TURNS: Final = 30
SMALL: Final = 4096
READS: Final = 50
"""Small reads of one turn."""
LARGE: Final = MIB
STREAM: Final = 8
"""Large requests of one turn."""
LATENCY: Final = 1.05
THROUGHPUT: Final = 0.95


@dataclass(frozen=True, slots=True)
class Round:
    """One round: through the map divided by the bare device."""

    latency: float
    reading: float
    writing: float


class File:
    """A block device, past the page cache."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_DIRECT)
        stack.callback(os.close, self._file)
        # O_DIRECT wants memory that begins at a page.
        self._small = mmap.mmap(-1, SMALL)
        self._large = mmap.mmap(-1, LARGE)
        self._large[:] = os.urandom(LARGE)

    def read(self, place: int) -> float:
        """Seconds of one small read."""
        began = time.perf_counter()
        os.preadv(self._file, [self._small], place)
        return time.perf_counter() - began

    def stream(self, *, write: bool) -> float:
        """Seconds for the large requests of a turn."""
        act: Callable[..., int] = os.pwritev if write else os.preadv
        began = time.perf_counter()
        for number in range(STREAM):
            act(self._file, [self._large], number * LARGE)
        return time.perf_counter() - began


def measure(mapped: File, bare: File) -> Round:
    """One round."""
    places = range(0, SIZE, SMALL)
    times: dict[File, list[float]] = {mapped: [], bare: []}
    streams: dict[tuple[File, bool], float] = dict.fromkeys(
        ((file, write) for file in (mapped, bare) for write in (False, True)), 0.0
    )
    for _ in range(TURNS):
        for file in random.sample((mapped, bare), 2):
            times[file] += [file.read(random.choice(places)) for _ in range(READS)]
            for write in (False, True):
                streams[file, write] += file.stream(write=write)
    p50 = {file: statistics.median(found) for file, found in times.items()}
    rates = {key: TURNS * STREAM * LARGE / MIB / seconds for key, seconds in streams.items()}
    say(
        f"{p50[bare] * 1e6:>9.0f} {p50[mapped] * 1e6:>9.0f}"
        + "".join(f"{rates[file, w]:>9.0f}" for w in (False, True) for file in (bare, mapped))
    )
    return Round(
        p50[mapped] / p50[bare],
        rates[mapped, False] / rates[bare, False],
        rates[mapped, True] / rates[bare, True],
    )


async def run(folder: Path, zygote: Zygote) -> int:
    """Bring the volume up, measure, take it down; the exit status."""
    key, key_file = asyncssh.generate_private_key("ssh-ed25519"), folder / "key"
    key.write_private_key(key_file)
    key_file.chmod(0o600)
    simulator = Simulator(
        folder / "rds",
        pools={"raid10": 64 * GIB},
        export="nvmet",
        authorized_keys=[key.convert_to_public()],
    )
    async with simulator as rds:
        rds.make_directory(BASE)
        world = World(rds, key_file, zygote, folder)
        driver = world.driver(path_layer=True)
        await driver.start()
        async with Kubernetes(driver.socket, driver.socket) as kubernetes:
            claim = volumes.volume("bench", "block")
            await volumes.bring_up(kubernetes, claim)
            ((name, _),) = node.maps().items()
            (under,) = children(f"/sys/block/{name}/slaves")
            say("p50, µs: bare, map; MiB/s read: bare, map; MiB/s written: bare, map")
            with ExitStack() as stack:
                mapped, bare = File(claim.target, stack), File(Path("/dev", under), stack)
                bare.stream(write=True)  # no holes where it is read
                rounds = [measure(mapped, bare) for _ in range(ROUNDS)]
            await volumes.take_down(kubernetes, claim)
        await world.close()
    return report(rounds)


def report(rounds: list[Round]) -> int:
    """Print the medians; the exit status."""
    latency = statistics.median(each.latency for each in rounds)
    reading = statistics.median(each.reading for each in rounds)
    writing = statistics.median(each.writing for each in rounds)
    say(f"p50 through the map: {latency:.3f} x (promised {LATENCY})")
    say(f"throughput: read {reading:.3f} x, write {writing:.3f} x (promised {THROUGHPUT})")
    return 0 if latency <= LATENCY and min(reading, writing) >= THROUGHPUT else 1


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def main() -> int:
    """Run all of it; the exit status."""
    zygote = Zygote()
    try:
        with tempfile.TemporaryDirectory(prefix="rds-maps-") as folder:
            return asyncio.run(run(Path(folder), zygote))
    finally:
        zygote.close()


if __name__ == "__main__":
    sys.exit(main())
