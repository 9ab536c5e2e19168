"""Connects and disconnects volumes. What is connected, sysfs says; this remembers nothing.

How it keeps its promises:

* **Never twice.** One lock per NQN, and a look into sysfs before each connect. A controller that
  is live, or that the kernel is bringing back, counts as connected; "already connected" from
  ``nvme`` means somebody was faster, so sysfs is read again.
* **Never another's.** Only controllers of an NQN of our form *and* with our host NQN are taken
  down, by a write that proves both on the very directory it writes in (:mod:`.proven`).
* **Never in use.** Nothing that is mounted or held is taken down: the kernel is asked, by opening
  the device for us alone, and it stays so until its controllers are gone (:mod:`.removal`).
* **Never a lie.** A volume is connected when its device answered a read and each setting of the
  new connection was read back (:mod:`.live_settings`), and disconnected when its controllers are
  gone from sysfs: ``nvme disconnect`` ends with 0 also where it did nothing.

A controller of ours at another address than asked for: while it is live it is used as it is,
for it reaches the same subsystem, and a second connection would be a second way to write. If it
is not live and nothing uses it, the RDS has moved: it is replaced. In use, it is an error that
says so.

A target may have several addresses: see :mod:`.multipath`. One that connects is enough.

When a call fails, it takes down what it connected itself. When it is cancelled, a connection
that stands stays: the next call finds it, or the reaper.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from rds_csi.errors import (
    CommandStuck,
    ConnectFailed,
    DriverError,
    NotOurs,
    VolumeInUse,
)
from rds_csi.model.contexts import Endpoint, Target
from rds_csi.model.host_identity import HostIdentity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.arguments import is_our_nqn
from rds_csi.nvme.child import Prover
from rds_csi.nvme.dialer import FABRICS, Dialer, is_at
from rds_csi.nvme.live_settings import Settings
from rds_csi.nvme.locks import NqnLocks
from rds_csi.nvme.multipath import Answers, Paths, answers, missing
from rds_csi.nvme.readiness import DeviceNumber, Readiness, Timings, device_number
from rds_csi.nvme.removal import Remover
from rds_csi.nvme.sysfs import Controller, Namespace, Sysfs
from rds_csi.runtime.process import Runner
from rds_csi.runtime.retry import RetryPolicy, is_transient, retrying
from rds_csi.runtime.scope import Scope

log = structlog.get_logger(__name__)

DEFAULT_PREFIX: Final = "nqn.2000-02.com.mikrotik"


class Connector:
    """NVMe/TCP connections of this node, under its one host identity.

    ``in_use`` tells whether a device number is mounted. ``limit`` bounds how many connects are
    under way at once, so that a node that starts does not storm the target. ``on_event`` is
    told of ``connected``, ``connect_failed``, ``path_failed``, ``retry``, ``disconnected``:
    metrics. Connects with their retries run in ``scope``, and end with it. ``answers`` tells
    whether somebody listens at an address; asked only where there are several.
    """

    def __init__(
        self,
        runner: Runner,
        sysfs: Sysfs,
        host: HostIdentity,
        *,
        in_use: Callable[[DeviceNumber], bool],
        nqn_prefix: str = DEFAULT_PREFIX,
        limit: int = 8,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        timings: Timings = Timings(),  # noqa: B008 - frozen
        fabrics: Path = FABRICS,
        rng: random.Random | None = None,
        number_of: Callable[[Path], DeviceNumber | None] = device_number,
        on_event: Callable[[str], None] = lambda _event: None,
        scope: Scope | None = None,
        answers: Answers = answers,
    ) -> None:
        self._sysfs = sysfs
        self._host = host
        self._prefix = nqn_prefix
        self._policy = policy
        self._timings = timings
        self._rng = rng
        self._on_event = on_event
        self._scope = scope or Scope()
        self._locks = NqnLocks()
        self._connecting: Counter[str] = Counter()
        self._settings = Settings(sysfs, host)
        prover = Prover(runner, sysfs, host)
        self._remover = Remover(prover, sysfs, host, in_use=in_use, timings=timings)
        self._dialer = Dialer(
            runner, sysfs, host, self._remover, limit=limit, timings=timings, fabrics=fabrics
        )
        self._paths = Paths(
            self._dialer,
            self._settings,
            sysfs,
            timings=timings,
            answers=answers,
            on_event=on_event,
        )
        self._readiness = Readiness(
            prover, sysfs, host, timings=timings, number_of=number_of, rescan=self._rescan
        )

    def busy(self, nqn: str) -> bool:
        """Whether a call is at work on the subsystem, or waits to try it again."""
        return self._locks.locked(nqn) or nqn in self._connecting

    def find(self, nqn: str) -> Namespace | None:
        """The namespace as sysfs shows it now, in whatever state its connection is."""
        return self._sysfs.namespace(nqn, self._host.nqn)

    async def connect(self, target: Target, *, volume: str = "") -> Namespace:
        """:meth:`connect_with_config` with the default settings."""
        return await self.connect_with_config(target, ConnectionConfig(), volume=volume)

    async def connect_with_config(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        """Connect once, or find connected; returns when the device has answered a read.

        The settings count for a new connection only, and each is read back; what is otherwise
        about one that stands is logged. Raises :class:`ConnectFailed` (transient),
        :class:`ConnectRejected`, :class:`NotReady`, :class:`NotOurs`, :class:`VolumeInUse`.
        """
        self._check_ours(target.nqn, volume)
        namespace: Namespace | None = None
        try:
            async with self._locks.hold(target.nqn):
                namespace = await self._usable(target, config, volume)
                if len(target.addresses) > 1:
                    await self._paths.add_missing(target, config, volume=volume)
        except CommandStuck as stuck:
            # One address is enough. What hangs at another keeps the lock until it is gone.
            if namespace is None:
                raise
            log.warning("address hangs", volume=volume, nqn=target.nqn, error=str(stuck))
        self._on_event("connected")
        return namespace

    async def _usable(self, target: Target, config: ConnectionConfig, volume: str) -> Namespace:
        """The namespace over one connection, which is made or found; proven either way."""
        made = await self._ensure_connection(target, config, volume)
        try:
            namespace = await self._readiness.usable(target.nqn, volume)
            if made is not None:
                self._settings.require(self._own(target.nqn), made, config, volume=volume)
            else:
                self._settings.compare(self._own(target.nqn), config, volume=volume)
        except CommandStuck:
            raise
        except DriverError:
            await self._undo(target.nqn, volume, made=made is not None)
            raise
        log.info(
            "connected",
            volume=volume,
            nqn=target.nqn,
            device=str(namespace.device),
            size=namespace.size,
            new=made is not None,
        )
        return namespace

    async def connect_missing(
        self,
        target: Target,
        config: ConnectionConfig,
        *,
        volume: str = "",
        confirm: Callable[[], Awaitable[bool]] | None = None,
    ) -> list[str]:
        """Connect at the addresses of a connected volume that have no connection.

        Returns those that are still without one: with nothing connected all of them, for a first
        connection is never made here. ``confirm`` is asked under the subsystem's lock; if it says
        no, nothing happens. What fails at an address is logged and counted; raised is
        :class:`NotOurs`, and :class:`ShuttingDown` when the driver stops.
        """
        self._check_ours(target.nqn, volume)
        own = self._own(target.nqn)
        wanted = missing(target, own)
        if not wanted or self._paths.extensible(own):
            return [endpoint.address for endpoint in wanted]

        async def connect() -> list[str]:
            # Asked before the lock is taken: an unstage is not to wait for a dead address.
            there = await self._paths.answering(wanted)
            async with self._locks.hold(target.nqn):
                if confirm is not None and not await confirm():
                    return [endpoint.address for endpoint in wanted]
                return await self._paths.add_missing(target, config, volume=volume, among=there)

        try:
            with self._counted(target.nqn):
                return await self._scope.run(connect)
        except CommandStuck as stuck:
            log.warning("address hangs", volume=volume, nqn=target.nqn, error=str(stuck))
            return [endpoint.address for endpoint in wanted]

    async def connect_with_retry(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        """:meth:`connect_with_config`, again after transient failures, as the policy says.

        When the attempts are used up: :class:`ConnectFailed` with the last cause. When the
        driver stops meanwhile: :class:`ShuttingDown`.
        """
        with self._counted(target.nqn):
            return await self._scope.run(lambda: self._retried(target, config, volume))

    async def _retried(self, target: Target, config: ConnectionConfig, volume: str) -> Namespace:
        try:
            return await retrying(
                lambda: self.connect_with_config(target, config, volume=volume),
                what=f"connect {target.nqn}",
                policy=self._policy,
                rng=self._rng,
                on_retry=lambda: self._on_event("retry"),
            )
        except DriverError as error:
            self._on_event("connect_failed")
            if not is_transient(error):
                raise
            raise ConnectFailed(
                f"connection failed after retries: {error.what}",
                volume=volume,
                advice=error.advice,
            ) from error

    async def disconnect(
        self,
        nqn: str,
        *,
        volume: str = "",
        confirm: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Take down this host's connections to the subsystem.

        Returns when they are proven gone. Nothing connected is success. ``confirm`` is asked
        once nobody else can touch the subsystem any more; if it says no, nothing happens.
        Raises :class:`NotOurs`, :class:`VolumeInUse`, :class:`Unavailable` if one stays.
        """
        self._check_ours(nqn, volume)
        async with self._locks.hold(nqn):
            controllers = self._own(nqn)
            if not controllers or (confirm is not None and not await confirm()):
                return
            await self._remover.remove(controllers, volume=volume)
            self._on_event("disconnected")

    async def rescan(self, nqn: str, *, volume: str = "") -> None:
        """Have the kernel read the namespaces again: their sizes, and which there are.

        It does so by itself when the target announces a change; a target that does not is why
        this is here. Controllers that are not live are left out.
        """
        self._check_ours(nqn, volume)
        async with self._locks.hold(nqn):
            await self._rescan(nqn, volume)

    def _own(self, nqn: str) -> list[Controller]:
        return self._dialer.own(nqn)

    def _check_ours(self, nqn: str, volume: str) -> None:
        if not is_our_nqn(nqn, self._prefix):
            raise NotOurs(
                f"{nqn!r} is not the name of a volume of this driver",
                volume=volume,
                advice=f"such names are {self._prefix}:pvc-…",
            )

    @contextmanager
    def _counted(self, nqn: str) -> Iterator[None]:
        self._connecting[nqn] += 1
        try:
            yield
        finally:
            self._connecting[nqn] -= 1
            if not self._connecting[nqn]:
                del self._connecting[nqn]

    async def _ensure_connection(
        self, target: Target, config: ConnectionConfig, volume: str
    ) -> Endpoint | None:
        """Where a connection had to be made; None where one stands."""
        own = self._own(target.nqn)
        standing = [
            controller
            for controller in own
            if not controller.leaving and (controller.live or _is_at(controller, target))
        ]
        stale = [controller for controller in own if controller not in standing]
        if stale and not (standing and self._sysfs.joined(standing)):
            # Beside joined paths it does no harm: the kernel uses those that live.
            await self._replace(stale, target, volume)
        if not standing:
            return await self._paths.first(target, config, volume=volume)
        if len(target.addresses) > 1 and not any(controller.live for controller in standing):
            # The kernel is at one of them, and another may carry the I/O that waits.
            await self._paths.add_missing(target, config, volume=volume)
        return None

    async def _replace(self, stale: list[Controller], target: Target, volume: str) -> None:
        old = ", ".join(f"{entry.name} to {entry.address} ({entry.state})" for entry in stale)
        users = self._remover.users(stale)
        if users:
            raise VolumeInUse(
                f"connected by {old} and {', '.join(users)}, while the target is at "
                f"{' and '.join(map(_where, target.endpoints))} now",
                volume=volume,
                advice="bring the old address back, or end what uses the volume on this node",
            )
        log.warning("replacing stale connection", volume=volume, nqn=target.nqn, stale=old)
        await self._remover.remove(stale, volume=volume)

    async def _rescan(self, nqn: str, volume: str) -> None:
        live = [controller for controller in self._own(nqn) if controller.live]
        if live:
            await self._remover.rescan(live, volume=volume)

    async def _undo(self, nqn: str, volume: str, *, made: bool) -> None:
        """Take down what a failed call leaves: its own, or a live connection to no namespace.

        The latter is what the target left of a volume that was away; connecting anew finds
        what it exports now. A connection that the kernel is bringing back is left to it.
        """
        useless = [
            controller
            for controller in self._own(nqn)
            if made or (controller.live and self.find(nqn) is None)
        ]
        await self._dialer.take_back(useless, volume=volume)


def _is_at(controller: Controller, target: Target) -> bool:
    return any(is_at(controller, endpoint) for endpoint in target.endpoints)


def _where(endpoint: Endpoint) -> str:
    return f"{endpoint.address}:{endpoint.port}"
