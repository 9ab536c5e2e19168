"""Loop devices on paper: the sizes they were attached with, and what was discarded on them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rds_csi.simulator.device.loops import Loops


class FakeLoops(Loops):
    """Devices are never given back, so each has a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.direct: list[bool] = []
        self.earlier = 0
        """What was discarded on a device before it is attached."""
        self._files: dict[Path, Path] = {}
        self._sizes: dict[Path, int] = {}
        self._discarded: dict[Path, int] = {}

    @contextlib.contextmanager
    def attached(self, path: Path, *, direct: bool) -> Iterator[Path]:
        device = Path(f"/dev/loop{len(self._files)}")
        self._files[device] = path
        self._discarded[device] = self.earlier
        self.direct.append(direct)
        self.look_again(device)
        yield device

    def file(self, link: str) -> str:
        """The path of the file behind the device that a link leads to."""
        return str(self._files[Path(link).readlink()])

    def look_again(self, device: Path) -> None:
        self._sizes[device] = self._files[device].stat().st_size

    def discarded(self, device: Path) -> int:
        return self._discarded[device]

    def _newest(self, path: Path) -> Path:
        return [device for device, file in self._files.items() if file == path][-1]

    def size(self, path: Path) -> int:
        """What the newest device over a file has for a size."""
        return self._sizes[self._newest(path)]

    def discard(self, path: Path, length: int) -> None:
        """A host discards so many bytes, of what it never wrote."""
        self._discarded[self._newest(path)] += length
