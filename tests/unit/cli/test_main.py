"""The command line: what is wrong is said in one sentence, and environment equals flag."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rds_csi.cli.main import main
from rds_csi.config import ControllerConfig, DriverConfig, NodeConfig
from rds_csi.driver import lifecycle

KEYS = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDe0pA8syM7qrcHif4QzzRQpT6DRcwl3uGS2r6Qtf4EC one",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAySh0rOqxGb69kIG2fkXWYTifQudN96scVrNiizFRcp two",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHVTC45nfcwVEbRJ0K3+scXY3UJmgEcLKMe916L41/j three",
)
GOOD_CONTROLLER = {
    "RDS_CSI_ENDPOINT": "/csi/csi.sock",
    "RDS_CSI_CLUSTER_ID": "prod",
    "RDS_CSI_RDS_ADDRESS": "10.0.0.1",
    "RDS_CSI_RDS_HOST_KEY": f"# a comment\n{KEYS[0]}\n\n{KEYS[1]}\n",
    "RDS_CSI_NVME_ADDRESS": "10.0.0.2",
    "RDS_CSI_VOLUME_PATH": "raid10/csi",
}
GOOD_NODE = {"RDS_CSI_CLUSTER_ID": "prod", "RDS_CSI_NODE_ID": "worker-1"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What the driver was started with, instead of starting it."""
    calls: list[tuple] = []

    def run(*configs):
        calls.append(configs)
        return 0

    monkeypatch.setattr(lifecycle, "run", run)
    monkeypatch.setattr("rds_csi.telemetry.logs.configure", lambda **_: None)
    return calls


def invoke(*words: str, environment: dict[str, str] | None = None):
    return CliRunner().invoke(main, words, env=environment, catch_exceptions=False)


def test_the_environment_is_enough(started: list[tuple]) -> None:
    assert invoke("controller", environment=GOOD_CONTROLLER).exit_code == 0
    [(shared, controller, node)] = started
    assert isinstance(shared, DriverConfig)
    assert isinstance(controller, ControllerConfig)
    assert node is None
    assert controller.rds_host_keys == KEYS[:2]
    assert controller.defaults.nvme_addresses == ("10.0.0.2",)


def test_a_flag_wins_over_the_environment(started: list[tuple]) -> None:
    invoke("node", "--node-id=worker-2", "--max-volumes=7", environment=GOOD_NODE)
    [(_, controller, node)] = started
    assert controller is None
    assert isinstance(node, NodeConfig)
    assert (node.node_id, node.max_volumes) == ("worker-2", 7)


def test_all_serves_both(started: list[tuple]) -> None:
    assert invoke("all", environment={**GOOD_CONTROLLER, **GOOD_NODE}).exit_code == 0
    [(_, controller, node)] = started
    assert controller is not None
    assert node is not None


def test_host_keys_from_a_file_and_a_value(started: list[tuple], tmp_path: Path) -> None:
    file = tmp_path / "host.pub"
    file.write_text(f"{KEYS[2]}\n")
    invoke("controller", f"--rds-host-key-file={file}", environment=GOOD_CONTROLLER)
    [(_, controller, _)] = started
    assert controller.rds_host_keys[-1] == KEYS[2]
    assert len(controller.rds_host_keys) == 3


@pytest.mark.parametrize(
    ("command", "change", "flag"),
    [
        ("controller", {"RDS_CSI_RDS_ADDRESS": ""}, "--rds-address"),
        ("controller", {"RDS_CSI_RDS_HOST_KEY": ""}, "--rds-host-key"),
        ("controller", {"RDS_CSI_RDS_HOST_KEY_FILE": "/nonexistent"}, "--rds-host-key-file"),
        ("controller", {"RDS_CSI_NVME_ADDRESS": "rds"}, "--nvme-address"),
        ("controller", {"RDS_CSI_NVME_PORT": "0"}, "--nvme-port"),
        ("controller", {"RDS_CSI_VOLUME_PATH": "raid10"}, "--volume-path"),
        ("controller", {"RDS_CSI_ENDPOINT": "csi.sock"}, "--endpoint"),
        ("controller", {"RDS_CSI_LIST_PAGE": "0"}, "--list-page"),
        ("node", {"RDS_CSI_NODE_ID": ""}, "--node-id"),
        ("node", {"RDS_CSI_STATE_DIR": "state"}, "--state-dir"),
        ("node", {"RDS_CSI_CLUSTER_ID": "a b"}, "--cluster-id"),
        ("node", {"RDS_CSI_STARTUP_TAINT": "a:NoExecute"}, "--startup-taint"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    started: list[tuple], command: str, change: dict[str, str], flag: str
) -> None:
    good = GOOD_CONTROLLER if command == "controller" else GOOD_NODE
    result = invoke(command, environment={**good, **change})
    assert result.exit_code == 2
    assert flag in result.output
    assert result.output.count("\n") == 1
    assert "Traceback" not in result.output
    assert not started


@pytest.mark.parametrize("words", [("node", "--connects=x"), ("controller", "--rds-port=0")])
def test_a_wrong_type_too(started: list[tuple], words: tuple[str, ...]) -> None:
    result = invoke(*words, environment={**GOOD_CONTROLLER, **GOOD_NODE})
    assert result.exit_code == 2
    assert words[1].split("=")[0] in result.output
    assert not started


@pytest.mark.parametrize("name", ["controller", "node", "all"])
def test_every_setting_has_its_variable(name: str) -> None:
    command = main.commands[name]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            variable = "RDS_CSI_" + str(parameter.name).upper()
            assert parameter.envvar == variable
            assert parameter.help


def test_every_field_of_the_settings_has_its_flag() -> None:
    flags = {parameter.name for parameter in main.commands["all"].params}
    renamed = {"rds_host_keys": "rds_host_key", "defaults": "volume_path"}
    renamed["rds_accept_any_host_key"] = "rds_accept_any_host_key_insecure"
    for settings in (DriverConfig, ControllerConfig, NodeConfig):
        for name in settings.__dataclass_fields__:
            assert renamed.get(name, name) in flags, name
