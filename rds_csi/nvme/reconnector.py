"""Brings back connections that the kernel gave up, or keeps trying in vain to bring back itself.

For a caller that holds the volume's lock, so no other call connects or disconnects it meanwhile.
"""

import structlog

from rds_csi.errors import NotOurs
from rds_csi.model.contexts import Target
from rds_csi.model.host_identity import HostIdentity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.arguments import is_our_nqn
from rds_csi.nvme.child import Prover
from rds_csi.nvme.connector import DEFAULT_PREFIX, Connector
from rds_csi.nvme.readiness import Timings
from rds_csi.nvme.removal import Remover
from rds_csi.nvme.sysfs import Namespace, Sysfs
from rds_csi.runtime.process import Runner
from rds_csi.runtime.scope import Scope

log = structlog.get_logger(__name__)


class Reconnector:
    """One attempt at a time; whoever asks has the patience. ``scope``: it ends with the driver."""

    def __init__(
        self,
        connector: Connector,
        runner: Runner,
        sysfs: Sysfs,
        host: HostIdentity,
        *,
        scope: Scope,
        nqn_prefix: str = DEFAULT_PREFIX,
        timings: Timings = Timings(),  # noqa: B008 - frozen
    ) -> None:
        self._connector = connector
        self._sysfs = sysfs
        self._host = host
        self._scope = scope
        self._prefix = nqn_prefix
        # Nothing is to be removed, only to be given up: what is in use is no question.
        prover = Prover(runner, sysfs, host)
        self._remover = Remover(prover, sysfs, host, in_use=lambda _devno: True, timings=timings)

    async def connect_once(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        """:meth:`Connector.connect_with_config`; :class:`ShuttingDown` if the driver stops."""
        return await self._scope.run(
            lambda: self._connector.connect_with_config(target, config, volume=volume)
        )

    async def disconnect(self, nqn: str, *, volume: str = "") -> None:
        """Take down this host's connections to the subsystem, which nothing may hold."""
        await self._connector.disconnect(nqn, volume=volume)

    async def give_up(self, nqn: str, *, volume: str = "") -> None:
        """Take down this host's connections to the subsystem that are not live, in use or not.

        Whoever waits for them gets errors, so a map of the path layer has to stand above them, or
        the operator has to want it. Nothing connected is success. Raises
        :class:`FailedPrecondition`, and changes nothing, where one is live; :class:`Unavailable`
        if one stays.
        """
        if not is_our_nqn(nqn, self._prefix):
            raise NotOurs(f"{nqn!r} is not the name of a volume of this driver", volume=volume)
        own = [each for each in self._sysfs.controllers(nqn) if each.hostnqn == self._host.nqn]
        if own:
            log.warning("giving up", nqn=nqn, volume=volume, controllers=[e.name for e in own])
            await self._remover.give_up(own, volume=volume)
