"""What ``nvme connect`` is told, and which names are ours."""

import dataclasses
import json
from pathlib import Path

import pytest

from rds_csi.model.contexts import Endpoint
from rds_csi.model.host_identity import HostIdentity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.arguments import connect_arguments, connect_file, connect_json, is_our_nqn

NQN = "nqn.2000-02.com.mikrotik:pvc-" + "0" * 28
TARGET = Endpoint("192.0.2.1", 4420, NQN)
HOST = HostIdentity("nqn.2014-08.org.nvmexpress:uuid:1", "1")
BASE = ["connect", "-t", "tcp", "-a", "192.0.2.1", "-s", "4420", "-n", NQN]


@pytest.mark.requirement("CONN-01")
@pytest.mark.requirement("ARGS-07")
@pytest.mark.parametrize(
    ("config", "host", "expected"),
    [
        (ConnectionConfig(), None, ["-l", "-1", "-c", "5"]),
        (
            ConnectionConfig(),
            HOST,
            ["-l", "-1", "-c", "5", "-q", HOST.nqn, "-I", HOST.hostid],
        ),
        (ConnectionConfig(ctrl_loss_tmo=0), None, ["-c", "5"]),
        (ConnectionConfig(ctrl_loss_tmo=600), None, ["-l", "600", "-c", "5"]),
        (ConnectionConfig(reconnect_delay=10), None, ["-l", "-1", "-c", "10"]),
        (ConnectionConfig(keep_alive_tmo=30), None, ["-l", "-1", "-c", "5", "-k", "30"]),
        (ConnectionConfig(reconnect_delay=0), None, ["-l", "-1"]),
        (
            ConnectionConfig(nr_io_queues=4, queue_size=64),
            None,
            ["-l", "-1", "-c", "5", "--nr-io-queues", "4", "--queue-size", "64"],
        ),
        (ConnectionConfig(fast_io_fail_tmo=0), None, ["-l", "-1", "-c", "5"]),
    ],
)
def test_arguments(
    config: ConnectionConfig, host: HostIdentity | None, expected: list[str]
) -> None:
    assert connect_arguments(TARGET, config, host) == [*BASE, *expected]


@pytest.mark.requirement("ARGS-02")
@pytest.mark.requirement("ARGS-07")
def test_the_first_argument_and_the_order_of_the_address() -> None:
    arguments = connect_arguments(TARGET, ConnectionConfig(), HOST)
    assert arguments[0] == "connect"
    assert arguments[:9] == BASE


@pytest.mark.requirement("ARGS-03")
@pytest.mark.parametrize(("value", "shown"), [(-1, True), (0, False), (1, True), (600, True)])
def test_ctrl_loss_tmo_is_there_unless_0(value: int, shown: bool) -> None:
    arguments = connect_arguments(TARGET, ConnectionConfig(ctrl_loss_tmo=value), None)
    assert ("-l" in arguments) is shown
    if shown:
        assert arguments[arguments.index("-l") + 1] == str(value)


@pytest.mark.requirement("ARGS-04")
@pytest.mark.parametrize(("value", "shown"), [(0, False), (1, True), (10, True)])
def test_reconnect_delay_is_there_if_positive(value: int, shown: bool) -> None:
    arguments = connect_arguments(TARGET, ConnectionConfig(reconnect_delay=value), None)
    assert ("-c" in arguments) is shown


@pytest.mark.requirement("ARGS-05")
@pytest.mark.parametrize(("value", "shown"), [(0, False), (1, True), (30, True)])
def test_keep_alive_is_there_if_positive(value: int, shown: bool) -> None:
    arguments = connect_arguments(TARGET, ConnectionConfig(keep_alive_tmo=value), None)
    assert ("-k" in arguments) is shown


@pytest.mark.requirement("ARGS-06")
def test_host_nqn_only_if_there_is_one_and_never_without_its_id() -> None:
    assert "-q" not in connect_arguments(TARGET, ConnectionConfig(), None)
    assert "-q" not in connect_arguments(TARGET, ConnectionConfig(), HostIdentity("", ""))
    arguments = connect_arguments(TARGET, ConnectionConfig(), HOST)
    assert arguments[arguments.index("-q") + 1] == HOST.nqn
    assert arguments[arguments.index("-I") + 1] == HOST.hostid


@pytest.mark.parametrize(
    ("loss", "delay", "told"),
    [
        (-1, 5, -1),
        (600, 5, 600),
        (2**31 - 5, 5, 2**31 - 5),
        (2**31 - 1, 5, 2**31 - 5),
        (2**31 - 1, 1, 2**31 - 1),
        (2**31 - 1, 2**31 - 1, 1),
        (600, 2**31 - 1, 1),
    ],
)
def test_the_kernel_is_never_told_so_much_that_it_counts_wrongly(
    loss: int, delay: int, told: int
) -> None:
    """It computes (loss + delay - 1) / delay attempts in 32 bits with a sign."""
    config = ConnectionConfig(ctrl_loss_tmo=loss, reconnect_delay=delay)
    arguments = connect_arguments(TARGET, config, None)
    assert arguments[arguments.index("-l") + 1] == str(told)
    assert told + delay - 1 < 2**31


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ConnectionConfig)])
def test_every_setting_is_told(name: str) -> None:
    config = dataclasses.replace(ConnectionConfig(), **{name: 37})
    assert f'"{name}": 37' in connect_json(TARGET, config, HOST)
    # ``-F`` is tried apart: not every nvme-cli has it.
    assert ("37" in connect_arguments(TARGET, config, HOST)) is (name != "fast_io_fail_tmo")


def test_the_file_is_there_while_it_is_needed() -> None:
    config = ConnectionConfig(fast_io_fail_tmo=0)
    with connect_file(TARGET, config, HOST) as arguments:
        assert arguments[0] == "-J"
        file = Path(arguments[1])
        assert file.read_text() == file.read_text() == connect_json(TARGET, config, HOST)
    assert not file.exists()
    (host,) = json.loads(connect_json(TARGET, config, HOST))
    # Nobody hands on a 0.
    assert host["subsystems"][0]["ports"][0]["fast_io_fail_tmo"] == 1


@pytest.mark.parametrize(
    ("nqn", "ours"),
    [
        ("nqn.2000-02.com.mikrotik:pvc-" + "0" * 28, True),
        ("nqn.2000-02.com.mikrotik:pvc-01234567-89ab-cdef-0123-456789abcdef", True),
        ("nqn.2000-02.com.mikrotik:pvc-" + "0" * 28 + ".12", True),
        ("nqn.2000-02.com.mikrotik:pvc-01234567-89ab-cdef-0123-456789abcdef.1", True),
        ("nqn.2000-02.com.mikrotik:pvc-" + "0" * 28 + ".x", False),
        ("nqn.2000-02.com.mikrotik:pvc-" + "0" * 27, False),
        ("nqn.2000-02.com.mikrotik:pvc-" + "G" * 28, False),
        ("nqn.2000-02.com.mikrotik:snap-" + "0" * 27, False),
        ("nqn.2000-02.com.mikrotik:boot:pvc-" + "0" * 28, False),
        ("nqn.2000-02.com.mikrotik:root", False),
        ("nqn.2000-02.com.mikrotik.evil:pvc-" + "0" * 28, False),
        ("nqn.2014-08.org.nixos:pvc-" + "0" * 28, False),
        ("pvc-" + "0" * 28, False),
        ("", False),
    ],
)
def test_names_of_ours(nqn: str, ours: bool) -> None:
    assert is_our_nqn(nqn, "nqn.2000-02.com.mikrotik") is ours
