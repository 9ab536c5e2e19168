"""What the Node service works with: the driver's own, and the fakes, have what it asks of them."""

import dataclasses
import inspect
from pathlib import Path

import pytest

from rds_csi.node.ports import Initiator, NodePorts, Subsystems
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.sysfs import Sysfs
from tests.unit.fakes.node_host import FakeHost


def asked(port: type) -> dict[str, inspect.Signature]:
    """The methods of a port."""
    return {
        name: inspect.signature(method)
        for name, method in vars(port).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("port", "kinds"),
    [(Initiator, (Connector, FakeHost)), (Subsystems, (Sysfs, FakeHost))],
)
def test_whoever_stands_behind_a_port_takes_what_it_is_given(
    port: type, kinds: tuple[type, ...]
) -> None:
    """As they are now: a default or a parameter that one of them lacks is a call that fails."""
    assert asked(port)
    for kind in kinds:
        for name, signature in asked(port).items():
            own = inspect.signature(getattr(kind, name)).parameters
            for parameter in signature.parameters.values():
                assert own[parameter.name].kind == parameter.kind, (kind, name)
                assert own[parameter.name].default == parameter.default, (kind, name)
            more = [own[each] for each in own if each not in signature.parameters]
            assert all(each.default is not each.empty for each in more), (kind, name)
            coroutine = inspect.iscoroutinefunction(vars(port)[name])
            assert inspect.iscoroutinefunction(getattr(kind, name)) is coroutine, (kind, name)


def test_ports_are_given_by_name_and_never_change(tmp_path: Path) -> None:
    ports = FakeHost(tmp_path).ports()
    with pytest.raises(dataclasses.FrozenInstanceError):
        ports.runner = ports.runner  # type: ignore[misc]
    with pytest.raises(TypeError):
        NodePorts(*(getattr(ports, each.name) for each in dataclasses.fields(ports)))  # type: ignore[call-arg]
