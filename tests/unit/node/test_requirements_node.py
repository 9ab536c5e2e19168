"""The lines of docs/requirements-lines.toml about staging, each proven here or marked beside."""

from pathlib import Path

import pytest
import structlog.testing

from rds_csi.errors import Code, InvalidParameter
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.sysfs import Namespace
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.sysfs import FakeSysfs
from tests.unit.node.calls import Calls
from tests.unit.nvme.kernel import DELETE, TARGET, A, Kernel, option


class Host(FakeHost):
    """Remembers with what it was asked to connect."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[ConnectionConfig] = []

    async def connect_with_retry(
        self, target: Target, config: ConnectionConfig, *, volume: str = ""
    ) -> Namespace:
        self.asked.append(config)
        return await super().connect_with_retry(target, config, volume=volume)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def calls(host: Host) -> Calls:
    calls = Calls(host=host)
    calls.create()
    return calls


@pytest.fixture
def tree(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path / "tree")


async def stage(host: Host, calls: Calls, **context: str) -> None:
    request = calls.stage_request()
    request.volume_context = context
    await host.node().node_stage_volume(request)


@pytest.mark.requirement("NODE-01")
@pytest.mark.requirement("CONN-03")
async def test_the_settings_come_from_the_volume_context(host: Host, calls: Calls) -> None:
    await stage(host, calls, ctrlLossTmo="600", reconnectDelay="10", keepAliveTmo="45")
    assert host.asked == [
        ConnectionConfig(ctrl_loss_tmo=600, reconnect_delay=10, keep_alive_tmo=45)
    ]


@pytest.mark.requirement("NODE-01")
async def test_absent_settings_are_the_defaults(host: Host, calls: Calls) -> None:
    await stage(host, calls, reconnectDelay="7")
    assert host.asked == [ConnectionConfig(reconnect_delay=7)]


@pytest.mark.requirement("NODE-01")
@pytest.mark.parametrize("value", ["", "abc", "1.5", "٣", "1 "])
@pytest.mark.parametrize("key", ["ctrlLossTmo", "reconnectDelay", "keepAliveTmo"])
async def test_what_is_no_integer_is_refused_before_anything(
    host: Host, calls: Calls, key: str, value: str
) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid {key}") as caught:
        await stage(host, calls, **{key: value})
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert host.asked == []
    assert host.steps.passed == []


@pytest.mark.requirement("NODE-02")
async def test_the_settings_are_logged(host: Host, calls: Calls) -> None:
    with structlog.testing.capture_logs() as lines:
        await stage(host, calls, ctrlLossTmo="600")
    (line,) = [line for line in lines if line["event"] == "connecting"]
    shown = {key: line[key] for key in ("volume", "ctrl_loss_tmo", "reconnect_delay", "addresses")}
    assert shown == {
        "volume": calls.volume,
        "ctrl_loss_tmo": 600,
        "reconnect_delay": 5,
        "addresses": ("10.0.0.1",),
    }


@pytest.mark.requirement("PIT-05")
@pytest.mark.requirement("OPEN-03")
async def test_changed_settings_leave_what_is_staged_alone(host: Host, calls: Calls) -> None:
    await stage(host, calls, reconnectDelay="5")
    before = dict(host.connections)
    await stage(host, calls, reconnectDelay="9")
    assert [config.reconnect_delay for config in host.asked] == [5]
    assert host.connections == before
    await calls.unstage()
    await stage(host, calls, reconnectDelay="9")
    assert [config.reconnect_delay for config in host.asked] == [5, 9]


@pytest.mark.requirement("PIT-05")
@pytest.mark.requirement("OPEN-03")
@pytest.mark.requirement("ANTI-01")
@pytest.mark.looptime
async def test_changed_settings_are_not_for_a_live_connection(tree: FakeSysfs) -> None:
    kernel = Kernel(tree)
    kernel.works()
    connector = kernel.connector()
    await connector.connect_with_retry(TARGET, ConnectionConfig(reconnect_delay=5))
    await connector.connect_with_retry(TARGET, ConnectionConfig(reconnect_delay=9))
    assert [option(call, "-c") for call in kernel.runner.asked("nvme", "connect")] == ["5"]
    assert kernel.runner.asked(*DELETE) == [], "something was written into sysfs"
    await connector.disconnect(A)
    await connector.connect_with_retry(TARGET, ConnectionConfig(reconnect_delay=9))
    assert [option(call, "-c") for call in kernel.runner.asked("nvme", "connect")] == ["5", "9"]
