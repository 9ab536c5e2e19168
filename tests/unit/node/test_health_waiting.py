"""What health says of a volume that waits, or is not staged yet."""

from dataclasses import replace

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.errors import ConnectFailed, PathNotFound
from rds_csi.node.service import Node, NodeSettings
from rds_csi.node.waiting import GIVEN_UP, NOT_HEALED, RECONNECTING, Waits
from tests.unit.fakes.clock import FakeClock
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import HOST_NQN
from tests.unit.node.calls import VOLUME, Calls, nqn

NQN = nqn(VOLUME)


class Asked:
    """A node whose healer says who waits."""

    def __init__(self, host: FakeHost, calls: Calls) -> None:
        self.waits = Waits(FakeClock())
        ports = replace(host.ports(), waits=self.waits)
        settings = NodeSettings(node_id="n", host_nqn=HOST_NQN, kubelet_dir=host.kubelet)
        self.node = Node(settings, ports)
        self.calls = calls

    async def health(self) -> dict[str, str]:
        request = csi.NodeGetVolumeHealthRequest(
            volume_id=VOLUME, staging_target_path=str(self.calls.stage_path)
        )
        reply = await self.node.node_get_volume_health(request)
        assert reply.volume_health is not None
        return {each.reason: each.message for each in reply.volume_health.health_statuses}


@pytest.fixture
def asked(host: FakeHost) -> Asked:
    calls = Calls(host=host, path_layer=True)
    calls.create("ext4")
    return Asked(host, calls)


async def test_a_volume_that_waits_in_its_map(host: FakeHost, asked: Asked) -> None:
    await asked.calls.stage(asked.node)
    assert await asked.health() == {}
    host.unplug(NQN)
    told = await asked.health()
    assert list(told) == ["ConnectionGivenUp"], "before the healer has noticed, too"
    assert "nothing is lost" in told["ConnectionGivenUp"]
    asked.waits.note(VOLUME, GIVEN_UP, "nothing answers at 10.0.0.1:4420", tried=True)
    told = await asked.health()
    assert list(told) == ["ConnectionGivenUp"]
    assert "since 2001-09-09 01:46:40 UTC; tried 1 times" in told["ConnectionGivenUp"]
    assert "nothing answers at 10.0.0.1:4420" in told["ConnectionGivenUp"]
    asked.waits.note(VOLUME, NOT_HEALED, "it is smaller")
    told = await asked.health()
    assert list(told) == ["NotHealed"]
    assert told["NotHealed"].endswith("it is smaller")
    asked.waits.over(VOLUME)


async def test_what_the_kernel_brings_back_is_told_as_ever(host: FakeHost, asked: Asked) -> None:
    await asked.calls.stage(asked.node)
    host.states[NQN] = "connecting"
    asked.waits.note(VOLUME, RECONNECTING, "nvme0 to 10.0.0.1 (connecting)")
    told = await asked.health()
    assert list(told) == ["Reconnecting"]
    assert "every 5 s" in told["Reconnecting"]


async def test_a_volume_whose_stage_failed(host: FakeHost, asked: Asked) -> None:
    """The kubelet asks for it, for it was meant to be here."""
    with pytest.raises(PathNotFound):
        await asked.health()
    disk = host.rds.pop(NQN)
    with pytest.raises(ConnectFailed):
        await asked.calls.stage(asked.node)
    told = await asked.health()
    assert told == {"NotStaged": "not on this node yet: its stage failed: connection refused"}
    host.rds[NQN] = disk
    await asked.calls.stage(asked.node)
    assert await asked.health() == {}
    await asked.calls.unstage(asked.node)
    with pytest.raises(PathNotFound):
        await asked.health()


async def test_a_volume_that_is_being_staged(host: FakeHost, asked: Asked) -> None:
    told: list[dict[str, str]] = []

    async def ask(*_: object, **__: object) -> None:
        told.append(await asked.health())
        raise ConnectFailed("refused", volume=VOLUME)

    host.connect_with_retry = ask  # type: ignore[method-assign, assignment]
    asked.node._stager._initiator = host
    with pytest.raises(ConnectFailed):
        await asked.calls.stage(asked.node)
    assert told == [{"NotStaged": "not on this node yet: its stage is under way"}]


async def test_a_stage_that_failed_and_nobody_wants_any_more(host: FakeHost, asked: Asked) -> None:
    del host.rds[NQN]
    with pytest.raises(ConnectFailed):
        await asked.calls.stage(asked.node)
    await asked.calls.unstage(asked.node)
    with pytest.raises(PathNotFound):
        await asked.health()
