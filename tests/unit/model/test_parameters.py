"""StorageClass parameters and what they become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import Code, InvalidParameter
from rds_csi.model.contexts import connection_context
from rds_csi.model.parameters import KEYS, ConnectionConfig, VolumeParameters, claim_of
from rds_csi.model.volume import volume_id

NQN = f"nqn.2000-02.com.mikrotik:{volume_id('v')}"

connections = st.builds(
    ConnectionConfig,
    ctrl_loss_tmo=st.integers(-1, 2**31 - 1),
    reconnect_delay=st.integers(1, 2**31 - 1),
    keep_alive_tmo=st.integers(0, 2**31 - 1),
    fast_io_fail_tmo=st.none() | st.integers(0, 2**31 - 1),
    nr_io_queues=st.just(0) | st.integers(1, 1024),
    queue_size=st.just(0) | st.integers(16, 1024),
)


def test_without_parameters_the_defaults_stand() -> None:
    assert VolumeParameters.parse({}).connection == ConnectionConfig(
        ctrl_loss_tmo=-1, reconnect_delay=5, keep_alive_tmo=0
    )


def test_the_context_has_exactly_the_three_timers_where_only_they_are_set() -> None:
    config = ConnectionConfig(ctrl_loss_tmo=600, reconnect_delay=10, keep_alive_tmo=45)
    assert connection_context(config) == {
        "ctrlLossTmo": "600",
        "reconnectDelay": "10",
        "keepAliveTmo": "45",
    }
    assert ConnectionConfig.from_parameters(connection_context(config)) == config


@given(connections)
def test_a_connection_survives_its_context(config: ConnectionConfig) -> None:
    assert ConnectionConfig.from_parameters(connection_context(config)) == config
    parsed = VolumeParameters.parse(connection_context(config))
    assert parsed.connection == config


@pytest.mark.parametrize("value", ["-1", "0", "600"])
def test_ctrl_loss_tmo_takes(value: str) -> None:
    assert VolumeParameters.parse({"ctrlLossTmo": value}).connection.ctrl_loss_tmo == int(value)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("ctrlLossTmo", "-2", "ctrlLossTmo must be -1"),
        ("ctrlLossTmo", "x", "invalid ctrlLossTmo"),
        ("ctrlLossTmo", "1.5", "invalid ctrlLossTmo"),
        ("ctrlLossTmo", "", "invalid ctrlLossTmo"),
        ("ctrlLossTmo", "2147483648", "from"),
        ("ctrlLossTmo", "٣", "invalid ctrlLossTmo"),
        ("reconnectDelay", "0", "reconnectDelay must be positive"),
        ("reconnectDelay", "-5", "reconnectDelay must be positive"),
        ("reconnectDelay", "five", "invalid reconnectDelay"),
        ("keepAliveTmo", "-1", "keepAliveTmo must be non-negative"),
        ("keepAliveTmo", "ten", "invalid keepAliveTmo"),
        ("fastIoFailTmo", "-1", "fastIoFailTmo must be from 0"),
        ("nrIoQueues", "0", "nrIoQueues must be from 1"),
        ("queueSize", "15", "queueSize must be from 16"),
        ("queueSize", "1025", "queueSize must be from 16 to 1024"),
        ("nvmePort", "0", "nvmePort must be from 1"),
        ("nvmePort", "65536", "nvmePort"),
        ("nvmeAddress", "rds.example", "nvmeAddress"),
        ("nvmeAddress", "", "nvmeAddress"),
        ("volumePath", "raid10", "volumePath"),
        ("volumePath", "raid10/../etc", "volumePath"),
        ("volumePath", "raid10//csi", "volumePath"),
        ("volumePath", 'raid10/"; /system/reboot', "volumePath"),
        ("volumePath", "raid10/csi $x", "volumePath"),
        ("fencing", "yes", "fencing must be none or hostNqn"),
    ],
)
def test_bad_values_are_named(key: str, value: str, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text) as caught:
        VolumeParameters.parse({key: value})
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidParameter) as caught:
        VolumeParameters.parse({"ctrlLossTimeout": "5"})
    assert "'ctrlLossTimeout'" in str(caught.value)
    for key in KEYS:
        assert key in str(caught.value)


def test_kubernetes_own_keys_pass() -> None:
    told = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "shop"}
    assert claim_of(told) == ("shop", "data")
    assert claim_of({}) == ("", "")
    found = VolumeParameters.parse(told)
    assert found == VolumeParameters()


def test_a_class_overrides_the_drivers_defaults() -> None:
    defaults = VolumeParameters(nvme_addresses=("10.0.0.1",), volume_path="raid10/csi")
    found = VolumeParameters.parse(
        {"nvmeAddress": "fd00::0001", "nvmePort": "4421", "fencing": "hostNqn"}, defaults
    )
    assert found == VolumeParameters(
        nvme_addresses=("fd00::1",), nvme_port=4421, volume_path="raid10/csi", fencing=True
    )
    assert VolumeParameters.parse({"volumePath": "/pool/a/b/"}).volume_path == "pool/a/b"


def test_features_of_a_file_system_are_the_classs_word() -> None:
    for value, newest in (("linux-5.10", False), ("newest", True)):
        assert VolumeParameters.parse({"mkfsFeatures": value}).newest_features == newest
    for value in ("", "6.1", "Newest", "-O ^metadata_csum"):
        with pytest.raises(InvalidParameter, match=r"mkfsFeatures must be linux-5\.10 or newest"):
            VolumeParameters.parse({"mkfsFeatures": value})
