"""What uses a volume here is seen, named, and not disconnected."""

from pathlib import Path

import pytest

from rds_csi.errors import Internal, VolumeInUse
from rds_csi.node.connected import Front, Volumes
from rds_csi.node.uses import Uses
from tests.unit.fakes.mounts import DEVTMPFS, Entry
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import HOST_NQN, Disk
from tests.unit.node.calls import OTHER, SIZE, VOLUME, nqn


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """Two volumes, connected: nvme1n1 is the one asked about."""
    host = FakeHost(tmp_path)
    for each in (VOLUME, OTHER):
        host.rds[nqn(each)] = Disk(SIZE)
        host._plug(nqn(each))
    return host


@pytest.fixture
def uses(host: FakeHost) -> Uses:
    ports = host.ports()
    return Uses(
        initiator=host,
        volumes=Volumes(host, host, ports.maps, HOST_NQN),
        maps=ports.maps,
        mounts=ports.mounts,
        devices=ports.devices,
    )


def show(host: FakeHost, point: str, volume: str = VOLUME, *, node: bool = False) -> None:
    found = host.connections[nqn(volume)]
    devno, root, kind = (
        (DEVTMPFS, f"/{found.name}", "devtmpfs") if node else (found.devno, "/", "ext4")
    )
    host.table.entries.append(Entry(devno, root, point, ("rw",), kind, str(host.dev / found.name)))
    host.table._write()


def test_nothing_uses_what_is_only_connected(uses: Uses, host: FakeHost) -> None:
    show(host, "/other", OTHER)
    show(host, "/other-node", OTHER, node=True)
    assert uses.places(VOLUME) == []


def test_file_systems_and_device_nodes_are_named_once_in_order(uses: Uses, host: FakeHost) -> None:
    show(host, "/stage")
    show(host, "/stage")
    show(host, "/raw", node=True)
    show(host, "/other", OTHER)
    assert uses.places(VOLUME) == ["/raw", "/stage"]
    both = [Front.bare(found) for each in (VOLUME, OTHER) if (found := host.find(nqn(each)))]
    assert uses.of(both) == ["/other", "/raw", "/stage"]


def test_what_has_no_device_is_used_nowhere(uses: Uses, host: FakeHost) -> None:
    show(host, "/stage")
    host.without_namespace.add(nqn(VOLUME))
    assert uses.places(VOLUME) == []


async def test_a_connection_that_nothing_uses_goes(uses: Uses, host: FakeHost) -> None:
    show(host, "/other", OTHER)
    await uses.disconnect(VOLUME, [nqn(VOLUME)])
    assert list(host.connections) == [nqn(OTHER)]
    await uses.disconnect(VOLUME, [nqn(VOLUME)])


@pytest.mark.parametrize("node", [True, False])
async def test_one_that_is_used_stays_and_the_places_are_named(
    uses: Uses, host: FakeHost, node: bool
) -> None:
    show(host, "/used", node=node)
    with pytest.raises(VolumeInUse, match="still mounted at /used") as caught:
        await uses.disconnect(VOLUME, [nqn(VOLUME)])
    assert caught.value.volume == VOLUME
    assert nqn(VOLUME) in host.connections


@pytest.mark.looptime
async def test_one_that_something_out_of_sight_holds_stays(uses: Uses, host: FakeHost) -> None:
    host.claimed.add("nvme1n1")
    with pytest.raises(VolumeInUse, match="still held"):
        await uses.disconnect(VOLUME, [nqn(VOLUME)])
    assert nqn(VOLUME) in host.connections


@pytest.mark.looptime
async def test_none_goes_while_one_is_used(uses: Uses, host: FakeHost) -> None:
    """They are all of one volume: first every one of them is asked about."""
    later = f"nqn.z:{VOLUME}"
    host.rds[later] = Disk(SIZE)
    host._plug(later)
    host.claimed.add(host.connections[later].name)
    with pytest.raises(VolumeInUse):
        await uses.disconnect(VOLUME, [later, nqn(VOLUME)])
    assert {nqn(VOLUME), later} <= set(host.connections)


async def test_one_that_is_still_there_afterwards_is_no_success(
    uses: Uses, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_nqn: str, *, volume: str = "") -> None:
        del volume

    monkeypatch.setattr(host, "disconnect", nothing)
    with pytest.raises(Internal, match=f"still connected: {nqn(VOLUME)}"):
        await uses.disconnect(VOLUME, [nqn(VOLUME)])
