"""What a connected host sees of a scratch volume: what SSH cannot show.

Each raises :class:`TargetError` where no connection comes to be.

Proven in ``tests/rds/test_doctor_write.py``.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from rds_csi.doctor.rds.initiator import Initiator, TargetError
from rds_csi.doctor.rds.scratch import HOSTS, Bench
from rds_csi.routeros.trials import Volume

MARK: Final = b"written by rds-csi doctor"
_ANNOUNCED: Final = 2.0
"""Seconds within which a target announces a change, if it does."""

_GOES_ON: Final = "goes on writing"
_OUTLIVES: Final = (
    "so a former holder that is still connected writes beside the next one: switch a node off "
    "before its volumes are taken from it (force-detach), by power"
)


async def mark(bench: Bench, volume: Volume) -> None:
    """Write into the first block; the export is opened for it, and closed."""
    await bench.export(volume, exported=True)
    try:
        async with bench.connection(volume) as host:
            await host.write(0, MARK)
    finally:
        await bench.export(volume, exported=False)


async def content(bench: Bench, volume: Volume) -> str:
    """Whether the mark is in the first block."""
    await bench.export(volume, exported=True)
    try:
        async with bench.connection(volume) as host:
            block = await host.read(0)
    finally:
        await bench.export(volume, exported=False)
    if block.startswith(MARK):
        return "the old data is in it"
    return "it reads as zeros" if not any(block) else "it holds something else than the old data"


async def growth(bench: Bench, volume: Volume, grow: Callable[[], Awaitable[str]]) -> str:
    """What a connected host sees of it; the export is open."""
    async with bench.connection(volume) as host:
        before = await host.size()
        said = await grow()
        announced = await host.announced(_ANNOUNCED)
        after = await host.size()
    return (
        f"connected: {said}; the host sees {before.bytes} bytes before and {after.bytes} after, "
        f"and {'is told so' if announced else 'is not told'}"
    )


async def admission(bench: Bench, volume: Volume, restrict: Callable[..., Awaitable[None]]) -> str:
    """Who is admitted, and what becomes of who is in when another is allowed instead."""
    first, second = HOSTS
    await bench.export(volume, exported=True)
    try:
        async with bench.connection(volume):
            pass  # whoever is refused later is refused because of what is set then
        await restrict(first)
        found = [f"allowed: {await _admitted(bench, volume, first)}"]
        found.append(f"another: {await _admitted(bench, volume, second)}")
        async with bench.connection(volume, first) as host:
            await restrict(second)
            found.append(f"connected, then another is allowed: {await _lives(host.read)}")
        await restrict(first, second)
        found.append(f"the second of two with a comma: {await _admitted(bench, volume, second)}")
    finally:
        await bench.export(volume, exported=False)
    return "; ".join(found)


async def hand_over(
    bench: Bench, volume: Volume, rename: Callable[[str], Awaitable[str]], nqn: str
) -> str:
    """What becomes of who is connected when it is closed and renamed, and who gets in then."""
    await bench.export(volume, exported=True)
    async with bench.connection(volume) as host:
        await bench.export(volume, exported=False)
        found = [f"connected, then closed: {await _writes(host)}"]
        renamed = await rename(nqn)
        found.append(f"renamed: {renamed}, and {await _writes(host)}")
        await bench.export(volume, exported=True)
        after = await _writes(host)
        found.append(f"opened again: {after}")
    if after == _GOES_ON:
        found.append(_OUTLIVES)
    for name, asked in (("the old name", volume.nqn), ("the new name", nqn)):
        found.append(f"{name}: {await _admitted(bench, volume._replace(nqn=asked), HOSTS[0])}")
    await bench.export(volume, exported=False)
    return "; ".join(found)


async def _admitted(bench: Bench, volume: Volume, host: str) -> str:
    try:
        async with bench.connection(volume, host) as connection:
            await connection.size()
    except TargetError as error:
        return f"refused ({error})"
    return "admitted"


async def _writes(host: Initiator) -> str:
    """A write is what a former holder does harm with; it is the last to end, if anything does."""
    try:
        await host.write(0, b"written when it was too late")
    except TargetError as error:
        return f"loses it ({error})"
    return _GOES_ON


async def _lives(read: Callable[[int], Awaitable[bytes]]) -> str:
    try:
        await read(0)
    except TargetError as error:
        return f"loses it ({error})"
    return "goes on reading"
