"""What the demo shows, step by step, with nothing taken on trust.

Each step checks what it did and raises :class:`DemoError` otherwise; nothing is repaired to
look well, and nothing is printed that was not seen.

Proven in ``tests/readme/test_readme.py``.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from rds_csi.demo.data import Written, intact, write
from rds_csi.demo.kubelet import Claim, Kubernetes
from rds_csi.filesystem.mounts import parse
from rds_csi.model.volume import MIB
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.simulator import Simulator

ACCESS: Final = ("ext4", "xfs", "block")
_SIZE: Final = 320 * MIB
_GROWN: Final = 448 * MIB
_DATA: Final = 8 * MIB
_OUTAGE: Final = 4.0
"""Seconds: long enough for the kernel to notice and to queue, short enough to wait for."""
_PATIENCE: Final = 60.0
"""Seconds the kernel gets to notice an outage, or to reconnect."""


class DemoError(Exception):
    """A step did not do what it should have done."""


class Display(Protocol):
    """Where progress is shown."""

    def begin(self, what: str) -> None:
        """A step has begun."""

    def done(self, what: str, seconds: float) -> None:
        """The step has ended well."""


class Story:
    """The life of one volume of each kind, with an outage in its middle."""

    def __init__(
        self,
        rds: Simulator,
        kubernetes: Kubernetes,
        *,
        folders: Sequence[Path],
        kubelet_dir: Path,
        display: Display,
    ) -> None:
        self._rds = rds
        self._kubernetes = kubernetes
        self._folders = folders
        self._kubelet_dir = kubelet_dir
        self._display = display
        self._sysfs = Sysfs()
        self._claims = [
            Claim(name=f"pvc-demo-{access}", access=access, size=_SIZE, kubelet_dir=kubelet_dir)
            for access in ACCESS
        ]
        self._written: list[Written] = []

    async def tell(self) -> None:
        """The whole story."""
        for claim in self._claims:
            await self._bring_up(claim)
        await self._outage()
        with self._step("read everything back from the device"):
            await self._require_intact()
        for claim in self._claims:
            await self._take_down(claim)
        with self._step("nothing is left: no mount, no subsystem, no disk, no file"):
            self._require_nothing_left()

    async def _bring_up(self, claim: Claim) -> None:
        kubernetes = self._kubernetes
        with self._step(f"{claim.access}: create the volume on the RDS, over SSH"):
            await kubernetes.provision(claim)
        with self._step(f"{claim.access}: publish it, connect NVMe/TCP, prepare and mount it"):
            await kubernetes.attach(claim)
            await kubernetes.mount(claim)
        with self._step(f"{claim.access}: write {_DATA // MIB} MiB"):
            await self._write(claim, offset=0)
        with self._step(f"{claim.access}: grow it from {_SIZE // MIB} to {_GROWN // MIB} MiB"):
            await kubernetes.grow(claim, _GROWN)

    async def _outage(self) -> None:
        self._require_states({"live"})
        writers: list[asyncio.Task[None]] = []
        try:
            with self._step(f"cut the target off for {_OUTAGE:.0f} s; applications go on writing"):
                await self._rds.cut()
                writers += [
                    asyncio.create_task(self._write(claim, offset=_DATA)) for claim in self._claims
                ]
                await self._until({"connecting", "resetting"})
                await asyncio.sleep(_OUTAGE)
                if any(writer.done() for writer in writers):
                    raise DemoError("a write ended although the target was cut off")
            with self._step("bring it back: the kernel reconnects, the waiting writes complete"):
                await self._rds.restore()
                await self._until({"live"})
                async with asyncio.timeout(_PATIENCE):
                    await asyncio.gather(*writers)
        finally:
            # A write that waits for the target would hold the end of the demo for ever.
            await self._rds.restore()

    async def _take_down(self, claim: Claim) -> None:
        with self._step(f"{claim.access}: unmount, disconnect, delete"):
            await self._kubernetes.unmount(claim)
            await self._kubernetes.release(claim)

    async def _write(self, claim: Claim, *, offset: int) -> None:
        path = claim.target if claim.access == "block" else claim.target / f"data-{offset}"
        where = offset if claim.access == "block" else 0
        self._written.append(await asyncio.to_thread(write, path, offset=where, size=_DATA))

    async def _require_intact(self) -> None:
        if len(self._written) != 2 * len(self._claims):
            raise DemoError(f"{len(self._written)} writes ended instead of {2 * len(self._claims)}")
        for written in self._written:
            if not await asyncio.to_thread(intact, written):
                raise DemoError(f"{written.path} does not give back what was written")

    def _states(self) -> list[str]:
        nqns = {claim.publish_context["nqn"] for claim in self._claims}
        return [found.state for found in self._sysfs.controllers() if found.nqn in nqns]

    def _require_states(self, wanted: set[str]) -> None:
        states = self._states()
        if len(states) != len(self._claims) or not set(states) <= wanted:
            raise DemoError(f"the NVMe controllers are {states} instead of {wanted}")

    async def _until(self, wanted: set[str]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            states = self._states()
            if len(states) == len(self._claims) and set(states) <= wanted:
                return
            await asyncio.sleep(0.1)
        self._require_states(wanted)

    def _require_nothing_left(self) -> None:
        table = parse(Path("/proc/self/mountinfo").read_bytes())
        below = f"{self._kubelet_dir}/"
        left = [f"mount {mount.point}" for mount in table if mount.point.startswith(below)]
        left += [f"subsystem {found.nqn}" for found in self._sysfs.controllers()]
        left += [f"disk {slot}" for slot in self._rds.disks]
        left += [f"file {name}" for name, size in self._rds.files.items() if size is not None]
        left += [f"record {path}" for each in self._folders for path in each.rglob("*.json")]
        if left:
            raise DemoError(f"left behind: {', '.join(left)}")

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        self._display.begin(what)
        started = time.monotonic()
        try:
            yield
        except Exception as error:
            raise DemoError(f"{what}: {error or type(error).__name__}") from error
        self._display.done(what, time.monotonic() - started)
