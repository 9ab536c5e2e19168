"""Targets that count what they are sent, on a fake sysfs: they are cut off, or lose their power."""

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rds_csi.nvme.baseline import BaselineFile
from rds_csi.nvme.counters import UNIT, CounterReader
from rds_csi.nvme.returns import Returns
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.nvme.uevents import Uevents
from rds_csi.runtime.process import Result
from tests.unit.fakes.clock import FakeClock
from tests.unit.fakes.runner import Answer, FakeRunner
from tests.unit.fakes.sysfs import HOST_NQN, FakeSysfs

MIB = 1 << 20


@dataclass
class Counting:
    """One volume's target, as one connection shows it."""

    host: "CountingHost"
    nqn: str
    sent: int = 64 * MIB
    """Bytes that it was sent since it booted, by former connections too."""
    name: str = field(init=False)
    answer: Answer = field(init=False)
    moved: int = 0

    def __post_init__(self) -> None:
        tree = self.host.tree
        self.name = tree.connect(self.nqn)
        tree.set(self.name, "dev", "0:0")
        (tree.dev / self.name).write_text("")
        device = str(tree.dev / self.name)
        self.answer = self.host.runner.on("nvme", "admin-passthru", device)
        self.write(0)

    def write(self, size: int) -> None:
        """The host writes so much."""
        self.moved += size
        self.sent += size
        number = self.name.removeprefix("nvme")
        stat = self.host.tree.block(f"nvme{number}c{number}n1") / "stat"
        stat.write_text(f"0 0 0 0 {self.moved // 4096} 0 {self.moved // 512} 0 0 0 0\n")
        self._show()

    def silent(self) -> None:
        """A file behind it, or a program that prints something else."""
        self.answer.result = Result(0, "no such log page", "")

    def away(self) -> None:
        self.host.tree.set(self.name, "state", "connecting")

    def back(self, *, booted: bool = False, told: bool = True) -> None:
        """It is live again; ``told``: the kernel sends its event."""
        if booted:
            self.sent = 0
            self._show()
        self.host.tree.set(self.name, "state", "live")
        if told:
            self.host.tell(self.name)

    def _show(self) -> None:
        counted = {48: -(-self.sent // UNIT), 80: self.sent // 4096}
        self.answer.result = Result(0, dumped(counted), "")


def dumped(counted: Mapping[int, int]) -> str:
    """The log page with some counters, by their places in it, as nvme-cli dumps it."""
    page = bytearray(512)
    for place, number in counted.items():
        page[place : place + 16] = number.to_bytes(16, "little")
    lines = ["       " + "  ".join(f"{i:x}" for i in range(16))]
    for offset in range(0, len(page), 16):
        octets = page[offset : offset + 16]
        lines.append(f'{offset:04x}: {octets.hex(" ")} "{"." * len(octets)}"')
    return "\n".join(lines) + "\n"


class CountingHost:
    """A node with its targets, and drivers on it one after the other."""

    def __init__(self, root: Path) -> None:
        self.tree = FakeSysfs(root / "fake")
        self.runner = FakeRunner()
        self.clock = FakeClock()
        self.file = root / "state" / "targets"
        self.shared: set[str] = set()
        """Volumes that other nodes use too."""
        self.mapped: set[str] = set()
        """Volumes with a map, which outlives connections."""
        self.verdicts: list[str] = []
        self._kernel: socket.socket | None = None

    def tell(self, name: str) -> None:
        """The kernel says that a controller is live."""
        event = f"x\0SUBSYSTEM=nvme\0NVME_EVENT=connected\0DEVPATH=/devices/{name}\0"
        with contextlib.suppress(ConnectionRefusedError):  # nobody listens
            if self._kernel is not None:
                self._kernel.send(event.encode())

    def driver(self, *, uevents: bool = True, settled: float = 0.0) -> Returns:
        """A driver that has just started; ``uevents``: the kernel tells it of connections."""
        sysfs = Sysfs(self.tree.sys, dev=self.tree.dev)

        async def exclusive(volume: str) -> bool:
            return volume not in self.shared

        return Returns(
            reader=CounterReader(self.runner, sysfs, HOST_NQN),
            sysfs=sysfs,
            host_nqn=HOST_NQN,
            file=BaselineFile(self.file, "this-boot"),
            exclusive=exclusive,
            mapped=lambda: self.mapped,
            on_verdict=self.verdicts.append,
            uevents=Uevents(self._socket if uevents else self._none),
            clock=self.clock,
            settled=settled,
        )

    @property
    def asked(self) -> int:
        """How often targets were asked so far."""
        return len(self.runner.asked("nvme", "admin-passthru"))

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def _socket(self) -> socket.socket:
        self.close()
        self._kernel, driver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        driver.setblocking(False)
        return driver

    @staticmethod
    def _none() -> socket.socket:
        raise OSError("no events here")
