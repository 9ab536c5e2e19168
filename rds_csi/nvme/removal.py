"""Takes controllers down: only proven ones, only unused ones, and looks afterwards."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from rds_csi.errors import (
    CommandFailed,
    CommandTimeout,
    FailedPrecondition,
    Unavailable,
    VolumeInUse,
)
from rds_csi.model.host_identity import HostIdentity
from rds_csi.nvme.child import Prover
from rds_csi.nvme.proven import HELD, NOT_OURS
from rds_csi.nvme.readiness import DeviceNumber, Timings
from rds_csi.nvme.sysfs import Controller, Sysfs

log = structlog.get_logger(__name__)

_LOOKS: Final = 7
_PAUSE: Final = 0.5
"""Seconds between two tries while something holds it, as a starting container for an instant."""
_IN_USE: Final = "mounted in another mount namespace, or used by device mapper or swap"


class Remover:
    """Takes down connections of this host. ``in_use`` tells of a device that is mounted."""

    def __init__(
        self,
        prover: Prover,
        sysfs: Sysfs,
        host: HostIdentity,
        *,
        in_use: Callable[[DeviceNumber], bool],
        timings: Timings,
    ) -> None:
        self._prover = prover
        self._sysfs = sysfs
        self._host = host
        self._in_use = in_use
        self._timings = timings

    def users(self, controllers: Sequence[Controller]) -> list[str]:
        """What keeps the controllers from being taken down, in words; nothing: an empty list."""
        found = []
        for device in self._sysfs.devices(list(controllers)):
            if self._in_use(device.devno):
                found.append(f"{device.name} is mounted")
            found += [f"{device.name} is held by {holder}" for holder in device.holders]
        return found

    async def remove(self, controllers: Sequence[Controller], *, volume: str) -> None:
        """Take the controllers of a subsystem down; returns when sysfs shows them no more.

        Raises :class:`VolumeInUse` before anything is done if a device of theirs is in use: by
        what we see of mounts, and by the kernel's own word, which knows of all of them. It is
        held alone until the controllers are gone, so nobody can begin to use it meanwhile.
        :class:`Unavailable` if one of them stays, also where the kernel did not say.
        """
        users = self.users(controllers)
        if users:
            raise VolumeInUse(
                f"not disconnected: {', '.join(users)}", volume=volume, advice="unmount it first"
            )
        standing = [controller for controller in controllers if not controller.leaving]
        problem = await self._delete(standing, volume) if standing else ""
        left = await self._until_gone(controllers)
        if left:
            raise Unavailable(
                f"{', '.join(left)} did not go when disconnected{problem}", volume=volume
            )
        for controller in controllers:
            log.info("disconnected", nqn=controller.nqn, controller=controller.name, volume=volume)

    async def _delete(self, controllers: Sequence[Controller], volume: str) -> str:
        """What went wrong. They may go by themselves meanwhile; what counts is whether they do."""
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_PAUSE)
            try:
                result = await self._prover.act(
                    "delete", controllers, timeout=self._timings.disconnect, volume=volume
                )
            except CommandTimeout:
                return f": the kernel did not answer within {self._timings.disconnect:g} s"
            if result.returncode != HELD:
                break
        if result.returncode == HELD:
            raise VolumeInUse(
                f"not disconnected: {result.stderr.strip()}, {_IN_USE}",
                volume=volume,
                advice="on the node: lsblk, and grep the device's number in /proc/[0-9]*/mountinfo",
            )
        return f": {result.stderr.strip()}" if result.returncode else ""

    async def give_up(self, controllers: Sequence[Controller], *, volume: str) -> None:
        """Take down what the kernel tries in vain to bring back, in use or not.

        Whoever waits for it gets I/O errors, and so ends at last; what was written and not yet
        acknowledged is lost. Raises :class:`FailedPrecondition`, and changes nothing, where one of
        them is live; :class:`Unavailable` if one stays.
        """
        result = await self._prover.act(
            "give-up", controllers, timeout=self._timings.disconnect, volume=volume
        )
        if result.returncode == HELD:
            raise FailedPrecondition(
                f"not given up: {result.stderr.strip()}",
                volume=volume,
                advice="it has its RDS: stop its pods instead",
            )
        left = await self._until_gone(controllers)
        if left:
            raise Unavailable(
                f"{', '.join(left)} did not go when given up: {result.stderr.strip()}",
                volume=volume,
            )
        log.warning("given up", nqn=controllers[0].nqn, volume=volume)

    async def rescan(self, controllers: Sequence[Controller], *, volume: str) -> None:
        """Have the kernel read the namespaces of the controllers again."""
        result = await self._prover.act(
            "rescan", controllers, timeout=self._timings.disconnect, volume=volume
        )
        if result.returncode not in (0, NOT_OURS):
            raise CommandFailed(
                f"its namespaces could not be read again: {result.stderr.strip()}",
                returncode=result.returncode,
                stderr=result.stderr,
                volume=volume,
            )

    async def _until_gone(self, controllers: Sequence[Controller]) -> list[str]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timings.gone
        while True:
            left = [controller.name for controller in controllers if self._is_there(controller)]
            if not left or loop.time() >= end:
                return left
            await asyncio.sleep(self._timings.poll)

    def _is_there(self, controller: Controller) -> bool:
        return any(
            other.name == controller.name and other.hostnqn == self._host.nqn
            for other in self._sysfs.controllers(controller.nqn)
        )
