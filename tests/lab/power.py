"""A target whose power can be cut: what it acknowledged and was not told to flush is gone.

``dm-log-writes`` stands under the namespace and writes down each request in the order in which it
became durable: a write counts from the next flush on. What the disk holds after a loss of power is
what it held before with the log replayed up to its last flush. (``null_blk`` with a cache is no
such target: taken away, it writes its cache down first.)
"""

import os
import struct
import subprocess
from pathlib import Path
from typing import Final

from tests.lab.target import Target

SECTOR: Final = 512
_MAGIC: Final = 0x6A736677736872
_SUPER: Final = struct.Struct("<QQQI")
_ENTRY: Final = struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD = 1, 2, 4
"""drivers/md/dm-log-writes.c"""


class PoweredTarget:
    """One namespace of ``size`` bytes at ``nqn``; files in ``folder``."""

    def __init__(self, nqn: str, folder: Path, *, size: int, port: int) -> None:
        self._folder = folder
        self.size = size
        self._name = f"power-{port}"
        self._loops: list[str] = []
        self._target = Target(nqn, Path("/dev/mapper") / self._name, port=port, block=True)
        self._disk, self._log = folder / "disk", folder / "log"

    def start(self) -> None:
        """Blank, and serving."""
        _run("modprobe", "dm-log-writes")
        _sparse(self._disk, self.size)
        self._power_up()
        self._target.start()

    def cut_link(self) -> None:
        """Nobody reaches it any more; it keeps all that it has."""
        self._target.cut()

    def mend_link(self) -> None:
        """It is reached again."""
        self._target.restore()

    def cut_power(self) -> None:
        """It is gone, with everything that it had not flushed; :meth:`boot` brings it back."""
        self._target.cut()
        self._target.disable()
        self._power_down()
        # What was on the disk when this log began, and what became durable since.
        (self._folder / "before").replace(self._disk)
        with self._disk.open("r+b") as disk:
            replay(self._log, disk.fileno())

    def boot(self) -> None:
        """It is back, with what was durable, under the same names."""
        self._power_up()
        self._target.enable()
        self._target.restore()

    def stop(self) -> None:
        """Leave nothing behind."""
        self._target.stop()
        self._power_down()

    def _power_up(self) -> None:
        _run("cp", "--sparse=always", str(self._disk), str(self._folder / "before"))
        _sparse(self._log, 4 * self.size)
        self._loops = [
            _run("losetup", "--find", "--show", str(file)) for file in (self._disk, self._log)
        ]
        table = f"0 {self.size // SECTOR} log-writes {' '.join(self._loops)}"
        _run("dmsetup", "create", self._name, "--noudevsync", "--table", table)
        _run("dmsetup", "mknodes", self._name)

    def _power_down(self) -> None:
        _run("dmsetup", "remove", "--noudevsync", self._name)
        for loop in self._loops:
            _run("losetup", "--detach", loop)


def replay(log: Path, disk: int) -> None:
    """Apply what a log says became durable."""
    with log.open("rb") as file:
        magic, version, count, sector = _SUPER.unpack(file.read(_SUPER.size))
        assert (magic, version) == (_MAGIC, 1)
        entries = []
        place = sector
        for _ in range(count):
            file.seek(place)
            start, sectors, flags, _length = _ENTRY.unpack(file.read(_ENTRY.size))
            place += sector
            entries.append((start * sector, sectors * sector, flags, place))
            if not flags & _DISCARD:
                place += sectors * sector
        flushes = [n for n, (_, _, flags, _) in enumerate(entries) if flags & (_FLUSH | _FUA)]
        for start, length, flags, data in entries[: flushes[-1] + 1 if flushes else 0]:
            content = bytes(length) if flags & _DISCARD else os.pread(file.fileno(), length, data)
            os.pwrite(disk, content, start)


def _sparse(file: Path, size: int) -> None:
    file.unlink(missing_ok=True)
    file.touch()
    os.truncate(file, size)


def _run(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.strip()
