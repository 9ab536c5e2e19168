"""``rds-csi release``: says what would be lost, and ends the waiting only when told to."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rds_csi.cli.main import main
from rds_csi.cli.release import Released, as_json, release, show
from rds_csi.config import ConfigurationError, DriverConfig, NodeConfig
from rds_csi.errors import Unavailable
from rds_csi.node.ways import Sight
from rds_csi.nvme.sysfs import Controller
from rds_csi.pathlayer.maps import Map
from tests.unit.node.mapped_host import OTHER, SIZE, VOLUME, MappedHost, nqn


class Host:
    """Stands for :class:`rds_csi.driver.connections.Host`."""

    def __init__(self, host: MappedHost) -> None:
        self._host = host
        self.maps = host.maps
        self.runner = self
        self.closed = False
        self.given_up: list[str] = []
        self.stays = False

    def sight(self) -> Sight:
        return self._host.sight

    def remover(self) -> "Host":
        return self

    async def give_up(self, controllers: Sequence[Controller], *, volume: str) -> None:
        assert volume == VOLUME
        active = self._host.map().active
        assert active is not None
        assert not active.queues, "given up while the map still holds what fails"
        if self.stays:
            raise Unavailable("nvme1 did not go when given up", volume=volume)
        self.given_up += [each.name for each in controllers]

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(MappedHost(tmp_path))


async def run(host: Host, volume: str = VOLUME, *, really: bool = False) -> list[Released]:
    config = DriverConfig(endpoint=Path("/csi/csi.sock"), cluster_id="test")
    node = NodeConfig(node_id="n1")
    made: Any = lambda *_: host  # noqa: E731
    try:
        return await release(config, node, volume, really=really, make_host=made)
    finally:
        assert host.closed or "pvc-" not in volume


def queues(host: Host) -> bool:
    active = host._host.map().active
    assert active is not None
    return active.queues


async def test_without_yes_nothing_is_done(host: Host) -> None:
    await host._host.staged()
    host._host.lose()
    (found,) = await run(host)
    assert queues(host)
    said: list[str] = []
    show([found], really=False, write=said.append)
    assert "Nothing was done" in said[0]
    assert "is lost" in said[0]
    assert found.uuid in said[1]
    assert "would be released" in said[1]


async def test_what_waits_fails_from_then_on(host: Host) -> None:
    await host._host.staged()
    host._host.lose()
    (found,) = await run(host, really=True)
    assert not queues(host)
    assert (found.error, found.connections, host.given_up) == ("", (), [])
    said: list[str] = []
    show([found], really=True, write=said.append)
    assert said[-1].startswith("Stop the pods")


async def test_what_the_kernel_tries_in_vain_is_given_up_too(host: Host) -> None:
    await host._host.staged()
    host._host.states[nqn()] = "connecting"
    (found,) = await run(host)
    assert not host.given_up
    assert "connecting" in found.connections[0]
    (found,) = await run(host, really=True)
    assert host.given_up == ["nvme0"]
    said: list[str] = []
    show([found], really=True, write=said.append)
    assert said[1].endswith("given up")


async def test_what_stays_is_said(host: Host) -> None:
    await host._host.staged()
    host._host.states[nqn()] = "connecting"
    host.stays = True
    (found,) = await run(host, really=True)
    said: list[str] = []
    show([found], really=True, write=said.append)
    assert "did not go" in said[0]
    assert "did not go" in json.loads(as_json([found]))[0]["error"]


async def test_what_the_healer_brings_back_meanwhile_is_not_released(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would work, and at the next outage fail instead of waiting."""
    await host._host.staged()
    host._host.lose()
    fail = host.maps.fail

    async def late(found: Map) -> None:
        assert await host._host.mender.mend(VOLUME)
        await fail(found)
        assert not queues(host)

    monkeypatch.setattr(host.maps, "fail", late)
    (found,) = await run(host, really=True)
    assert "brought back in this very moment" in found.error
    assert queues(host)
    assert host._host.leads_home()
    said: list[str] = []
    show([found], really=True, write=said.append)
    assert "not released" in said[0]
    assert len(said) == 1, "the pods may go on"


async def test_another_content_under_the_volumes_name_can_be_released(host: Host) -> None:
    """The connection is live, and the map does not use it."""
    await host._host.staged()
    host._host.lose()
    host._host.rds[nqn()].size = SIZE // 2
    await host._host.connected_again()
    await run(host, really=True)
    assert not queues(host)
    assert host.given_up == []


async def test_a_volume_that_has_its_rds_is_refused(host: Host) -> None:
    await host._host.staged()
    with pytest.raises(ConfigurationError, match="has its RDS"):
        await run(host, really=True)
    assert queues(host)


async def test_a_volume_that_has_its_rds_is_refused_also_where_its_record_is_lost(
    host: Host,
) -> None:
    """Or where the command is told another place of the records than the driver."""
    await host._host.staged()
    await host._host.store.delete(VOLUME)
    with pytest.raises(ConfigurationError, match="has its RDS"):
        await run(host, really=True)
    assert queues(host)


async def test_a_volume_without_a_map_is_refused(host: Host) -> None:
    await host._host.staged()
    with pytest.raises(ConfigurationError, match="has no map on this host"):
        await run(host, OTHER, really=True)


@pytest.mark.parametrize("volume", ["", "pvc", "../pvc", "x" * 300])
def test_what_is_no_volume_is_refused(monkeypatch: pytest.MonkeyPatch, volume: str) -> None:
    monkeypatch.setattr("rds_csi.telemetry.logs.configure", lambda **_: None)
    words = ["release", "--cluster-id=test", "--node-id=n1", "--yes", volume]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert result.output.startswith("rds-csi: release takes a volume's id")
    assert len(result.output) < 300
