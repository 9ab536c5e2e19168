"""Flags become settings: the environment's name of each, host keys, and one way to refuse."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from rds_csi.cli.options import (
    HOST_KEY_FILE,
    address_options,
    controller_config,
    controller_options,
    driver_options,
    host_keys,
    node_options,
    option,
    options,
    pick,
    refuse,
)
from rds_csi.config import ConfigurationError, DriverConfig, NodeConfig
from tests.unit.cli.test_main import KEYS


def flags_of(group: Any) -> list[str]:
    """The flags of a group, in the order of the help."""
    command = click.command()(group(lambda **_flags: None))
    return [parameter.opts[0] for parameter in command.params]


def test_a_flag_has_the_variable_of_its_name_and_says_so() -> None:
    @click.command()
    @option("--some-flag/--no-some-flag", default=True, help="Some.")
    @option("--other", default=3, help="Other.")
    def command(**flags: Any) -> None:
        click.echo(flags)

    done = CliRunner().invoke(command, env={"RDS_CSI_OTHER": "7", "RDS_CSI_SOME_FLAG": "false"})
    assert done.output == "{'some_flag': False, 'other': 7}\n"
    told = CliRunner().invoke(command, ["--help"]).output
    for text in ("RDS_CSI_SOME_FLAG", "RDS_CSI_OTHER", "default: 3"):
        assert text in told


def test_groups_are_shown_in_their_order() -> None:
    both = options(option("--first"), options(option("--second"), option("--third")))
    assert flags_of(both) == ["--first", "--second", "--third"]
    assert flags_of(driver_options)[:2] == ["--endpoint", "--cluster-id"]
    assert flags_of(controller_options)[: len(flags_of(address_options))] == (
        flags_of(address_options)
    )


def test_no_flag_stands_in_two_groups() -> None:
    """``rds-csi all`` takes them all."""
    flags = [*flags_of(driver_options), *flags_of(controller_options), *flags_of(node_options)]
    assert len(flags) == len(set(flags))


def given(**changes: Any) -> dict[str, Any]:
    """The controller's flags, good but for ``changes``."""
    flags = {
        "rds_address": "10.0.0.1",
        "rds_port": 22,
        "nvme_address": "10.0.0.2",
        "nvme_port": "4421",
        "rds_user": "csi",
        "rds_key_file": Path("/key"),
        "rds_host_key": KEYS[0],
        "rds_host_key_file": None,
        "rds_accept_any_host_key_insecure": False,
        "rds_channels": 8,
        "volume_path": "raid10/csi",
        "reserve": 5,
        "list_page": 500,
        "path_layer": True,
        "growth": "always",
        "endpoint": Path("/csi/csi.sock"),
    }
    assert set(changes) <= set(flags)
    return flags | changes


def test_flags_become_a_controllers_settings() -> None:
    config = controller_config(given())
    assert (config.rds_address, config.reserve, config.rds_host_keys) == ("10.0.0.1", 5, KEYS[:1])
    assert config.defaults.nvme_addresses == ("10.0.0.2",)
    assert config.defaults.nvme_port == 4421
    assert config.defaults.volume_path == "raid10/csi"
    assert not config.rds_accept_any_host_key


def test_only_the_flag_that_says_insecure_takes_any_host_key() -> None:
    config = controller_config(given(rds_host_key="", rds_accept_any_host_key_insecure=True))
    assert config.rds_accept_any_host_key
    with pytest.raises(ConfigurationError, match="--rds-host-key"):
        controller_config(given(rds_host_key=""))


def test_keys_of_the_file_are_beside_those_of_the_flag(tmp_path: Path) -> None:
    file = tmp_path / "host.pub"
    file.write_text(f"# of the RDS\n\n  {KEYS[1]}  \n{KEYS[2]}\n")
    assert controller_config(given(rds_host_key_file=file)).rds_host_keys == KEYS


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file in (tmp_path, tmp_path / "none", tmp_path / "binary"):
        with pytest.raises(ConfigurationError, match=HOST_KEY_FILE):
            controller_config(given(rds_host_key_file=file))


@pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n"])
def test_a_file_without_a_key_is_a_mistake_and_an_empty_flag_is_not(text: str) -> None:
    """The flag is empty where the file is used."""
    assert host_keys("--rds-host-key", text) == ()
    with pytest.raises(ConfigurationError, match="no public key of the RDS"):
        host_keys(HOST_KEY_FILE, text)


def test_a_private_key_is_refused_and_not_repeated() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n"
    with pytest.raises(ConfigurationError, match="a private key is given") as caught:
        host_keys("--rds-host-key", text)
    assert "b3BlbnNzaC1rZXktdjEA" not in str(caught.value)


def test_a_key_that_cannot_be_read_is_refused_beside_good_ones() -> None:
    with pytest.raises(ConfigurationError, match="--rds-host-key: "):
        host_keys("--rds-host-key", f"{KEYS[0]}\nssh-ed25519 AAAA\n")


def test_only_fields_of_the_settings_are_picked() -> None:
    flags = {"node_id": "a", "endpoint": Path("/a.sock"), "cluster_id": "c", "connects": 3}
    assert pick(flags, NodeConfig) == {"node_id": "a", "connects": 3}
    assert pick(flags, DriverConfig, cluster_id="d") == {
        "endpoint": Path("/a.sock"),
        "cluster_id": "d",
    }


def test_a_refusal_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        refuse("--node-id: it is empty")
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "rds-csi: --node-id: it is empty\n")
