"""What a writing application saw: a :mod:`tests.lab.writer` process, its journal, and the proof.

The journal is the only witness. It says when each write was tried and acknowledged, so stalls
and errors are read off it; and it says which block must be at which place, so that nothing lost
and nothing corrupted is shown by reading the device, past the page cache.
"""

import asyncio
import itertools
import mmap
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from rds_csi.demo.kubelet import Claim
from tests.lab import writer
from tests.lab.waiting import until

_START_BUDGET: Final = 60.0
_UNDER_WAY: Final = 20
"""Writes of each volume before a test goes on: something has to be there to be lost."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal. ``when`` is monotonic time in seconds."""

    what: str
    number: int
    when: float
    detail: str


class Journal:
    """One volume's journal; each question reads what was added since the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: list[Entry] = []
        self._offset = 0

    def entries(self) -> list[Entry]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return []
        # The last line may still be on its way.
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        words = (line.split(" ") for line in whole.decode().splitlines())
        self._entries += [
            Entry(w[0], int(w[1]), float(w[2]), w[3] if len(w) > 3 else "") for w in words
        ]
        return self._entries

    def acknowledged_after(self, when: float) -> float | None:
        """When the first write after ``when`` was acknowledged; None if none was yet."""
        found = None
        for entry in reversed(self.entries()):
            if entry.when <= when:
                break
            if entry.what == "ack":
                found = entry.when
        return found

    def answered_within(self, begin: float, end: float) -> list[int]:
        """The writes that were tried after ``begin`` and acknowledged before ``end``.

        Both instants are noted by the writer, so a machine that stands still for a while makes no
        write look later, or earlier, than it was.
        """
        tried = {
            entry.number for entry in self.entries() if entry.what == "try" and entry.when > begin
        }
        return [
            entry.number
            for entry in self.entries()
            if entry.what == "ack" and entry.number in tried and entry.when < end
        ]

    def errors(self) -> Counter[str]:
        return Counter(entry.detail for entry in self.entries() if entry.what == "err")

    def longest_stall(self) -> float:
        """The longest time in seconds from one acknowledgement to the next."""
        times = [entry.when for entry in self.entries() if entry.what == "ack"]
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


@dataclass(frozen=True, slots=True)
class Proof:
    """What reading back showed: how many places were acknowledged, and which are wrong."""

    acknowledged: int
    checked: int
    lost: list[str]
    corrupted: list[str]

    @property
    def intact(self) -> bool:
        return self.checked > 0 and not self.lost and not self.corrupted


def verify(path: Path, journal: Journal) -> Proof:
    """Read back every place that was written; blocks while the device does not answer.

    At each place must be the last acknowledged block, or a later one that was tried without an
    answer: such a write may have arrived, or not.
    """
    acknowledged: dict[int, int] = {}
    tried: dict[int, set[int]] = {}
    count = 0
    for entry in journal.entries():
        slot = entry.number % writer.SLOTS
        if entry.what == "try":
            tried.setdefault(slot, set()).add(entry.number)
        elif entry.what == "ack":
            acknowledged[slot] = entry.number
            count += 1
    lost, corrupted = [], []
    for slot, last in sorted(acknowledged.items()):
        found = writer.number_of(_read(path, writer.place(last, path)))
        if found is None:
            corrupted.append(f"place {slot}: block {last} is not what was written")
        elif found < last:
            lost.append(f"place {slot}: block {last} was acknowledged, there is {found}")
        elif found not in tried[slot]:
            corrupted.append(f"place {slot}: block {found}, which was never written there")
    return Proof(count, len(acknowledged), lost, corrupted)


def _read(path: Path, offset: int) -> bytes:
    buffer = mmap.mmap(-1, writer.BLOCK)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        os.preadv(descriptor, [buffer], offset)
    finally:
        os.close(descriptor)
    return bytes(buffer)


def tell(text: str) -> None:
    """Say what was measured; pytest shows it with ``-rP``, and where a test fails."""
    sys.stdout.write(f"{text}\n")


def where(volume: Claim) -> Path:
    """Where the application writes: the device, or a file in the file system."""
    return volume.target if volume.access == "block" else volume.target / "data"


class Application:
    """A writer on each of some volumes; ``folder`` holds the journals."""

    _alive: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, volumes: Sequence[Claim], folder: Path, *, pause: float = 0.02) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._pairs = [(where(each), Journal(folder / f"{each.name}.journal")) for each in volumes]
        self._names = {each.name: i for i, each in enumerate(volumes)}
        self._pause = pause
        self._process: subprocess.Popen[bytes] | None = None

    def journal(self, volume: Claim) -> Journal:
        return self._pairs[self._names[volume.name]][1]

    @property
    def journals(self) -> list[Journal]:
        return [journal for _, journal in self._pairs]

    async def start(self) -> None:
        """Returns once every volume has acknowledged some writes of this life."""
        for path, _ in self._pairs:
            if not path.is_block_device() and not path.exists():
                await asyncio.to_thread(_allocate, path)
        seen = [len(journal.entries()) for journal in self.journals]
        words = [str(each) for path, journal in self._pairs for each in (path, journal.path)]
        self._process = _spawn([f"--pause={self._pause}", *words])
        self._alive.append(self._process)

        def under_way() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, "the writer ended"
            return all(
                sum(entry.what == "ack" for entry in journal.entries()[before:]) >= _UNDER_WAY
                for journal, before in zip(self.journals, seen, strict=True)
            )

        await until(under_way, "every writer writes", seconds=_START_BUDGET)

    async def stop(self) -> None:
        """End it after the blocks at hand; a device that hangs would hold that up for ever."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            await until(lambda: process.poll() is not None, "the writer ends")
            self._alive.remove(process)

    @classmethod
    def kill_all(cls) -> list[subprocess.Popen[bytes]]:
        """Kill what a failed test left writing; one that waits for its device ends without it."""
        killed, cls._alive[:] = list(cls._alive), []
        for process in killed:
            process.kill()
        return killed

    async def resumed(self, volume: Claim, since: float, *, seconds: float = 60) -> float:
        """Wait for the first write acknowledged after ``since``; how many seconds it took."""
        journal = self.journal(volume)
        what = f"{volume.name} writes again"
        await until(lambda: journal.acknowledged_after(since) is not None, what, seconds=seconds)
        when = journal.acknowledged_after(since)
        assert when is not None
        return when - since

    async def prove(self) -> None:
        """Fail the test unless everything acknowledged is on the devices."""
        for path, journal in self._pairs:
            proof = await asyncio.to_thread(verify, path, journal)
            assert proof.intact, f"{path}: {proof}"

    def summary(self) -> str:
        return "\n".join(
            f"{journal.path.stem}: {sum(e.what == 'ack' for e in journal.entries())} writes, "
            f"longest stall {journal.longest_stall():.1f} s, errors {dict(journal.errors())}"
            for journal in self.journals
        )


def _spawn(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    # Isolated and without site-packages: half of a fresh Python's start.
    return subprocess.Popen([sys.executable, "-I", "-S", writer.__file__, *arguments])


def _allocate(path: Path) -> None:
    """The file, all written: O_DIRECT into holes would allocate, and so write elsewhere too."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(writer.SLOTS * writer.BLOCK), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
