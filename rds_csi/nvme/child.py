"""Runs :mod:`rds_csi.nvme.proven` with this host's controllers."""

import sys
from collections.abc import Sequence
from typing import Final, Literal

from rds_csi.model.host_identity import HostIdentity
from rds_csi.nvme import proven
from rds_csi.nvme.sysfs import Controller, Sysfs
from rds_csi.runtime.process import Result, Runner

PROVEN: Final = (sys.executable, "-I", "-S", "-B", proven.__file__)

Command = Literal["delete", "rescan", "give-up"]


class Prover:
    """Acts on controllers and devices that are proven to be the ones meant, in a child."""

    def __init__(self, runner: Runner, sysfs: Sysfs, host: HostIdentity) -> None:
        self._runner = runner
        self._sysfs = sysfs
        self._host = host

    async def act(
        self,
        command: Command,
        controllers: Sequence[Controller],
        *,
        timeout: float,  # noqa: ASYNC109 - the deadline ends a program, not a coroutine
        volume: str,
    ) -> Result:
        """Do ``command`` with the controllers, which are all of one subsystem.

        The exit status is of :mod:`.proven`; raises what the runner raises of programs that do
        not end.
        """
        return await self._run((command,), controllers, timeout, volume)

    async def read(
        self,
        device: str,
        number: tuple[int, int],
        controllers: Sequence[Controller],
        *,
        timeout: float,  # noqa: ASYNC109 - as above
        volume: str,
    ) -> Result:
        """Read a block of the device, if it is one that a controller leads to."""
        what = ("read", device, f"{number[0]}:{number[1]}")
        return await self._run(what, controllers, timeout, volume)

    async def _run(
        self, what: Sequence[str], controllers: Sequence[Controller], seconds: float, volume: str
    ) -> Result:
        command, *device = what
        root, dev = self._sysfs.places
        return await self._runner.run(
            [
                *(*PROVEN, command, str(root), str(dev), controllers[0].nqn, self._host.nqn),
                *device,
                *(str(self._sysfs.path(controller.name)) for controller in controllers),
            ],
            timeout=seconds,
            volume=volume,
            check=False,
        )
