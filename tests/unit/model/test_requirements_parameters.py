"""The lines of docs/requirements-lines.toml about parameters."""

import pytest

from rds_csi.errors import Code, InvalidParameter
from rds_csi.model.contexts import Target, connection_context, volume_context
from rds_csi.model.parameters import KEYS, ConnectionConfig, VolumeParameters

TIMERS = ("ctrlLossTmo", "reconnectDelay", "keepAliveTmo")


def config(**parameters: str) -> ConnectionConfig:
    return ConnectionConfig.from_parameters(parameters)


def refused(**parameters: str) -> str:
    with pytest.raises(InvalidParameter) as caught:
        config(**parameters)
    assert caught.value.code == Code.INVALID_ARGUMENT
    return str(caught.value)


@pytest.mark.requirement("PARM-01")
def test_the_keys() -> None:
    assert set(TIMERS) <= set(KEYS)
    timers = config(ctrlLossTmo="1", reconnectDelay="2", keepAliveTmo="3")
    assert (timers.ctrl_loss_tmo, timers.reconnect_delay, timers.keep_alive_tmo) == (1, 2, 3)
    for wrong in ("ctrl_loss_tmo", "CtrlLossTmo", "keepAliveTimeout"):
        with pytest.raises(InvalidParameter, match="unknown"):
            VolumeParameters.parse({wrong: "1"})


@pytest.mark.requirement("PARM-02")
@pytest.mark.requirement("ARGS-01")
def test_no_parameters() -> None:
    empty = config()
    assert (empty.ctrl_loss_tmo, empty.reconnect_delay, empty.keep_alive_tmo) == (-1, 5, 0)
    assert empty == ConnectionConfig()


@pytest.mark.requirement("PARM-03")
@pytest.mark.requirement("PIT-04")
def test_ctrl_loss_tmo() -> None:
    for value in ("-1", "0", "1", "600"):
        assert config(ctrlLossTmo=value).ctrl_loss_tmo == int(value)
    assert "ctrlLossTmo must be -1" in refused(ctrlLossTmo="-2")
    for value in ("", "abc", "1.5", "5s", " 5", "0x5"):
        assert "invalid ctrlLossTmo" in refused(ctrlLossTmo=value)


@pytest.mark.requirement("PARM-04")
@pytest.mark.requirement("PIT-04")
def test_reconnect_delay() -> None:
    assert config(reconnectDelay="10").reconnect_delay == 10
    for value in ("0", "-1"):
        assert "reconnectDelay must be positive" in refused(reconnectDelay=value)
    for value in ("", "abc", "1.5"):
        assert "invalid reconnectDelay" in refused(reconnectDelay=value)


@pytest.mark.requirement("PARM-05")
@pytest.mark.requirement("PIT-04")
def test_keep_alive_tmo() -> None:
    for value in ("0", "30"):
        assert config(keepAliveTmo=value).keep_alive_tmo == int(value)
    assert "keepAliveTmo must be non-negative" in refused(keepAliveTmo="-1")
    for value in ("", "abc", "1.5"):
        assert "invalid keepAliveTmo" in refused(keepAliveTmo=value)


@pytest.mark.requirement("PARM-07")
@pytest.mark.requirement("CONN-03")
def test_they_travel_as_three_texts() -> None:
    chosen = config(ctrlLossTmo="600", reconnectDelay="10", keepAliveTmo="45")
    context = connection_context(chosen)
    assert context == {"ctrlLossTmo": "600", "reconnectDelay": "10", "keepAliveTmo": "45"}
    assert ConnectionConfig.from_parameters(context) == chosen


@pytest.mark.requirement("CONN-03")
def test_from_the_storage_class_to_the_node() -> None:
    nqn = "nqn.2000-02.com.mikrotik:pvc-" + "0" * 28
    parameters = VolumeParameters.parse(
        {"nvmeAddress": "192.0.2.1", "ctrlLossTmo": "30", "reconnectDelay": "2"}
    )
    context = volume_context(parameters, nqn, keep_address=True)
    assert ConnectionConfig.from_parameters(context) == parameters.connection
    assert Target.from_contexts({}, context) == Target(("192.0.2.1",), 4420, nqn)
