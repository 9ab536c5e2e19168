"""Runs ``nvme connect``: one address at a time, so many at once on this node.

What ``nvme`` says of it counts for little: nvme-cli of each version takes some connections for
others, and fails after the kernel has connected. So sysfs is read before and after.
"""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Final

import structlog

from rds_csi.errors import CommandFailed, CommandStuck, DriverError, NotReady, VolumeInUse
from rds_csi.model.contexts import Endpoint
from rds_csi.model.host_identity import HostIdentity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.arguments import run_connect
from rds_csi.nvme.cli_errors import MODPROBE, connect_error, says_already_connected
from rds_csi.nvme.readiness import Timings
from rds_csi.nvme.removal import Remover
from rds_csi.nvme.sysfs import Controller, Sysfs
from rds_csi.runtime.process import Runner

log = structlog.get_logger(__name__)

FABRICS: Final = Path("/dev/nvme-fabrics")


class Dialer:
    """Connects this host. ``limit`` bounds how many connects are under way at once."""

    def __init__(
        self,
        runner: Runner,
        sysfs: Sysfs,
        host: HostIdentity,
        remover: Remover,
        *,
        limit: int,
        timings: Timings,
        fabrics: Path = FABRICS,
    ) -> None:
        self._runner = runner
        self._sysfs = sysfs
        self._host = host
        self._remover = remover
        self._timings = timings
        self._fabrics = fabrics
        self._limit = asyncio.Semaphore(limit)

    def own(self, nqn: str) -> list[Controller]:
        """This host's connections to the subsystem."""
        return [
            controller
            for controller in self._sysfs.controllers(nqn)
            if controller.hostnqn == self._host.nqn
        ]

    def new(self, endpoint: Endpoint, before: Collection[str]) -> list[Controller]:
        """The connections that came since only ``before`` were there, or lead to the endpoint.

        To be asked where none led there before.
        """
        return [
            each
            for each in self.own(endpoint.nqn)
            if each.name not in before or is_at(each, endpoint)
        ]

    async def dial(self, endpoint: Endpoint, config: ConnectionConfig, *, volume: str) -> bool:
        """Connect there, where no connection leads yet; whether it was this call that did it.

        A failure takes back what it made. Raises :class:`ConnectFailed` (transient),
        :class:`ConnectRejected`, :class:`NotReady`, :class:`VolumeInUse` where another host
        identity is in the way, :class:`CommandTimeout` where nobody answers.
        """
        if not self._fabrics.exists():
            raise NotReady(f"{self._fabrics} does not exist", volume=volume, advice=MODPROBE)
        self._check_others(endpoint.nqn, volume, refused=False)
        async with self._limit:
            before = {each.name for each in self.own(endpoint.nqn)}
            try:
                await run_connect(
                    self._runner,
                    endpoint,
                    config,
                    self._host,
                    timeout=self._timings.connect,
                    volume=volume,
                )
            except CommandFailed as error:
                faster = says_already_connected(error)
                if self.new(endpoint, before):
                    # Or it connected and failed at something else: then it is proven like any.
                    log.info(
                        "connected all the same",
                        nqn=endpoint.nqn,
                        volume=volume,
                        why=error.what,
                    )
                    return not faster
                if faster:
                    self._check_others(endpoint.nqn, volume, refused=True)
                raise connect_error(
                    error, endpoint, transport=self._sysfs.has_transport(), volume=volume
                ) from error
            except CommandStuck:
                raise
            except DriverError:
                # nvme was killed; the kernel then takes the half-made controller back, mostly.
                made = [each for each in self.own(endpoint.nqn) if each.name not in before]
                await self.take_back(made, volume=volume)
                raise
        return True

    async def take_back(self, controllers: list[Controller], *, volume: str) -> None:
        """Remove what a failed call made; what cannot be is logged: the failure is what counts.

        Raises :class:`CommandStuck` alone.
        """
        if not controllers:
            return
        try:
            await self._remover.remove(controllers, volume=volume)
        except CommandStuck:
            raise
        except DriverError as error:
            log.warning(
                "failed connection not undone",
                nqn=controllers[0].nqn,
                volume=volume,
                error=str(error),
            )

    def _check_others(self, nqn: str, volume: str, *, refused: bool) -> None:
        """Raise :class:`VolumeInUse` if another host identity's connection is in the way.

        The kernel tells them apart; nvme-cli 2.3 takes any connection to the same address for
        ours and says "already connected". Only this driver's predecessor, or a second node on
        the same kernel, has one. In use, it must stay the only way to the volume.
        """
        others = [
            entry for entry in self._sysfs.controllers(nqn) if entry.hostnqn != self._host.nqn
        ]
        users = self._remover.users(others)
        if users or (others and refused):
            raise VolumeInUse(
                f"another host identity, {others[0].hostnqn}, has it connected on this node: "
                f"{', '.join(users or [entry.name for entry in others])}",
                volume=volume,
                advice="drain the node, or unmount and disconnect it there first",
            )


def is_at(controller: Controller, endpoint: Endpoint) -> bool:
    """Whether the controller leads there."""
    return (controller.address, controller.port) == (endpoint.address, endpoint.port)
