"""Each setting of a new connection is read back; what differs is an error that names it."""

import dataclasses
from typing import Any

import pytest
import structlog.testing

from rds_csi.errors import Code, ConnectFailed, ConnectRejected
from rds_csi.model.contexts import Endpoint
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.live_settings import EXPECTED, Settings, differences
from rds_csi.nvme.sysfs import Sysfs
from tests.unit.fakes.sysfs import OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import DELETE, ENDPOINT, HOST, TARGET, A, Kernel

pytestmark = pytest.mark.looptime

ASKED: dict[str, Any] = {
    "ctrl_loss_tmo": 12,
    "reconnect_delay": 7,
    "keep_alive_tmo": 30,
    "fast_io_fail_tmo": 9,
    "nr_io_queues": 4,
    "queue_size": 64,
}
"""One value for each field; none is the kernel's default or ours."""
RIGHT = {
    "ctrl_loss_tmo": ("ctrl_loss_tmo", "14"),  # two attempts, seven seconds apart
    "reconnect_delay": ("reconnect_delay", "7"),
    "keep_alive_tmo": ("kato", "30"),
    "fast_io_fail_tmo": ("fast_io_fail_tmo", "9"),
    "nr_io_queues": ("queue_count", "5"),
    "queue_size": ("sqsize", "63"),
}
KERNELS_OWN = {
    "ctrl_loss_tmo": "600",
    "reconnect_delay": "10",
    "kato": "5",
    "fast_io_fail_tmo": "off",
    "queue_count": "9",
    "sqsize": "127",
}


def test_every_field_has_its_proof() -> None:
    names = {field.name for field in dataclasses.fields(ConnectionConfig)}
    assert names == set(EXPECTED) == set(ASKED) == set(RIGHT)


@pytest.mark.parametrize("name", list(ASKED))
def test_what_is_asked_for_is_looked_for(name: str) -> None:
    config = ConnectionConfig(**ASKED)
    shown = dict(RIGHT.values())
    assert differences(shown.__getitem__, config) == ([], [])

    attribute, wanted = RIGHT[name]
    for wrong in (KERNELS_OWN[attribute], ""):
        found, _ = differences({**shown, attribute: wrong}.__getitem__, config)
        assert len(found) == 1
        assert found[0].startswith(name)
        assert f"is {wrong or 'not shown'}, asked for was {wanted}" in found[0]


@pytest.mark.parametrize(("attribute", "asked"), [("queue_count", "5"), ("sqsize", "63")])
def test_a_target_may_grant_less_and_never_more(attribute: str, asked: str) -> None:
    config = ConnectionConfig(**ASKED)
    shown = dict(RIGHT.values())
    wrong, less = differences({**shown, attribute: "2"}.__getitem__, config)
    assert wrong == []
    assert f"({attribute}) is 2, asked for was {asked}" in less[0]
    for beyond in ("1000", "0", "-1", "off"):
        wrong, less = differences({**shown, attribute: beyond}.__getitem__, config)
        assert f"({attribute}) is {beyond}" in wrong[0]
        assert less == []


@pytest.mark.parametrize("shown", ["600", "0", "-2147483646", ""])
def test_never_giving_up_is_off_and_nothing_else(shown: str) -> None:
    found = {**KERNELS_OWN, "reconnect_delay": "5", "ctrl_loss_tmo": shown}
    (wrong,), _ = differences(found.__getitem__, ConnectionConfig())
    assert f"ctrl_loss_tmo is {shown or 'not shown'}, asked for was off" in wrong


def test_io_that_is_to_wait_does_not_fail_fast() -> None:
    """Without ``fastIoFailTmo`` I/O waits as long as it takes; old kernels know no other way."""
    found = {**KERNELS_OWN, "reconnect_delay": "5", "ctrl_loss_tmo": "off"}
    for fine in ("off", ""):
        found["fast_io_fail_tmo"] = fine
        assert differences(found.__getitem__, ConnectionConfig()) == ([], [])
    found["fast_io_fail_tmo"] = "77"
    (wrong,), _ = differences(found.__getitem__, ConnectionConfig())
    assert "fast_io_fail_tmo is 77, asked for was off" in wrong


def test_the_kernels_own_is_not_asked_for() -> None:
    own = ConnectionConfig(ctrl_loss_tmo=0, reconnect_delay=0)
    assert differences(KERNELS_OWN.__getitem__, own) == ([], [])


@pytest.mark.parametrize(
    ("attribute", "found"),
    [
        ("ctrl_loss_tmo", "600"),
        ("reconnect_delay", "10"),
        ("fast_io_fail_tmo", "77"),
    ],
)
async def test_a_connection_that_came_out_otherwise_is_an_error_and_taken_down(
    kernel: Kernel, attribute: str, found: str
) -> None:
    """What nvme-cli 2.13 made of ``-J``, and 2.3 of ``/etc/nvme/config.json``."""
    kernel.works()
    kernel.granted = {attribute: found}
    with pytest.raises(ConnectRejected, match=f"{attribute} is {found}, asked for was") as caught:
        await kernel.connector().connect_with_retry(TARGET, ConnectionConfig(), volume="pvc-1")
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.volume == "pvc-1"
    assert kernel.tree.controllers() == []
    assert len(kernel.runner.asked("nvme")) == 1


async def test_what_a_target_grants_less_is_logged(kernel: Kernel) -> None:
    kernel.works()
    kernel.granted = {"queue_count": "3", "sqsize": "31"}
    with structlog.testing.capture_logs() as logs:
        await kernel.connector().connect_with_config(
            TARGET, ConnectionConfig(nr_io_queues=8, queue_size=64)
        )
    (line,) = [line for line in logs if line["event"] == "target grants less"]
    assert "nr_io_queues (queue_count) is 3, asked for was 9" in str(line["granted"])
    assert "queue_size (sqsize) is 31, asked for was 63" in str(line["granted"])


async def test_a_connection_that_stands_is_kept_with_its_settings_and_that_is_logged(
    kernel: Kernel,
) -> None:
    kernel.works()
    kernel.tree.connect(A, ctrl_loss_tmo="600", reconnect_delay="10")
    with structlog.testing.capture_logs() as logs:
        await kernel.connector().connect(TARGET, volume="pvc-1")
    (line,) = [line for line in logs if "other settings" in line["event"]]
    assert "ctrl_loss_tmo is 600, asked for was off" in str(line["differences"])
    assert line["log_level"] == "warning"
    assert kernel.tree.controllers() == ["nvme0"]
    assert not kernel.runner.asked(*DELETE)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hostid": "1"}, "hostid is 1, asked for was 11111111-"),
        ({"hostnqn": OTHER_NQN}, "hostnqn is .*9999"),
        ({"transport": "rdma"}, "transport is rdma, asked for was tcp"),
        ({"address": "traddr=192.0.2.2,trsvcid=4420"}, "traddr is 192.0.2.2, asked for was 192"),
        ({"address": "traddr=192.0.2.1,trsvcid=4421"}, "trsvcid is 4421, asked for was 4420"),
        (
            {"address": "traddr=192.0.2.1,trsvcid=4420,host_iface=eth7"},
            "host_iface is eth7, asked for was none",
        ),
        (
            {"address": "traddr=192.0.2.1,trsvcid=4420,host_traddr=192.0.2.7"},
            "host_traddr is 192.0.2.7, asked for was none",
        ),
    ],
)
def test_both_ends_are_those_asked_for(tree: FakeSysfs, change: dict[str, str], text: str) -> None:
    name = tree.connect(A)
    sysfs = Sysfs(tree.sys)
    made = sysfs.controllers(A)
    settings = Settings(sysfs, HOST)
    settings.require(made, ENDPOINT, ConnectionConfig(), volume="pvc-1")
    for attribute, value in change.items():
        tree.set(name, attribute, value)
    with pytest.raises(ConnectRejected, match=text):
        settings.require(made, ENDPOINT, ConnectionConfig(), volume="pvc-1")


def test_an_ipv6_address_is_the_same_in_every_spelling(tree: FakeSysfs) -> None:
    tree.connect(A, address="2001:0DB8:0:0::1")
    sysfs = Sysfs(tree.sys)
    endpoint = Endpoint("2001:db8::1", 4420, A)
    Settings(sysfs, HOST).require(sysfs.controllers(A), endpoint, ConnectionConfig(), volume="")


def test_a_connection_that_went_meanwhile_is_no_proof(tree: FakeSysfs) -> None:
    tree.connect(A)
    sysfs = Sysfs(tree.sys)
    made = sysfs.controllers(A)
    tree.disconnect("nvme0")
    for controllers in (made, []):
        with pytest.raises(ConnectFailed, match="gone again") as caught:
            Settings(sysfs, HOST).require(controllers, ENDPOINT, ConnectionConfig(), volume="")
        assert caught.value.transient
