"""What a node is built of: all of it over one host, and what goes on beside the service."""

from pathlib import Path
from typing import Any

import pytest

from rds_csi.config import NodeConfig
from rds_csi.driver.node_part import SCOPE, node_part
from rds_csi.driver.parts import Part, build_metrics
from rds_csi.errors import NotReady, OperationPending
from rds_csi.kubernetes.startup_taint import StartupTaint
from rds_csi.model.host_identity import host_identity
from rds_csi.node.healer import Healer
from rds_csi.node.service import Node
from rds_csi.node.waiting import GIVEN_UP
from rds_csi.nvme.reaper import Reaper
from rds_csi.nvme.returns import Returns
from rds_csi.rpc.operations import Operations
from rds_csi.runtime.process import SubprocessRunner
from rds_csi.runtime.scope import Scope
from rds_csi.telemetry.metrics import Metrics
from tests.unit.telemetry.wired import driver_config


def build(tmp_path: Path, metrics: Metrics | None = None, **settings: Any) -> Part:
    node = NodeConfig(node_id="n1", state_dir=tmp_path / "state", kubelet_dir=tmp_path, **settings)
    return node_part(
        driver_config(tmp_path),
        node,
        "n1.tag",
        locked=lambda _volume: False,
        operations=Operations,
        scope=Scope(),
        metrics=metrics,
    )


def reaper_of(part: Part) -> Reaper:
    reaper = part.prepare.__self__  # type: ignore[union-attr]
    assert isinstance(reaper, Reaper)
    return reaper


def runner_of(part: Part) -> SubprocessRunner:
    runner = part.close.__self__  # type: ignore[union-attr]
    assert isinstance(runner, SubprocessRunner)
    return runner


async def test_clean_up_comes_before_serving_and_goes_on_beside_it(tmp_path: Path) -> None:
    part = build(tmp_path)
    reaper = reaper_of(part)
    assert part.prepare == reaper.at_start
    assert list(part.background) == ["reaper", "paths", "targets", "healer"]
    assert part.background["reaper"] == reaper.run


async def test_who_watches_the_targets_is_whom_health_asks(tmp_path: Path) -> None:
    part = build(tmp_path)
    returns = part.background["targets"].__self__  # type: ignore[attr-defined]
    assert isinstance(returns, Returns)
    assert part.service._health._doubt == returns.doubt
    assert returns._host_nqn == host_identity("test", "n1.tag").nqn
    assert returns._file.path == tmp_path / "state" / "targets"
    assert returns._reader._runner is runner_of(part)


async def test_the_service_is_told_who_it_is(tmp_path: Path) -> None:
    part = build(tmp_path, max_volumes=7)
    assert isinstance(part.service, Node)
    told = part.service._settings
    assert (told.node_id, told.max_volumes, told.kubelet_dir) == ("n1.tag", 7, tmp_path)
    assert told.host_nqn == host_identity("test", "n1.tag").nqn
    assert reaper_of(part)._host == told.host_nqn


async def test_service_connector_and_reaper_work_on_one_host(tmp_path: Path) -> None:
    """Programs that hang, and records that protect a connection, are the same for all."""
    part = build(tmp_path)
    inspector = part.service._inspector
    connector = reaper_of(part)._connector
    runner = runner_of(part)
    assert inspector._initiator is connector
    assert inspector._runner is runner
    assert connector._dialer._runner is runner
    assert inspector._devices._runner is runner
    recorded = reaper_of(part)._recorded
    assert recorded.__self__ is inspector._store  # type: ignore[attr-defined]


async def test_connects_run_in_the_scope_of_the_driver(tmp_path: Path) -> None:
    scope = Scope()
    node = NodeConfig(node_id="n1", state_dir=tmp_path / "state")
    part = node_part(
        driver_config(tmp_path),
        node,
        "n1.tag",
        locked=bool,
        operations=Operations,
        scope=scope,
        metrics=None,
    )
    assert reaper_of(part)._connector._scope is scope  # type: ignore[attr-defined]


async def test_with_metrics_volumes_are_looked_at_and_what_happens_is_counted(
    tmp_path: Path,
) -> None:
    config = driver_config(tmp_path)
    metrics, _ = build_metrics(config, None, NodeConfig(node_id="n1"))
    assert metrics is not None
    part = build(tmp_path, metrics)
    assert list(part.background) == ["reaper", "paths", "targets", "healer", "volumes"]
    value = metrics.registry.get_sample_value
    reaper_of(part)._on_disconnect("nqn")
    assert value("rds_csi_orphans_disconnected_total") == 1
    returns = part.background["targets"].__self__  # type: ignore[attr-defined]
    returns._on_verdict("booted")
    assert value("rds_csi_target_returns_total", {"verdict": "booted"}) == 1
    assert value("rds_csi_target_returns_total", {"verdict": "kept"}) == 0
    assert value("rds_csi_volumes_target_restarted") == 0
    reaper_of(part)._connector._on_event("retry")  # type: ignore[attr-defined]
    assert value("rds_csi_nvme_connect_retries_total") == 1


def healer_of(part: Part) -> Healer:
    healer = part.background["healer"].__self__  # type: ignore[attr-defined]
    assert isinstance(healer, Healer)
    return healer


async def test_healer_and_calls_work_on_one_host_under_one_lock(tmp_path: Path) -> None:
    operations = Operations()
    config = driver_config(tmp_path)
    node = NodeConfig(node_id="n1", state_dir=tmp_path / "state", nvme_address="192.0.2.7")
    metrics, _ = build_metrics(config, None, node)
    assert metrics is not None
    scope = Scope()
    part = node_part(
        config,
        node,
        "n1.tag",
        locked=bool,
        operations=lambda: operations,
        scope=scope,
        metrics=metrics,
    )
    healer, inspector = healer_of(part), part.service._inspector
    assert healer._waits is part.service._health._waits
    mender = healer._mender
    assert inspector._mend == mender.mend
    assert mender._maps is inspector._layer._maps
    assert mender._address == "192.0.2.7"
    assert mender._initiator._connector is inspector._initiator  # type: ignore[attr-defined]
    assert mender._initiator._scope is scope  # type: ignore[attr-defined]
    value = metrics.registry.get_sample_value
    healer._on_healed("pvc-1")
    assert value("rds_csi_volumes_healed_total") == 1
    healer._waits.note("pvc-1", GIVEN_UP, "refused")
    labels = {"volume": "pvc-1", "reason": GIVEN_UP}
    assert value("rds_csi_volume_waiting_since_timestamp_seconds", labels)

    async def work() -> bool:
        assert operations.locked("pvc-1")
        with pytest.raises(OperationPending):
            await operations.run("NodeUnstageVolume", work, timeout=1, volume="pvc-1", scope=SCOPE)
        return True

    assert await healer._exclusively("pvc-1", work, 10)


def test_the_healers_locks_are_those_of_the_nodes_calls(tmp_path: Path) -> None:
    paths = build(tmp_path).service.__mapping__()
    assert {path.split("/")[1] for path in paths} == {SCOPE}


@pytest.mark.parametrize(("volumes", "limited"), [(0, False), (7, True)])
async def test_the_startup_taint_is_taken_off_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volumes: int, limited: bool
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr("rds_csi.kubernetes.api.in_cluster", lambda: "the API server")
    part = build(tmp_path, startup_taint="example.com/not-ready", max_volumes=volumes)
    assert list(part.background) == ["reaper", "paths", "targets", "healer", "startup_taint"]
    taint = part.background["startup_taint"].__self__  # type: ignore[attr-defined]
    assert isinstance(taint, StartupTaint)
    assert (taint._key, taint._node, taint._node_id) == ("example.com/not-ready", "n1", "n1.tag")
    assert (taint._driver, taint._limited) == (driver_config(tmp_path).driver_name, limited)


async def test_a_startup_taint_outside_of_a_cluster_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NotReady, match="works in a pod only"):
        build(tmp_path, startup_taint="example.com/not-ready")
    assert "startup_taint" not in build(tmp_path).background
