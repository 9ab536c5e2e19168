"""Connections are brought back in one attempt each, and given up only where they are dead."""

import asyncio

import pytest

from rds_csi.errors import ConnectFailed, FailedPrecondition, NotOurs, ShuttingDown
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.child import PROVEN
from rds_csi.nvme.proven import HELD
from rds_csi.nvme.reconnector import Reconnector
from rds_csi.runtime.scope import Scope
from tests.unit.fakes.sysfs import OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import HOST, REFUSED, TARGET, A, B, Kernel

pytestmark = pytest.mark.looptime
GIVE_UP = (*PROVEN, "give-up")


@pytest.fixture
def scope() -> Scope:
    return Scope()


@pytest.fixture
def reconnector(kernel: Kernel, scope: Scope) -> Reconnector:
    return Reconnector(kernel.connector(), kernel.runner, kernel.sysfs, HOST, scope=scope)


async def test_it_connects_and_disconnects(kernel: Kernel, reconnector: Reconnector) -> None:
    kernel.works()
    found = await reconnector.connect_once(TARGET, ConnectionConfig(), volume="pvc-1")
    assert found.size == 64 << 20
    await reconnector.disconnect(A, volume="pvc-1")
    assert kernel.tree.controllers() == []


async def test_a_refusal_is_not_repeated(kernel: Kernel, reconnector: Reconnector) -> None:
    kernel.runner.fail("nvme", "connect", stderr=REFUSED)
    with pytest.raises(ConnectFailed):
        await reconnector.connect_once(TARGET, ConnectionConfig())
    assert len(kernel.runner.asked("nvme", "connect")) == 1


async def test_it_ends_with_the_driver(
    kernel: Kernel, reconnector: Reconnector, scope: Scope
) -> None:
    kernel.works(takes=20)
    connecting = asyncio.create_task(reconnector.connect_once(TARGET, ConnectionConfig()))
    await asyncio.sleep(1)
    scope.stop()
    with pytest.raises(ShuttingDown):
        await connecting


async def test_what_is_dead_is_given_up_although_it_is_held(
    kernel: Kernel, reconnector: Reconnector
) -> None:
    kernel.tree.connect(A, state="connecting")
    kernel.tree.hold("nvme0n1")
    kernel.tree.connect(A, hostnqn=OTHER_NQN, state="connecting")
    kernel.runner.on(*GIVE_UP, effect=lambda _call: kernel.tree.disconnect("nvme0"))
    await reconnector.give_up(A, volume="pvc-1")
    (asked,) = kernel.runner.asked(*GIVE_UP)
    assert [word.rpartition("/")[2] for word in asked.args[-1:]] == ["nvme0"]


async def test_what_is_live_is_not(kernel: Kernel, reconnector: Reconnector) -> None:
    kernel.tree.connect(A)
    kernel.runner.fail(*GIVE_UP, status=HELD, stderr="nvme0 is live\n")
    with pytest.raises(FailedPrecondition, match="not given up"):
        await reconnector.give_up(A)


async def test_nothing_connected_is_nothing_to_give_up(
    kernel: Kernel, reconnector: Reconnector, tree: FakeSysfs
) -> None:
    tree.connect(B, state="connecting")
    await reconnector.give_up(A)
    assert not kernel.runner.asked(*GIVE_UP)


async def test_a_strangers_name_is_refused(reconnector: Reconnector) -> None:
    with pytest.raises(NotOurs):
        await reconnector.give_up("nqn.2014-08.org.nixos:boot-disk")
