"""``rds-csi release``: ends the waiting of a volume whose target will never have it again.

What waits in the volume's map fails with I/O errors from then on; so does what comes after it. An
unmount that hung ends, pods can be stopped, and the volume is unstaged. Works beside a driver that
serves, whose healer leaves a released map alone.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from rds_csi.config import ConfigurationError, DriverConfig, NodeConfig
from rds_csi.driver.connections import Host
from rds_csi.errors import DriverError
from rds_csi.model.node_id import make_node_id
from rds_csi.model.volume import is_volume_id
from rds_csi.node.ways import Seen
from rds_csi.pathlayer.maps import Map

LOST = (
    "what its pods wrote and the RDS has not acknowledged is lost then, also what waits in the "
    "page cache; what the RDS has acknowledged is not touched"
)


@dataclass(frozen=True, slots=True)
class Released:
    """One map: what was done, or would be. ``error``: why it was not."""

    uuid: str
    device: str
    connections: tuple[str, ...]
    error: str = ""


async def release(
    config: DriverConfig,
    node: NodeConfig,
    volume: str,
    *,
    really: bool,
    make_host: Callable[[DriverConfig, NodeConfig, str], Host] = Host.of,
) -> list[Released]:
    """End the waiting of the volume's I/O on this node; only with ``really`` anything is done.

    Raises :class:`ConfigurationError` for what is no volume's id, where this node has no map of
    it, and where its I/O flows.
    """
    if not is_volume_id(volume):
        raise ConfigurationError(f"release takes a volume's id like pvc-…, not {volume[:128]!r}")
    host = make_host(config, node, make_node_id(config.cluster_id, node.node_id))
    try:
        seen = await host.sight().at(volume)
        if seen is None:
            raise ConfigurationError(
                f"{volume} has no map on this host: what waits without one, `rds-csi reap "
                "--give-up` ends"
            )
        if seen.flows:
            raise ConfigurationError(f"{volume} has its RDS, its I/O flows: stop its pods instead")
        return [await _end(host, seen, each, really=really) for each in host.maps.of(volume)]
    finally:
        await host.runner.close()


async def _end(host: Host, seen: Seen, found: Map, *, really: bool) -> Released:
    """Let the I/O of one map fail, then take down what the kernel tries in vain to bring back."""
    dead = [] if any(each.live for each in seen.controllers) else list(seen.controllers)
    names = tuple(f"{each.name} to {each.address} ({each.state})" for each in dead)
    error = ""
    if really:
        try:
            await host.maps.fail(found)
            if dead:
                await host.remover().give_up(dead, volume=found.identity.volume)
            error = await _kept(host, found)
        except DriverError as problem:
            error = str(problem)
    return Released(found.identity.uuid, str(found.device), names, error)


async def _kept(host: Host, found: Map) -> str:
    """Undo it where the healer had led the map home in the meantime; why nothing was released.

    Else what flows would fail at the next outage instead of waiting for its end.
    """
    volume = found.identity.volume
    again = await host.sight().at(volume)
    if again is None or not again.flows or again.map.identity != found.identity:
        return ""
    await host.maps.queue(found)
    return f"{volume} was brought back in this very moment: its I/O flows, and waits as before"


def as_json(released: list[Released]) -> str:
    """The maps for programs."""
    return json.dumps([asdict(each) for each in released], indent=2)


def show(released: list[Released], *, really: bool, write: Callable[[str], None]) -> None:
    """The maps for people, and what is lost."""
    if not really:
        write(f"Nothing was done. With --yes I/O that waits would fail from then on: {LOST}.")
    for each in released:
        act = "released" if really else "would be released"
        if each.error:
            act = f"not released ({each.error})"
        write(f"{each.device} ({each.uuid}): {act}")
        for name in each.connections:
            write(f"    {name}: {'given up' if really and not each.error else 'to be given up'}")
    if really and any(not each.error for each in released):
        write("Stop the pods that use it; it is connected anew when they start again.")
