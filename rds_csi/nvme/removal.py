"""Takes controllers down: only proven ones, only unused ones, and looks afterwards."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from rds_csi.errors import CommandFailed, CommandTimeout, Unavailable, VolumeInUse
from rds_csi.nvme.host import HostIdentity
from rds_csi.nvme.readiness import DeviceNumber, Timings
from rds_csi.nvme.sysfs import Controller, Sysfs
from rds_csi.process import Runner

log = structlog.get_logger(__name__)

WRITE: Final = """
cd "$1" && [ "$(cat subsysnqn)" = "$2" ] && [ "$(cat hostnqn)" = "$3" ] || exit 3
echo 1 >"$4"
"""
"""What ``nvme disconnect`` and ``nvme ns-rescan`` do, but proven: the directory is entered once,
read, and written in. When the kernel gives its name to another controller meanwhile, the
directory entered is empty and nothing happens. A program of its own, because the write may hang
in the kernel for as long as the network does."""
_NOT_OURS: Final = 3


class Remover:
    """Takes down connections of this host. ``in_use`` tells of a device that is mounted."""

    def __init__(
        self,
        runner: Runner,
        sysfs: Sysfs,
        host: HostIdentity,
        *,
        in_use: Callable[[DeviceNumber], bool],
        timings: Timings,
    ) -> None:
        self._runner = runner
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
        """Take the controllers down; returns when sysfs shows them no more.

        Raises :class:`VolumeInUse` before anything is done if a device of theirs is in use,
        :class:`Unavailable` if one of them stays.
        """
        users = self.users(controllers)
        if users:
            raise VolumeInUse(
                f"not disconnected: {', '.join(users)}", volume=volume, advice="unmount it first"
            )
        problem = ""
        for controller in controllers:
            if controller.leaving:
                continue
            try:
                await self.write(controller, "delete_controller", volume=volume)
            except (CommandFailed, CommandTimeout) as error:
                # It may have gone by itself meanwhile; what counts is whether it is gone.
                problem = f": {error.what}"
        left = await self._until_gone(controllers)
        if left:
            raise Unavailable(
                f"{', '.join(left)} did not go when disconnected{problem}", volume=volume
            )
        for controller in controllers:
            log.info("disconnected", nqn=controller.nqn, controller=controller.name, volume=volume)

    async def write(self, controller: Controller, attribute: str, *, volume: str) -> bool:
        """Write 1 to the attribute; False if the controller is gone, or another's by now."""
        directory = str(self._sysfs.path(controller.name))
        result = await self._runner.run(
            ["sh", "-c", WRITE, "sh", directory, controller.nqn, self._host.nqn, attribute],
            timeout=self._timings.disconnect,
            volume=volume,
            check=False,
        )
        if result.returncode not in (0, _NOT_OURS):
            raise CommandFailed(
                f"{attribute} of {controller.name} could not be written: {result.stderr.strip()}",
                returncode=result.returncode,
                stderr=result.stderr,
                volume=volume,
            )
        return result.returncode == 0

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
