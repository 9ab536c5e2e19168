"""How the questions of ``unknowns.py`` are put to an RDS.

Proven in ``tests/rds/test_doctor_write.py``.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable
from functools import partial
from typing import Final, NamedTuple

from rds_csi.doctor.rds import host_view
from rds_csi.doctor.rds.initiator import TargetError
from rds_csi.doctor.rds.scratch import HOSTS, Bench
from rds_csi.errors import DriverError, OutcomeUnknown, Unavailable
from rds_csi.model.volume import MINIMUM_SIZE
from rds_csi.routeros import Disk, commands, trials
from rds_csi.routeros.failures import explain
from rds_csi.routeros.reply import Reply
from rds_csi.routeros.trials import Verdict, Volume

_LATER: Final = 2.0
"""Seconds until the command acts whose channel is closed before."""


class Measured(NamedTuple):
    """What came out, and how; why the view from a connected host is missing, if it is."""

    result: str
    how: str
    unseen: str = ""


class Tried(NamedTuple):
    """What RouterOS did with a probe, what it printed, and how long it took."""

    verdict: Verdict
    reply: Reply | None
    seconds: float

    @property
    def text(self) -> str:
        """In words."""
        words = " ".join(self.verdict.text.split())
        return "accepted" if self.verdict.accepted else f"refused: {words}"

    def disk(self) -> Disk | None:
        """The disk that stands there now, if one was printed."""
        if self.reply is None or not self.reply.has("disk"):
            return None
        items = self.reply.items("disk")
        return Disk.parse({"size": 0} | items[0]) if items else None


async def _try(bench: Bench, command: str) -> Tried:
    """Run a probe; a line that RouterOS does not parse is refused as well."""
    started = time.monotonic()
    try:
        reply = await bench.run(bench.session.execute(command))
    except (Unavailable, OutcomeUnknown):
        raise
    except DriverError as error:
        return Tried(Verdict(accepted=False, text=error.what), None, time.monotonic() - started)
    if reply.error is not None:
        raise explain(reply.error)
    return Tried(trials.verdict(reply), reply, time.monotonic() - started)


async def _seen(measured: Measured, look: Awaitable[str]) -> Measured:
    """What was measured, and what a connected host sees of it, if this machine can be one."""
    try:
        seen = await look
    except (TargetError, DriverError) as error:
        return measured._replace(unseen=f"no connected host could look: {error}")
    return measured._replace(
        result=f"{measured.result}; {seen}", how=f"{measured.how}; seen over an NVMe/TCP connection"
    )


async def resize(bench: Bench) -> Measured:
    """Grow a scratch volume twice, by the driver's own means."""
    async with bench.volume() as volume:
        alone = await _grow(bench, volume, 2 * MINIMUM_SIZE)
        await bench.export(volume, exported=True)
        exported = await _grow(bench, volume, 3 * MINIMUM_SIZE)
        measured = Measured(
            f"unexported: {alone}; exported: {exported}",
            "set file-size= on a scratch volume, size read back",
        )
        grow = partial(_grow, bench, volume, 4 * MINIMUM_SIZE)
        return await _seen(measured, host_view.growth(bench, volume, grow))


async def _grow(bench: Bench, volume: Volume, size: int) -> str:
    try:
        disk = await bench.run(bench.disks.expand(volume.slot, size))
    except (Unavailable, OutcomeUnknown):
        raise
    except DriverError as error:
        return error.what
    return f"honoured, {disk.size} bytes"


async def same_slot(bench: Bench) -> Measured:
    """Add a disk to a slot that a scratch volume has."""
    other = bench.plan()
    async with bench.volume() as volume, bench.clean(other):
        tried = await _try(bench, trials.same_slot(volume, other.file_path, MINIMUM_SIZE))
    return Measured(f"a slot that exists: {tried.text}", "a second /disk/add of a scratch slot")


async def over_file(bench: Bench) -> Measured:
    """Add a disk over the file that a removed one left."""
    async with bench.volume() as volume:
        unseen = await _marked(bench, volume)
        tried = await _try(bench, trials.over_file(volume, MINIMUM_SIZE))
        disk = tried.disk()
        shown = f", the disk shows {disk.size} bytes" if disk else ", no disk is there"
        measured = Measured(
            f"{tried.text}{shown}",
            "/disk/remove of a scratch volume, then /disk/add over its file",
            unseen,
        )
        if disk is None or unseen:
            return measured
        return await _seen(measured, host_view.content(bench, volume))


async def _marked(bench: Bench, volume: Volume) -> str:
    """Write into the volume what is looked for later; why that was not possible."""
    try:
        await host_view.mark(bench, volume)
    except TargetError as error:
        return f"no connected host could look: {error}"
    return ""


async def allow_host(bench: Bench) -> Measured:
    """One host NQN, two, and none."""
    results = []
    async with bench.volume() as volume:
        for name, hosts in (("one host NQN", HOSTS[:1]), ("two with a comma", HOSTS), ("none", ())):
            tried = await _try(bench, trials.allow(volume, hosts))
            disk = tried.disk()
            kept = disk is not None and disk.allowed_host == ",".join(hosts)
            results.append(f"{name}: {tried.text}, {'' if kept else 'not '}read back the same")
        measured = Measured("; ".join(results), "set on a scratch volume, read back")

        async def restrict(*hosts: str) -> None:
            await _try(bench, trials.allow(volume, hosts))

        return await _seen(measured, host_view.admission(bench, volume, restrict))


async def rename(bench: Bench) -> Measured:
    """Three names, given while the export is closed, open, and handed over."""
    async with bench.volume() as volume:
        closed, opened, handed_over = (f"{volume.nqn}.{number}" for number in (1, 2, 3))

        async def named(nqn: str) -> str:
            tried = await _try(bench, trials.rename(volume, nqn))
            disk = tried.disk()
            kept = disk is not None and disk.nqn == nqn
            return f"{tried.text}, {'' if kept else 'not '}read back the same"

        results = [f"closed: {await named(closed)}"]
        await bench.export(volume, exported=True)
        results.append(f"exported: {await named(opened)}")
        await bench.export(volume, exported=False)
        measured = Measured("; ".join(results), "set on a scratch volume, read back")
        now = (await bench.disks.get(volume.slot)).nqn
        look = host_view.hand_over(bench, volume._replace(nqn=now), named, handed_over)
        return await _seen(measured, look)


async def copy_disk(bench: Bench) -> Measured:
    """Copy one scratch volume to another."""
    async with bench.volume() as source, bench.volume() as target:
        unseen = await _marked(bench, source)
        tried = await _try(bench, trials.copy_disk(source, target))
        measured = Measured(
            f"{tried.text} (after {tried.seconds:.1f} s, {MINIMUM_SIZE >> 20} MiB)",
            "/disk/copy between two scratch volumes",
            unseen,
        )
        if unseen or not tried.verdict.accepted:
            return measured
        return await _seen(measured, host_view.content(bench, target))


async def copy_file(bench: Bench) -> Measured:
    """Copy the file of a scratch volume, and see what that takes of the pool."""
    target = bench.plan()
    async with bench.volume() as source, bench.clean(target):
        before = await bench.disks.capacity(source.base_path)
        tried = await _try(bench, trials.copy_file(source, target))
        after = await bench.disks.capacity(source.base_path)
    took = before.free - after.free
    result = tried.text
    if tried.verdict.accepted:
        result += (
            f"; the pool ({before.file_system}) has {took} bytes less free after copying "
            f"{MINIMUM_SIZE}: {'a copy' if took >= MINIMUM_SIZE else 'perhaps a reflink'}"
        )
    return Measured(result, "/file/copy of a scratch volume's file, free space before and after")


async def copy_settings(bench: Bench) -> Measured:
    """Add a disk with another's settings."""
    target = bench.plan()
    async with bench.volume() as source, bench.clean(target):
        unseen = await _marked(bench, source)
        before = await bench.disks.capacity(source.base_path)
        tried = await _try(bench, trials.copy_settings(source, target))
        result = f"without file-size {tried.text}"
        if not tried.verdict.accepted:
            tried = await _try(bench, trials.copy_settings(source, target, MINIMUM_SIZE))
            result += f"; with file-size {tried.text}"
        after = await bench.disks.capacity(source.base_path)
        disk = tried.disk()
        if disk is None:
            return Measured(result, "/disk/add copy-from= a scratch volume", unseen)
        result += (
            f"; size {disk.size}, {'the same' if disk.nqn == source.nqn else 'not the same'} NQN "
            f"as the source, the pool has {before.free - after.free} bytes less free"
        )
        measured = Measured(result, "/disk/add copy-from= a scratch volume, read back", unseen)
        if unseen:
            return measured
        return await _seen(measured, host_view.content(bench, target._replace(nqn=disk.nqn)))


async def exit_status(bench: Bench) -> Measured:
    """Bare commands, one that works and two that do not."""
    results = []
    for name, line in (
        ("success", trials.SUCCEEDS),
        ("unknown command", trials.UNKNOWN),
        ("run-time error", trials.FAILS),
    ):
        seen = await bench.session.observe(line)
        text = " ".join(seen.text.split())[:120]
        results.append(f"{name}: {'none' if seen.status is None else seen.status} ({text})")
    return Measured("; ".join(results), "three bare commands that change nothing")


async def long_slot(bench: Bench) -> Measured:
    """A slot of 40 characters, as the Go driver made them."""
    volume = bench.plan(f"pvc-{uuid.uuid4()}")
    async with bench.clean(volume):
        command = commands.create(
            slot=volume.slot,
            size=MINIMUM_SIZE,
            file_path=volume.file_path,
            nqn=volume.nqn,
            port=bench.controller.defaults.nvme_port,
            record=volume.record,
            reserve=bench.controller.reserve,
        )
        try:
            reply = await bench.run(bench.session.execute(command))
        except (Unavailable, OutcomeUnknown):
            raise
        except DriverError as error:
            result = f"refused: {error.what}"
        else:
            result = _slot_made(reply, volume.slot)
    return Measured(f"40 characters: {result}", "a scratch volume in a slot of 40 characters")


def _slot_made(reply: Reply, slot: str) -> str:
    if reply.error is not None:
        return f"refused: {explain(reply.error).what}"
    if any(item.get("slot") == slot for item in reply.items("disk")):
        return "accepted, and found again under its whole name"
    return "accepted, but not found again under its whole name"


async def exports(bench: Bench) -> Measured:
    """How many there are."""
    count = sum(entry.disk.exported for entry in await bench.inventory.entries())
    return Measured(f"{count} are open now", "/disk/print")


async def mountable(bench: Bench) -> Measured:
    """How many disks RouterOS would mount what is in."""
    entries = await bench.inventory.entries()
    count = sum(entry.mountable for entry in entries)
    both = sum(entry.mountable and entry.disk.exported for entry in entries)
    return Measured(
        f"{count} of {len(entries)} disks over files have it, {both} of them exported",
        "/disk/print",
    )


async def find_by_path(bench: Bench) -> Measured:
    """Look for a scratch volume by its path, with a slash and without."""
    async with bench.volume() as volume:
        reply = await bench.session.execute(trials.find_by_path(volume))
        if reply.error is not None:
            raise explain(reply.error)
    found = " and ".join(reply.lines)
    return Measured(
        f"disks found with the slash and without: {found}", "/disk/find for a scratch volume"
    )


async def long_line(bench: Bench) -> Measured:
    """A line of nearly the greatest length."""
    tried = await _try(bench, trials.long_line())
    wanted = str(trials.long_length())
    if tried.reply is not None and wanted in tried.reply.lines:
        result = f"accepted, {wanted} characters of text arrived"
    else:
        result = f"not: {tried.verdict.text or tried.reply}"
    return Measured(result, "a line that prints the length of a text")


async def goes_on(bench: Bench) -> Measured:
    """Leave a command that acts after a while, and look whether it did."""
    async with bench.volume() as volume:
        line = trials.allow_later(volume, HOSTS[0], round(1000 * _LATER))
        running = asyncio.ensure_future(bench.session.execute(line))
        await asyncio.wait([running], timeout=_LATER / 2)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, DriverError):
            await running
        await asyncio.sleep(2 * _LATER)
        disk = await bench.disks.get(volume.slot)
    acted = disk.allowed_host == HOSTS[0]
    return Measured(
        "yes, it acted after its channel was closed" if acted else "no, it ended with its channel",
        f"a command that changes a scratch volume after {_LATER:g} s; its channel was closed "
        f"after {_LATER / 2:g} s",
    )
