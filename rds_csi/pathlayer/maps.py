"""The maps of this node's volumes, through ``dmsetup`` and sysfs.

A map is found and proven by its dm UUID, which names cluster, volume and generation: the one thing
of it that the kernel never changes and never gives to another. So every command names the map by
that UUID, and no map of any other form is ever touched.

The kernel decides: nothing is remembered here. ``/sys/block/dm-N/dm/uuid`` finds a map after a
restart, ``slaves`` beside it tells what it leads to. No udev and no multipathd is in this; where a
multipathd runs, it leaves alone what has a UUID that does not begin with ``mpath-``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

import structlog

from rds_csi.errors import CommandFailed, FailedPrecondition, Internal, NotReady, VolumeInUse
from rds_csi.model.block_device import Device, DeviceNumber
from rds_csi.model.record import owner_tag
from rds_csi.model.volume import is_volume_id
from rds_csi.pathlayer.table import SECTOR, Status, Table, UnknownMap
from rds_csi.runtime.attributes import children, device_number, read
from rds_csi.runtime.process import Result, Runner

log = structlog.get_logger(__name__)

MODPROBE: Final = (
    "on the node: `modprobe -a dm-multipath dm-round-robin`, and have both loaded at boot; or turn "
    "the path layer off (chart value pathLayer.enabled)"
)
_TIMEOUT: Final = 30.0
"""Seconds. None of the commands waits for I/O; ``remove --retry`` tries for five."""
_UUID: Final = re.compile(r"RDSCSI-([0-9a-f]{8})-([a-z0-9-]{1,63})\.(0|[1-9][0-9]{0,17})")
_NAME: Final = re.compile(r"dm-[0-9]+")
_RESUME: Final = ("--noflush", "--nolockfs", "--noudevsync")


class Holder(Protocol):
    """What runs a program on a proven device: :class:`rds_csi.filesystem.devices.BlockDevices`."""

    async def run_on(
        self,
        device: Device,
        command: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the deadline ends a program, not a coroutine
        volume: str,
    ) -> Result:
        """Run ``command`` with the device held open, proven the volume's before and after."""


@dataclass(frozen=True, slots=True)
class MapIdentity:
    """Whose a map is: the ``tag`` of its owner, the volume, the generation of its NQN."""

    tag: str
    volume: str
    generation: int

    @property
    def uuid(self) -> str:
        """The dm UUID, and the dm name, which is for people."""
        return f"RDSCSI-{self.tag}-{self.volume}.{self.generation}"

    @classmethod
    def parse(cls, uuid: str) -> Self | None:
        """The identity in a dm UUID, or None for a map that no driver of this kind made."""
        match = _UUID.fullmatch(uuid)
        if match is None or not is_volume_id(match[2]):
            return None
        return cls(match[1], match[2], int(match[3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """A map as the kernel shows it. ``size`` in bytes.

    ``paths`` are the devices it leads to, of every table that is loaded; one that the kernel gave
    up is not among them. A ``suspended`` map lets no I/O through.
    """

    identity: MapIdentity
    device: Path
    devno: DeviceNumber
    size: int
    suspended: bool
    paths: tuple[DeviceNumber, ...]


class Maps:
    """The maps of one cluster's volumes on this node; ``owner`` is driver, cluster and host NQN."""

    def __init__(
        self,
        runner: Runner,
        holder: Holder,
        owner: str,
        *,
        root: Path = Path("/sys"),
        dev: Path = Path("/dev"),
    ) -> None:
        self._runner = runner
        self._holder = holder
        self._tag = owner_tag(owner)
        self._root = root
        self._dev = dev

    # What the kernel shows

    def identity(self, volume: str, generation: int) -> MapIdentity:
        """The identity that a map of the volume has to have."""
        return MapIdentity(self._tag, volume, generation)

    def all(self) -> list[Map]:
        """Every map of this cluster's volumes, in the order of their device numbers."""
        return self._found(lambda _identity: True)

    def of(self, volume: str) -> list[Map]:
        """The volume's maps, whatever their generation: none or one, unless something is wrong."""
        return self._found(lambda identity: identity.volume == volume)

    def find(self, volume: str, generation: int | None = None) -> Map | None:
        """The volume's map: that of a generation, or else that of the highest one."""
        maps = [each for each in self.of(volume) if generation in (None, each.identity.generation)]
        return max(maps, key=lambda each: each.identity.generation, default=None)

    def over(self, devno: DeviceNumber) -> list[Map]:
        """This cluster's maps that lead to the device; asks of no other map."""
        entry = f"{self._root}/dev/block/{devno[0]}:{devno[1]}/holders"
        return self._found(lambda _identity: True, children(entry))

    def owner(self, devno: DeviceNumber) -> MapIdentity | None:
        """Whose map a block device is, of whichever cluster; None for what is no such map."""
        entry = f"{self._root}/dev/block/{devno[0]}:{devno[1]}"
        return MapIdentity.parse(read(f"{entry}/dm/uuid"))

    def owner_of_node(self, name: str) -> MapIdentity | None:
        """:meth:`owner`, of the block device that has this name now."""
        if not _NAME.fullmatch(name):
            return None
        return MapIdentity.parse(read(f"{self._root}/block/{name}/dm/uuid"))

    def _found(
        self, wanted: Callable[[MapIdentity], bool], names: Sequence[str] | None = None
    ) -> list[Map]:
        """One small read for each map on the node, or of these, and more only of those wanted."""
        found: list[Map] = []
        for name in children(f"{self._root}/block") if names is None else names:
            if not _NAME.fullmatch(name):
                continue
            entry = f"{self._root}/block/{name}"
            identity = MapIdentity.parse(read(f"{entry}/dm/uuid"))
            if identity is None or identity.tag != self._tag or not wanted(identity):
                continue
            found += self._shown(entry, name, identity)
        return sorted(found, key=lambda each: each.devno)

    def _shown(self, entry: str, name: str, identity: MapIdentity) -> Iterator[Map]:
        devno, size = device_number(entry), read(f"{entry}/size")
        if devno is None or not size.isdigit():
            return  # it goes away
        slaves = (device_number(f"{entry}/slaves/{slave}") for slave in children(f"{entry}/slaves"))
        yield Map(
            identity=identity,
            device=self._dev / name,
            devno=devno,
            size=int(size) * SECTOR,
            suspended=read(f"{entry}/dm/suspended") == "1",
            paths=tuple(sorted(slave for slave in slaves if slave is not None)),
        )

    # What is done

    async def require_possible(self, *, volume: str) -> None:
        """Raise :class:`NotReady` where this node cannot make maps: module or program missing."""
        result = await self._runner.run(
            ["dmsetup", "targets"], timeout=_TIMEOUT, volume=volume, check=False
        )
        if result.returncode or not re.search(r"^multipath\s", result.stdout, re.MULTILINE):
            raise _no_multipath(volume)

    async def create(self, identity: MapIdentity, size: int, device: Device) -> Map:
        """Make the map of ``size`` bytes over the device, and return it.

        The device is proven the volume's before, while and after the map is made, and the map
        leads to it and nothing else when this returns. Where there is a map of that identity
        already, it is returned if that is true of it. Raises :class:`FailedPrecondition` where it
        is not, or where somebody else holds the device, :class:`NotReady` where the kernel has no
        dm-multipath.
        """
        table = Table(sectors=size // SECTOR, paths=(device.devno,))
        if self._of(identity) is None:
            self._require_free(device, identity)
            words = ("create", "--noudevsync", identity.uuid, "--uuid", identity.uuid)
            try:
                await self._on(device, identity, *words, "--table", table.encode())
            except CommandFailed as error:
                if "busy" not in error.stderr.lower():
                    raise
                if not await self._cleared(identity):
                    raise _held(device, "something", identity) from error
                await self._on(device, identity, *words, "--table", table.encode())
        return await self._proven(identity, device, table)

    async def reload(self, found: Map, device: Device, sectors: int) -> Map:
        """Lead the map to the device, proven the volume's, at so many ``sectors``.

        I/O that waits goes on. A map never becomes smaller; one that refuses writes stays so, which
        the kernel forgets (``do_resume``). One call swaps the table in, so it is never suspended.
        """
        identity = found.identity
        if sectors * SECTOR < found.size:
            raise FailedPrecondition(
                f"its device has {sectors * SECTOR} bytes, fewer than the {found.size} of its map",
                volume=identity.volume,
                advice="the RDS exports another file under its name; nothing was changed",
            )
        table = Table(sectors=sectors, paths=(device.devno,))
        self._require_free(device, identity)
        which = ("--uuid", identity.uuid)
        mode = ("--readonly",) * (read(f"{self._root}/block/{found.device.name}/ro") == "1")
        await self._on(device, identity, "load", *which, *mode, "--table", table.encode())
        await self._on(device, identity, "resume", *which, *_RESUME)
        return await self._proven(identity, device, table)

    async def table(self, found: Map) -> Table:
        """The table in use; raises :class:`FailedPrecondition` for one that is not ours."""
        text = (await self._ask(found.identity, "table")).stdout
        try:
            return Table.parse(text)
        except UnknownMap as error:
            raise _not_as_made(found, str(error)) from None

    async def status(self, found: Map) -> Status:
        """Which paths work; raises as :meth:`table` does."""
        text = (await self._ask(found.identity, "status")).stdout
        try:
            return Status.parse(text)
        except UnknownMap as error:
            raise _not_as_made(found, str(error)) from None

    async def fail(self, found: Map) -> None:
        """Let I/O fail that finds no path, instead of waiting; also what waits now."""
        await self._ask(found.identity, "message", "0", "fail_if_no_path")

    async def queue(self, found: Map) -> None:
        """Let I/O wait that finds no path."""
        await self._ask(found.identity, "message", "0", "queue_if_no_path")

    async def remove(self, found: Map) -> None:
        """Remove the map; none is fine. Returns when it is proven gone.

        Raises :class:`VolumeInUse` while it is mounted or held open: the kernel refuses then.
        """
        identity = found.identity
        if self._of(identity) is None:
            return
        try:
            # udev may look at what was just unmounted: dmsetup tries for some seconds.
            await self._ask(identity, "remove", "--noudevsync", "--retry")
        except CommandFailed as error:
            if self._of(identity) is not None:
                if "busy" not in error.stderr.lower():
                    raise
                raise _in_use(found) from error
        if self._of(identity) is not None:
            raise Internal(f"its map {found.device} stays", volume=identity.volume)
        log.info("map removed", volume=identity.volume, map=identity.uuid)

    def _require_free(self, device: Device, identity: MapIdentity) -> None:
        """Raise :class:`VolumeInUse` where anything but the map itself is stacked on the device.

        The kernel does not: all maps claim their devices in one name, so it lets two of them write
        to one device (``drivers/md/dm.c``, ``_dm_claim_ptr``; seen on Linux 6.1 and 6.12).
        """
        own = self._of(identity)
        entry = f"{self._root}/dev/block/{device.number}/holders"
        others = set(children(entry)) - ({own.device.name} if own is not None else set())
        if others:
            raise _held(device, ", ".join(sorted(others)), identity)

    async def _cleared(self, identity: MapIdentity) -> bool:
        """Remove what a create that was killed left: a map without a table; whether there was one.

        sysfs shows it only once it has a table. It leads nowhere, and nobody can have it open.
        """
        if self._of(identity) is not None:
            return False
        result = await self._runner.run(
            ["dmsetup", "remove", "--uuid", identity.uuid, "--noudevsync"],
            timeout=_TIMEOUT,
            volume=identity.volume,
            check=False,
        )
        return result.returncode == 0

    def _of(self, identity: MapIdentity) -> Map | None:
        return next(iter(self._found(identity.__eq__)), None)

    async def _proven(self, identity: MapIdentity, device: Device, table: Table) -> Map:
        """The map, if it leads to the device and nothing else, by a table as we make them."""
        found = self._of(identity)
        if found is None:
            raise Internal("its map is gone as soon as it was made", volume=identity.volume)
        if found.paths != (device.devno,):
            raise _not_as_made(found, f"it leads to {_numbers(found)}, not to {device.number}")
        self._require_free(device, identity)
        shown = await self.table(found)
        if (shown.paths, shown.sectors) != (table.paths, table.sectors):
            raise _not_as_made(found, f"its table is {shown}")
        return found

    async def _ask(self, identity: MapIdentity, command: str, *words: str) -> Result:
        """Run ``dmsetup`` on the map of that UUID."""
        arguments = ["dmsetup", command, "--uuid", identity.uuid, *words]
        return await self._runner.run(arguments, timeout=_TIMEOUT, volume=identity.volume)

    async def _on(self, device: Device, identity: MapIdentity, *words: str) -> None:
        """Run ``dmsetup`` with the device held open and proven."""
        volume = identity.volume
        log.info("map", command=words[0], map=identity.uuid, device=device.number, volume=volume)
        try:
            await self._holder.run_on(device, ["dmsetup", *words], timeout=_TIMEOUT, volume=volume)
        except CommandFailed as error:
            # Without the module the kernel says "Invalid argument", and dmsetup asks for a target.
            if words[0] in ("create", "load") and "busy" not in error.stderr.lower():
                await self.require_possible(volume=volume)
            raise


def _no_multipath(volume: str) -> NotReady:
    return NotReady(
        "the path layer is on, and this node's kernel has no dm-multipath",
        volume=volume,
        advice=MODPROBE,
    )


def _held(device: Device, holder: str, identity: MapIdentity) -> VolumeInUse:
    return VolumeInUse(
        f"no map can be led to {device.path}: {holder} holds it",
        volume=identity.volume,
        advice=f"on the node: lsblk {device.path}; if it is multipathd, blacklist the RDS in its "
        "configuration",
    )


def _in_use(found: Map) -> VolumeInUse:
    return VolumeInUse(
        f"its map {found.device} is still in use",
        volume=found.identity.volume,
        advice=f"on the node: lsblk {found.device}; "
        f"grep {found.devno[0]}:{found.devno[1]} /proc/[0-9]*/mountinfo",
    )


def _not_as_made(found: Map, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"its map {found.device} is not as this driver makes it: {why}",
        volume=found.identity.volume,
        advice=f"on the node: dmsetup table --uuid {found.identity.uuid}; stop the pods that use "
        "it, so that it is unstaged",
    )


def _numbers(found: Map) -> str:
    return ", ".join(f"{major}:{minor}" for major, minor in found.paths) or "nothing"
