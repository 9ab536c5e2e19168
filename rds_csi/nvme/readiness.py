"""Waits until a connected volume can be used: its device is there, has a size, and answers."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rds_csi.errors import CommandStuck, ConnectFailed
from rds_csi.model.host_identity import HostIdentity
from rds_csi.nvme.child import Prover
from rds_csi.nvme.proven import NOT_OURS
from rds_csi.nvme.sysfs import Controller, Namespace, Sysfs
from rds_csi.runtime.causes import noting

DeviceNumber = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds. ``connect``, ``probe`` and ``disconnect`` bound one program each.

    ``appear`` bounds the wait for a usable device; a namespace that is missing for ``rescan``
    is looked for by the kernel once more. ``gone`` bounds the wait for a controller to go;
    ``path`` bounds the wait for one more connection to lead to the device that is there already.
    ``poll`` is the pause between two looks into sysfs.
    """

    connect: float = 30.0
    appear: float = 20.0
    rescan: float = 1.0
    probe: float = 10.0
    disconnect: float = 15.0
    gone: float = 10.0
    path: float = 5.0
    poll: float = 0.1


def device_number(path: Path) -> DeviceNumber | None:
    """The number of a block device node; None if there is none at the path."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISBLK(found.st_mode):
        return None
    return os.major(found.st_rdev), os.minor(found.st_rdev)


class Readiness:
    """Looks at this host's connections to a subsystem."""

    def __init__(
        self,
        prover: Prover,
        sysfs: Sysfs,
        host: HostIdentity,
        *,
        timings: Timings,
        number_of: Callable[[Path], DeviceNumber | None],
        rescan: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._prover = prover
        self._sysfs = sysfs
        self._host = host
        self._timings = timings
        self._number_of = number_of
        self._rescan = rescan

    async def usable(self, nqn: str, volume: str) -> Namespace:
        """The namespace, when its connection is live and its device has answered a read.

        Raises :class:`ConnectFailed`: "device did not appear", and why.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timings.appear
        rescan_at = loop.time() + self._timings.rescan
        while True:
            namespace, why = self._look(nqn)
            if namespace is not None:
                break
            if loop.time() >= end:
                raise ConnectFailed(
                    f"device did not appear within {self._timings.appear:g} s: {why}",
                    volume=volume,
                )
            if loop.time() >= rescan_at:
                rescan_at = end
                await self._rescan(nqn, volume)
            with noting(f"its device had not appeared: {why}"):
                await asyncio.sleep(self._timings.poll)
        await self._probe(nqn, namespace, volume)
        return namespace

    def _look(self, nqn: str) -> tuple[Namespace | None, str]:
        """The namespace, or what it lacks."""
        own = self._own(nqn)
        if not any(controller.live for controller in own):
            states = ", ".join(f"{entry.name} is {entry.state or 'unknown'}" for entry in own)
            return None, states or "there is no connection of this host"
        namespace = self._sysfs.namespace_of(own)
        if namespace is None:
            return None, "the connection has no namespace 1"
        if namespace.size == 0:
            return None, f"{namespace.device} has no size yet"
        if self._number_of(namespace.device) != namespace.devno:
            return None, f"{namespace.device} is not the kernel's device {namespace.devno}"
        return namespace, ""

    def _own(self, nqn: str) -> list[Controller]:
        return [
            controller
            for controller in self._sysfs.controllers(nqn)
            if controller.hostnqn == self._host.nqn
        ]

    async def _probe(self, nqn: str, namespace: Namespace, volume: str) -> None:
        """Have a block of the device read that is, before and afterwards, the subsystem's."""
        # In a program, for a read that hangs stays until the kernel gives it up; directly, for
        # the page cache may still know what the device does not.
        device = namespace.device
        own = self._own(nqn)
        if not own:
            raise ConnectFailed("the connection is gone again", volume=volume)
        try:
            result = await self._prover.read(
                device.name, namespace.devno, own, timeout=self._timings.probe, volume=volume
            )
        except CommandStuck as error:
            # A read does no harm when it ends at last, so nothing is kept locked for it: what
            # would free it is the disconnect that the lock would keep out.
            raise ConnectFailed(f"{device} does not answer reads: one hangs", volume=volume) from (
                error
            )
        text = " ".join(result.stderr.split())[:300]
        if result.returncode == NOT_OURS:
            raise ConnectFailed(f"lost while it was tried: {text}", volume=volume)
        if result.returncode != 0:
            raise ConnectFailed(f"{device} does not answer reads: {text}", volume=volume)
