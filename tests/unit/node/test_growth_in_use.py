"""NodeExpand of a volume under a map, at a target that grows an export only by making it anew."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.errors import Code, NotGrown, PathNotFound
from rds_csi.node.ports import NodePorts
from tests.unit.fakes.node_kernel import Disk
from tests.unit.node.calls import SIZE, Calls
from tests.unit.node.mapped_host import UUID, VOLUME, MappedHost, nqn

pytestmark = [pytest.mark.looptime, pytest.mark.usefixtures("virtual")]


class Host(MappedHost):
    """Its Node service has the mender of the same node."""

    def ports(self) -> NodePorts:
        return replace(super().ports(), mend=self.bring_back)

    async def bring_back(self, volume: str) -> bool:
        return await self.mender.mend(volume)


@pytest.fixture
async def calls(tmp_path: Path) -> Calls:
    host = Host(tmp_path)
    disk = host.rds[nqn()] = Disk(SIZE)
    disk.make("ext4", UUID)
    context = {
        "nvmeAddress": "10.0.0.1",
        "nvmePort": "4420",
        "nqn": nqn(),
        "size": str(SIZE),
        "generation": "1",
        "pathLayer": "true",
    }
    calls = Calls(host=host, published=context)
    calls.stage_path.mkdir()
    await calls.stage()
    await calls.publish()
    # What an export shows is fixed when it is made.
    host.rescans_until_seen = 10**6
    return calls


def host_of(calls: Calls) -> Host:
    assert isinstance(calls.host, Host)
    return calls.host


async def test_a_volume_exported_anew_before_the_call_is_grown(calls: Calls) -> None:
    host = host_of(calls)
    host.rds[nqn()].size = 2 * SIZE
    host.lose()
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    assert host.rds[nqn()].fs_size == 2 * SIZE
    assert host.leads_home()
    host.check()


async def test_a_volume_whose_old_connection_still_stands_is_waited_for(calls: Calls) -> None:
    host = host_of(calls)
    host.rds[nqn()].size = 2 * SIZE
    loop = asyncio.get_running_loop()
    loop.call_later(3, host.states.__setitem__, nqn(), "connecting")
    loop.call_later(8, host.lose)
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    assert host.rds[nqn()].fs_size == 2 * SIZE


async def test_a_namespace_that_returns_with_another_uuid_is_waited_for(calls: Calls) -> None:
    """The kernel drops it, and the connection stands without a device."""
    host = host_of(calls)
    host.rds[nqn()].size = 2 * SIZE
    asyncio.get_running_loop().call_later(5, host.hide, nqn())
    assert await calls.expand(2 * SIZE) == 2 * SIZE
    assert host.rds[nqn()].fs_size == 2 * SIZE


async def test_a_target_that_stays_away_keeps_no_pod_from_starting(calls: Calls) -> None:
    """After any other code the kubelet mounts it for no pod."""
    host = host_of(calls)
    disk = host.rds.pop(nqn())
    host.lose()
    with pytest.raises(NotGrown, match="its I/O waits") as caught:
        await calls.expand(2 * SIZE)
    assert caught.value.code is Code.FAILED_PRECONDITION
    disk.size = 2 * SIZE
    host.rds[nqn()] = disk
    assert await calls.expand(2 * SIZE) == 2 * SIZE


async def test_another_content_is_said_at_once(calls: Calls) -> None:
    host = host_of(calls)
    host.rds[nqn()].size = SIZE // 2
    host.lose()
    began = asyncio.get_running_loop().time()
    with pytest.raises(NotGrown, match="fewer than the"):
        await calls.expand(2 * SIZE)
    assert asyncio.get_running_loop().time() - began < 1


async def test_a_device_that_never_grows_keeps_no_pod_from_starting(calls: Calls) -> None:
    with pytest.raises(NotGrown, match="instead of"):
        await calls.expand(2 * SIZE)
    assert host_of(calls).leads_home()


async def test_a_path_that_is_not_the_volumes_is_not_waited_for(calls: Calls) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(PathNotFound):
        await calls.expand(2 * SIZE, path=host_of(calls).kubelet / "elsewhere")
    assert asyncio.get_running_loop().time() == began


async def test_what_is_large_enough_is_not_waited_for(calls: Calls) -> None:
    assert await calls.expand(SIZE) == SIZE
    assert not host_of(calls).attempts
    assert VOLUME in host_of(calls).map().uuid
