"""``rds-csi reap``: says why, touches nothing beside a running driver."""

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest
import structlog.testing
from click.testing import CliRunner

from rds_csi.cli import reap
from rds_csi.cli.main import main
from rds_csi.config import ConfigurationError, DriverConfig, NodeConfig
from rds_csi.model.host_identity import host_identity
from rds_csi.model.node_id import make_node_id
from rds_csi.model.volume import volume_id
from rds_csi.nvme.reaper import Finding, Verdict
from rds_csi.nvme.sysfs import Sysfs
from tests.unit.fakes.sysfs import OTHER_NQN, FakeSysfs

PREFIX = "nqn.2000-02.com.mikrotik"
HOST = host_identity("prod", make_node_id("prod", "worker-1"))
OURS = f"{PREFIX}:{volume_id('a')}"
BOOT = "nqn.2014-08.org.nixos:boot-disk"


@pytest.fixture
def config(tmp_path: Path) -> DriverConfig:
    return DriverConfig(endpoint=tmp_path / "csi.sock", cluster_id="prod")


@pytest.fixture
def node(tmp_path: Path) -> NodeConfig:
    return NodeConfig(node_id="worker-1", state_dir=tmp_path / "state")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path / "root")


async def test_each_connection_is_explained(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs
) -> None:
    kernel.connect(OURS, hostnqn=HOST.nqn, hostid=HOST.hostid)
    kernel.connect(BOOT, hostnqn=HOST.nqn, hostid=HOST.hostid)
    findings = await reap.reap(config, node, dry_run=True, settle=0.05, sysfs=Sysfs(kernel.sys))
    by_nqn = {each.nqn: each.verdict for each in findings}
    assert by_nqn[OURS].disconnect
    assert not by_nqn[BOOT].disconnect
    assert "not the name of a volume" in by_nqn[BOOT].reason
    assert len(kernel.controllers()) == 2, "a dry run touches nothing"


async def test_a_record_that_cannot_be_read_keeps_its_connection(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs
) -> None:
    kernel.connect(OURS, hostnqn=HOST.nqn, hostid=HOST.hostid)
    node.state_dir.mkdir()
    (node.state_dir / f"{volume_id('a')}.json").write_bytes(b"{")
    [found] = await reap.reap(config, node, dry_run=True, settle=0.05, sysfs=Sysfs(kernel.sys))
    assert not found.verdict.disconnect
    assert found.verdict.reason == "recorded as staged"


async def test_beside_a_running_driver_it_only_looks(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(config.endpoint))
        server.listen()
        with pytest.raises(ConfigurationError, match="--dry-run"):
            await reap.reap(config, node, dry_run=False, settle=0.0, sysfs=Sysfs(kernel.sys))
        assert (
            await reap.reap(config, node, dry_run=True, settle=0.0, sysfs=Sysfs(kernel.sys)) == []
        )
    assert not reap.serves(config.endpoint), "a socket that nobody answers on is no driver"


def test_a_socket_that_is_not_there_or_none(tmp_path: Path) -> None:
    assert not reap.serves(tmp_path / "none.sock")
    file = tmp_path / "file.sock"
    file.touch()
    assert not reap.serves(file)


def test_what_people_and_programs_read() -> None:
    findings = [
        Finding(OURS, Verdict(True, "nothing uses its device, for 10 s")),
        Finding(BOOT, Verdict(False, "not the name of a volume of this driver")),
        Finding("nqn.x", Verdict(True, "it leads to no device"), "it is used now"),
    ]
    lines: list[str] = []
    reap.show(findings, dry_run=True, write=lines.append)
    assert "would be disconnected: nothing uses" in lines[0]
    assert "kept: not the name" in lines[1]
    reap.show(findings, dry_run=False, write=lines.append)
    assert "\n    disconnected: nothing uses" in lines[3]
    assert "not disconnected (it is used now)" in lines[5]
    reap.show([], dry_run=True, write=lines.append)
    assert lines[-1].startswith("No NVMe subsystem")
    assert json.loads(reap.as_json(findings))[1]["disconnect"] is False


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rds_csi.telemetry.logs.configure", lambda **_: None)
    words = ["reap", "--cluster-id=prod", "--node-id=worker-1", "--dry-run", "--settle=0"]
    words += [f"--state-dir={tmp_path}", f"--endpoint={tmp_path / 'csi.sock'}"]
    with structlog.testing.capture_logs():
        result = CliRunner().invoke(main, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert isinstance(json.loads(result.output), list)
    result = CliRunner().invoke(main, [*words, "--cluster-id=a b"], catch_exceptions=False)
    assert result.exit_code == 2
    assert "--cluster-id" in result.output


def test_a_volume_that_has_lost_its_rds_is_given_up_beside_a_driver_that_serves(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs
) -> None:
    """The write is real; the fake kernel lets go a moment later."""
    name = kernel.connect(OURS, hostnqn=HOST.nqn, hostid=HOST.hostid, state="connecting")
    attribute = kernel.controller(name) / "delete_controller"

    async def give_up() -> list[Finding]:
        work = asyncio.create_task(
            reap.reap(
                config,
                node,
                dry_run=False,
                settle=0,
                give_up=volume_id("a"),
                sysfs=Sysfs(kernel.sys),
            )
        )
        await asyncio.to_thread(let_go, attribute)
        return await work

    def let_go(attribute: Path) -> None:
        while attribute.read_text() != "1\n":
            time.sleep(0.01)
        kernel.disconnect(name)

    with socket.socket(socket.AF_UNIX) as serving:
        serving.bind(str(config.endpoint))
        serving.listen()
        [finding] = asyncio.run(give_up())
    assert finding.verdict.disconnect
    assert "has not acknowledged is lost" in finding.verdict.reason
    assert finding.error == ""


@pytest.mark.parametrize("why", ["live", "another host", "another volume", "nothing"])
async def test_nothing_else_is_given_up(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs, why: str
) -> None:
    hostnqn = OTHER_NQN if why == "another host" else HOST.nqn
    state = "live" if why == "live" else "connecting"
    if why != "nothing":
        kernel.connect(OURS, hostnqn=hostnqn, state=state)
    asked = volume_id("b" if why == "another volume" else "a")
    with pytest.raises(ConfigurationError, match="has its RDS" if why == "live" else "connected"):
        await reap.reap(
            config, node, dry_run=False, settle=0, give_up=asked, sysfs=Sysfs(kernel.sys)
        )
    for name in kernel.controllers():
        assert (kernel.controller(name) / "delete_controller").read_text() == ""


def test_the_connection_of_each_generation_is_given_up(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs
) -> None:
    nqns = [OURS, f"{OURS}.2"]
    names = [kernel.connect(nqn, hostnqn=HOST.nqn, state="connecting") for nqn in nqns]

    def let_go() -> None:
        for name in names:
            while (kernel.controller(name) / "delete_controller").read_text() != "1\n":
                time.sleep(0.01)
            kernel.disconnect(name)

    async def give_up() -> list[Finding]:
        work = asyncio.create_task(
            reap.give_volume_up(
                config, node, volume_id("a"), dry_run=False, sysfs=Sysfs(kernel.sys)
            )
        )
        await asyncio.to_thread(let_go)
        return await work

    findings = asyncio.run(give_up())
    assert [(each.nqn, each.error) for each in findings] == [(nqn, "") for nqn in nqns]


def test_every_path_of_a_volume_is_given_up(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs
) -> None:
    """The device stays as long as one of them does."""
    names = [
        kernel.connect(OURS, hostnqn=HOST.nqn, state="connecting", address=f"192.0.2.{number}")
        for number in (1, 2)
    ]

    def let_go() -> None:
        for name in names:
            while (kernel.controller(name) / "delete_controller").read_text() != "1\n":
                time.sleep(0.01)
        for name in names:
            kernel.disconnect(name)

    async def give_up() -> list[Finding]:
        work = asyncio.create_task(
            reap.give_volume_up(
                config, node, volume_id("a"), dry_run=False, sysfs=Sysfs(kernel.sys)
            )
        )
        await asyncio.to_thread(let_go)
        return await work

    [finding] = asyncio.run(give_up())
    assert (finding.nqn, finding.error) == (OURS, "")


async def test_a_volume_with_one_live_path_is_not_given_up(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs
) -> None:
    kernel.connect(OURS, hostnqn=HOST.nqn, state="connecting")
    live = kernel.connect(OURS, hostnqn=HOST.nqn, address="192.0.2.2")
    with pytest.raises(ConfigurationError, match=f"has its RDS \\({live} is live"):
        await reap.give_volume_up(
            config, node, volume_id("a"), dry_run=False, sysfs=Sysfs(kernel.sys)
        )
    for name in kernel.controllers():
        assert (kernel.controller(name) / "delete_controller").read_text() == ""


async def test_a_dry_run_gives_nothing_up(
    config: DriverConfig, node: NodeConfig, kernel: FakeSysfs
) -> None:
    name = kernel.connect(OURS, hostnqn=HOST.nqn, state="connecting")
    [finding] = await reap.reap(
        config, node, dry_run=True, settle=0, give_up=volume_id("a"), sysfs=Sysfs(kernel.sys)
    )
    assert finding.verdict.disconnect
    assert (kernel.controller(name) / "delete_controller").read_text() == ""
