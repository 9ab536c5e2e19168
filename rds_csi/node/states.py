"""In what state the staged volumes are: for whoever watches the node from outside."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from rds_csi.filesystem.mounts import Mounts, MountTable
from rds_csi.model.block_device import DeviceNumber
from rds_csi.node.condition import Link, Shown, judge_link, judge_mount, paths_down
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.waiting import RECONNECTING, Waits
from rds_csi.nvme.sysfs import Controller, Sysfs
from rds_csi.pathlayer.maps import Maps

log = structlog.get_logger(__name__)

LIVE: Final = "live"
PATH_DOWN: Final = "path_down"
READ_ONLY: Final = "read_only"
STALE_MOUNT: Final = "stale_mount"
NO_DEVICE: Final = "no_device"
DISCONNECTED: Final = "disconnected"
WAITING: Final = "waiting"
LEFT_OVER: Final = "left_over"
_WELL: Final = frozenset({LIVE, LEFT_OVER})
_USABLE: Final = frozenset({LIVE, PATH_DOWN})
_MOUNT_STATES: Final = {Shown.STALE: STALE_MOUNT, Shown.READ_ONLY: READ_ONLY}


@dataclass(frozen=True, slots=True)
class Look:
    """How many volumes are in each state, and how many came back to ``live`` since the last look.

    A state is the kernel's word for the controller (``live``, ``connecting`` and so on), or
    ``path_down``: live, but not over each of its addresses;
    ``read_only``: live, but the kernel met an error and its file system takes no writes;
    ``stale_mount``: live, but mounted is a device that it no longer is; ``no_device``: live
    without a block device; ``disconnected``: mounted without a connection; ``waiting``: what the
    kernel gave up and a map holds (:mod:`rds_csi.node.healer`);
    ``left_over``: neither, as a reboot leaves the record of a volume that has moved away.
    """

    states: Mapping[str, int]
    reconnected: int


class VolumeStates:
    """Compares what is recorded as staged with what the kernel shows of ``host_nqn``'s volumes.

    An outage that begins and ends between two looks is not seen.
    """

    def __init__(
        self,
        store: StagingStore,
        sysfs: Sysfs,
        maps: Maps,
        mounts: Mounts,
        host_nqn: str,
        *,
        waits: Waits | None = None,
    ) -> None:
        self._store = store
        self._sysfs = sysfs
        self._maps = maps
        self._mounts = mounts
        self._waits = waits if waits is not None else Waits()
        self._host_nqn = host_nqn
        self._before: dict[str, str] = {}

    async def look(self) -> Look:
        """One look; what changed for the worse, or back, is logged with the volume's name."""
        staged = [each for each in await self._store.list() if each.staged]
        # A hundred connections are some thousand small reads: not on the event loop.
        states = await asyncio.to_thread(self._states, staged)
        reconnected = 0
        for volume, state in states.items():
            before = self._before.get(volume, LIVE)
            if state == before:
                continue
            reconnected += state in _USABLE and before not in _WELL | _USABLE
            if state in _WELL:
                log.info("volume changed its state", volume=volume, state=state, was=before)
            else:
                log.warning("volume is not well", volume=volume, state=state, was=before)
        self._before = states
        return Look(Counter(states.values()), reconnected)

    def _states(self, staged: list[StagedVolume]) -> dict[str, str]:
        mounts = self._mounts.lately()
        connections: dict[str, list[Controller]] = {}
        nqns = {each.nqn for each in staged}
        for controller in self._sysfs.controllers_of(nqns.__contains__):
            if controller.hostnqn == self._host_nqn:
                connections.setdefault(controller.nqn, []).append(controller)
        maps: dict[str, set[DeviceNumber]] = {}
        for found in self._maps.all():
            maps.setdefault(found.identity.volume, set()).add(found.devno)
        return {
            each.volume: self._state(
                each, connections.get(each.nqn, []), maps.get(each.volume, set()), mounts
            )
            for each in staged
        }

    def _state(
        self,
        staged: StagedVolume,
        connections: list[Controller],
        maps: set[DeviceNumber],
        mounts: MountTable,
    ) -> str:
        waiting = self._waits.of(staged.volume)
        if waiting is not None and waiting.reason != RECONNECTING:
            return WAITING
        live = [controller for controller in connections if controller.live]
        devices = {device.devno for device in self._sysfs.devices(live)}
        match judge_link(connections, device=bool(devices)):
            case Link.GONE:
                points = (staged.staging_path, *(path for path, _ in staged.targets))
                return DISCONNECTED if any(map(mounts.at, points)) else LEFT_OVER
            case Link.WAITING:
                # One path that the kernel tries to bring back is enough to wait for.
                hopeful = min(connections, key=lambda each: each.leaving)
                # "deleting (no IO)" is a stage of deleting.
                return hopeful.state.partition(" ")[0]
            case Link.EMPTY:
                return NO_DEVICE
            case Link.LIVE:
                mounted = mounts.at(staged.staging_path) if staged.fs_type else []
                well = PATH_DOWN if paths_down(staged.addresses, connections) else LIVE
                return _MOUNT_STATES.get(
                    judge_mount(mounted, devices | maps, writable=not staged.read_only), well
                )
