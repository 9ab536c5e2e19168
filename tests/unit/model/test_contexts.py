"""VolumeContext and PublishContext: what is written into them is what is read out of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import InvalidParameter, InvalidRequest
from rds_csi.model.contexts import (
    CONTENT_SOURCE_KEY,
    GENERATION_KEY,
    SIZE_KEY,
    Endpoint,
    Published,
    Target,
    connection_context,
    has_source,
    io_waits,
    newest_features,
    volume_context,
)
from rds_csi.model.parameters import KEYS, ConnectionConfig, VolumeParameters

NQN = "nqn.2000-02.com.mikrotik:pvc-" + "0" * 28
NUMBERS = st.none() | st.integers(0, 10**18 - 1)


@given(
    st.builds(
        Published,
        size=NUMBERS,
        generation=NUMBERS,
        formatted=st.sampled_from(["", "ext4", "xfs"]),
        read_only=st.booleans(),
        path_layer=st.booleans(),
    )
)
def test_what_is_told_arrives(told: Published) -> None:
    context = told.to_context()
    assert all(isinstance(text, str) and text for text in context.values())
    assert Published.from_context(context) == told


def test_what_is_not_told_is_absent() -> None:
    assert Published().to_context() == {}
    assert Published(generation=0).to_context() == {GENERATION_KEY: "0"}


@pytest.mark.parametrize("key", [SIZE_KEY, GENERATION_KEY])
@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e9", "many", "٣", "1" * 19, " 1"])
def test_a_number_that_is_none_is_refused(key: str, text: str) -> None:
    with pytest.raises(InvalidParameter, match=key):
        Published.from_context({key: text})


def test_only_a_true_is_read_only() -> None:
    assert Published.from_context({"readonly": "true"}).read_only
    assert not Published.from_context({"readonly": "false"}).read_only


def test_only_a_true_asks_for_a_map() -> None:
    assert Published.from_context({"pathLayer": "true"}).path_layer
    assert not Published.from_context({"pathLayer": "false"}).path_layer
    assert not Published.from_context({}).path_layer


def test_io_waits_unless_errors_were_asked_for() -> None:
    assert io_waits({})
    assert io_waits({"ctrlLossTmo": "-1", "reconnectDelay": "1"})
    for errors in ({"ctrlLossTmo": "600"}, {"ctrlLossTmo": "0"}, {"fastIoFailTmo": "5"}):
        assert not io_waits(errors)


def test_a_source_is_told_by_the_volume_context() -> None:
    assert has_source({CONTENT_SOURCE_KEY: "snap-1"})
    assert not has_source({})


@given(
    st.builds(
        ConnectionConfig,
        ctrl_loss_tmo=st.integers(-1, 600),
        reconnect_delay=st.integers(1, 60),
        keep_alive_tmo=st.integers(0, 60),
        fast_io_fail_tmo=st.none() | st.integers(0, 60),
        nr_io_queues=st.integers(0, 64),
        queue_size=st.just(0) | st.integers(16, 1024),
    )
)
def test_a_connections_settings_arrive(config: ConnectionConfig) -> None:
    assert ConnectionConfig.from_parameters(connection_context(config)) == config


@pytest.mark.parametrize("key", [key for key, rule in KEYS.items() if rule.connection])
def test_every_key_of_a_connection_travels(key: str) -> None:
    parameters = VolumeParameters.parse({key: "37"})
    context = volume_context(parameters, NQN, keep_address=False)
    assert context[key] == "37"
    assert ConnectionConfig.from_parameters(context) == parameters.connection


def test_a_target_comes_from_both_contexts_and_publish_wins() -> None:
    volume = volume_context(
        VolumeParameters(nvme_addresses=("10.0.0.1",), nvme_port=4421), NQN, keep_address=True
    )
    assert Target.from_contexts({}, volume) == Target(("10.0.0.1",), 4421, NQN)
    moved = Target(("10.0.0.2",), 4420, NQN)
    assert volume["nvmeAddress"] == "10.0.0.1"
    assert Target.from_contexts(moved.to_context(), volume) == moved
    unnamed = volume_context(
        VolumeParameters(nvme_addresses=("10.0.0.1",)), NQN, keep_address=False
    )
    assert "nvmeAddress" not in unnamed
    assert Target.from_contexts(moved.to_context(), unnamed) == moved


def test_several_addresses_travel_in_their_order() -> None:
    target = Target(("10.0.2.5", "10.0.1.5"), 4420, NQN)
    assert target.to_context()["nvmeAddress"] == "10.0.2.5,10.0.1.5"
    assert Target.from_contexts(target.to_context(), {}) == target
    assert target.endpoints == (
        Endpoint("10.0.2.5", 4420, NQN),
        Endpoint("10.0.1.5", 4420, NQN),
    )
    parameters = VolumeParameters(nvme_addresses=("10.0.2.5", "10.0.1.5"))
    volume = volume_context(parameters, NQN, keep_address=True)
    assert Target.from_contexts({}, volume) == target


def test_a_context_of_a_version_that_knew_one_address_is_read() -> None:
    context = {"nvmeAddress": "10.0.1.5", "nvmePort": "4420", "nqn": NQN}
    assert Target.from_contexts(context, {}) == Target(("10.0.1.5",), 4420, NQN)


@pytest.mark.parametrize("key", ["nvmeAddress", "nvmePort", "nqn"])
def test_a_target_without_one_of_its_parts(key: str) -> None:
    context = Target(("10.0.0.1",), 4420, NQN).to_context()
    del context[key]
    with pytest.raises(InvalidParameter, match=key):
        Target.from_contexts({}, context)


def test_a_target_with_a_bad_nqn() -> None:
    context = {**Target(("10.0.0.1",), 4420, NQN).to_context(), "nqn": "nqn.2000-02.a:b c"}
    with pytest.raises(InvalidRequest, match="NQN"):
        Target.from_contexts({}, context)


@pytest.mark.parametrize("newest", [False, True])
def test_features_travel_where_the_class_sets_them(newest: bool) -> None:
    parameters = VolumeParameters(volume_path="raid10/csi", newest_features=newest)
    context = volume_context(parameters, NQN, keep_address=False)
    assert ("mkfsFeatures" in context) == newest
    assert newest_features(context) == newest
