"""Judges the health of volumes on this node from sysfs, the mount table and our records.

Nothing here touches a device, so nothing here can hang on a dead one.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime

from rds_csi.errors import PathNotFound
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.model.health import Problem, Severity, StorageProblem, StorageSeverity
from rds_csi.node.attempts import Attempts
from rds_csi.node.condition import Link, Shown, judge_link, judge_mount, paths_down
from rds_csi.node.look import Look, Looks
from rds_csi.node.sizes import Inspector
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.waiting import GIVEN_UP, RECONNECTING, Waiting, Waits
from rds_csi.nvme.baseline import Doubt
from rds_csi.nvme.counters import Verdict
from rds_csi.nvme.sysfs import Controller

_WAITS = "its I/O waits in its map and nothing is lost"
_RESTART = "stop the pods that use the volume; it is mounted anew when they start again"


class HealthCheck:
    """Answers what is wrong, and with nothing wrong, nothing."""

    def __init__(
        self,
        *,
        looks: Looks,
        devices: BlockDevices,
        inspector: Inspector,
        store: StagingStore,
        doubt: Callable[[str], Doubt | None],
        waits: Waits,
        attempts: Attempts,
    ) -> None:
        self._looks = looks
        self._devices = devices
        self._inspector = inspector
        self._store = store
        self._doubt = doubt
        self._waits = waits
        self._attempts = attempts

    async def volume(self, volume: str, *paths: str) -> list[Problem]:
        """:meth:`seen`, by a look of its own."""
        return await self.seen(await self._looks.at(volume), volume, *paths)

    async def seen(self, look: Look, volume: str, *paths: str) -> list[Problem]:
        """What is wrong with the volume and with what is mounted at ``paths``, by one look.

        Raises :class:`PathNotFound` for a volume that this node does not have, and for a path
        that never was the volume's.
        """
        record = await self._store.read(volume)
        if record is not None and not record.staged:
            record = None
        at_paths = [path for path in paths if path]
        told = self._attempts.of(volume)
        if record is None and told:
            return [Problem(Severity.INACCESSIBLE, "NotStaged", f"not on this node yet: {told}")]
        if record is None and not look.controllers and not _mapped(look):
            raise PathNotFound("it is not on this node", volume=volume)
        waiting = self._waits.of(volume)
        found = [
            *_of_connection(look, waiting),
            *_of_paths(look, record),
            *_of_record(record),
            *_of_target_memory(self._doubt(volume)),
        ]
        for path in at_paths:
            self._require_known(path, volume, look, record)
            found += self._at_path(path, look, record)
        unique = {(each.severity, each.reason): each for each in found}
        return list(unique.values())

    async def storage(self) -> list[StorageProblem]:
        """What is wrong between this node and the targets its volumes are on."""
        by_target: dict[str, list[Controller]] = {}
        controllers = await self._looks.all_controllers()
        reached = {controller.nqn for controller in controllers if controller.live}
        for controller in controllers:
            target = f"{controller.address}:{controller.port}"
            by_target.setdefault(target, []).append(controller)
        return [
            problem
            for target, controllers in sorted(by_target.items())
            if (problem := _of_target(target, controllers, reached)) is not None
        ]

    def _require_known(
        self, path: str, volume: str, look: Look, record: StagedVolume | None
    ) -> None:
        mounted = look.mounts.at(path)
        gone = bool(mounted) and not self._devices.exists(mounted[-1].devno)
        shown = self._shown(look, path)
        if not (shown or gone or _expected(path, record)):
            raise PathNotFound(f"it is not at {path}", volume=volume)

    def _shown(self, look: Look, path: str) -> str:
        if look.front is None:
            return ""
        return self._inspector.shown(look.mounts, path, look.front)

    def _at_path(self, path: str, look: Look, record: StagedVolume | None) -> Iterator[Problem]:
        shown = self._shown(look, path)
        verdict = Shown.WELL
        if shown != "device":
            numbers = [look.front.devno] if look.front is not None else []
            writable = record is not None and not record.read_only
            verdict = judge_mount(look.mounts.at(path), numbers, writable=writable)
        if verdict is Shown.NOTHING and _expected(path, record):
            yield Problem(
                Severity.INACCESSIBLE,
                "MountLost",
                f"nothing is mounted at {path} any more; {_RESTART}",
            )
        elif verdict is Shown.STALE:
            yield Problem(
                Severity.INACCESSIBLE,
                "StaleMount",
                f"what is mounted at {path} is not the volume's present device; {_RESTART}",
            )
        elif verdict is Shown.READ_ONLY:
            yield Problem(
                Severity.DEGRADED,
                "FileSystemReadOnly",
                f"the kernel made the file system at {path} read-only after an error; see the "
                "node's kernel log, stop the pods, and check it with fsck.ext4 or xfs_repair",
            )


def _expected(path: str, record: StagedVolume | None) -> bool:
    if record is None:
        return False
    published = any(path == target for target, _ in record.targets)
    return published or (bool(record.fs_type) and path == record.staging_path)


def _of_record(record: StagedVolume | None) -> Iterator[Problem]:
    if record is None:
        return
    if record.ungrown:
        yield Problem(
            Severity.DEGRADED,
            "NotGrown",
            "its file system is smaller than its device and could not be grown; it is tried again "
            f"when the volume is staged or expanded: {record.ungrown}",
        )
    if record.superseded is not None:
        known = "an unknown one" if record.generation is None else str(record.generation)
        yield Problem(
            Severity.DEGRADED,
            "StaleGeneration",
            f"it is mounted since generation {known} of its hand-overs, and at "
            f"{record.superseded} now: another node may have written to it since; {_RESTART}",
        )


def _of_target_memory(doubt: Doubt | None) -> Iterator[Problem]:
    # What cannot be told is no problem that is known: it is logged and counted.
    if doubt is not None and doubt.verdict is Verdict.BOOTED:
        yield Problem(
            Severity.DEGRADED,
            "TargetRestarted",
            f"the RDS began anew between {doubt.when}. Unless it went down in order, what was "
            "written before and not flushed is lost, also where an fsync succeeded afterwards; "
            f"{_RESTART}. Then check its data",
        )


def _mapped(look: Look) -> bool:
    return look.front is not None and look.front.map is not None


def _of_connection(look: Look, waiting: Waiting | None) -> Iterator[Problem]:
    controllers = look.controllers
    link = judge_link(controllers, device=look.namespace is not None)
    if waiting is not None and waiting.reason != RECONNECTING:
        yield _of_wait(waiting)
    elif link is Link.GONE and _mapped(look):
        yield _given_up(f"{_WAITS}; the driver is to connect it")
    elif link is Link.GONE:
        yield Problem(
            Severity.INACCESSIBLE,
            "NotConnected",
            "the kernel gave the NVMe connection up: ctrlLossTmo was over or, on Linux 6.10 and "
            f"newer, the target said that it has no such export; {_RESTART}",
        )
    elif link is Link.WAITING:
        states = ", ".join(
            f"{each.name} to {each.address}:{each.port} is {each.state}, "
            f"tried again every {each.reconnect_delay or '?'} s, given up after "
            f"{'no time' if each.ctrl_loss_tmo == 'off' else each.ctrl_loss_tmo + ' s'}"
            for each in controllers
        )
        yield Problem(Severity.INACCESSIBLE, "Reconnecting", f"I/O waits: {states}")
    elif link is Link.EMPTY:
        yield Problem(
            Severity.INACCESSIBLE,
            "NamespaceMissing",
            "connected, but the RDS exports no disk under this name; look at /disk there",
        )


def _of_wait(waiting: Waiting) -> Problem:
    since = datetime.fromtimestamp(waiting.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    what = f"{_WAITS}, since {since}; tried {waiting.tries} times to bring it back: {waiting.why}"
    if waiting.reason == GIVEN_UP:
        return _given_up(what)
    return Problem(Severity.INACCESSIBLE, "NotHealed", what)


def _given_up(what: str) -> Problem:
    return Problem(Severity.INACCESSIBLE, "ConnectionGivenUp", what)


def _of_paths(look: Look, record: StagedVolume | None) -> Iterator[Problem]:
    if record is None:
        return
    if down := paths_down(record.addresses, look.controllers):
        yield Problem(
            Severity.DEGRADED,
            "PathDown",
            f"nothing reaches it over {', '.join(down)}; its I/O goes over what is left, and the "
            "next one lost is an outage. It is tried again; a node whose kernel joins no paths "
            "(nvme_core.multipath=N) uses one address alone",
        )


def _of_target(
    target: str, controllers: list[Controller], reached: Collection[str]
) -> StorageProblem | None:
    """``reached``: the NQNs that have a live connection, to this address or another."""
    live = sum(controller.live for controller in controllers)
    if live == len(controllers):
        return None
    words = f"{live} of {len(controllers)} connections to {target} are live"
    if all(controller.nqn in reached for controller in controllers):
        words += "; each volume is reached over another address"
        return StorageProblem(StorageSeverity.DEGRADED, "ConnectionsLost", words)
    if live:
        return StorageProblem(StorageSeverity.DEGRADED, "ConnectionsLost", words)
    return StorageProblem(
        StorageSeverity.UNREACHABLE,
        "TargetUnreachable",
        f"{words}; is the RDS up, and the network between?",
    )
