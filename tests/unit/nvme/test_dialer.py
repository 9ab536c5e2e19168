"""One ``nvme connect`` at one address: what it made, and what it left."""

import asyncio

import pytest

from rds_csi.errors import CommandTimeout, ConnectFailed
from rds_csi.model.contexts import Endpoint, Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.dialer import Dialer, is_at
from tests.unit.nvme.kernel import A, B, Kernel

pytestmark = pytest.mark.looptime

ONE, TWO = (Endpoint(f"192.0.2.{number}", 4420, A) for number in (1, 2))
CONFIG = ConnectionConfig()


def dialer(kernel: Kernel) -> Dialer:
    return kernel.connector()._dialer


async def test_says_whether_it_connected_itself(kernel: Kernel) -> None:
    kernel.works()
    assert await dialer(kernel).dial(ONE, CONFIG, volume="v")
    assert [each.address for each in dialer(kernel).own(A)] == ["192.0.2.1"]


async def test_a_failure_is_no_success_because_another_address_is_connected(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.works()
    kernel.away = {TWO.address}
    with pytest.raises(ConnectFailed, match=r"192\.0\.2\.2:4420 failed"):
        await dialer(kernel).dial(TWO, CONFIG, volume="v")
    assert kernel.tree.controllers() == ["nvme0"]


async def test_a_killed_one_takes_back_what_it_made_and_no_other(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.removes()
    kernel.runner.on("nvme", takes=60)
    task = asyncio.create_task(dialer(kernel).dial(TWO, CONFIG, volume="v"))
    await asyncio.sleep(10)
    half_made = kernel.tree.connect(A, address=TWO.address, state="connecting", size=None)
    with pytest.raises(CommandTimeout):
        await task
    assert kernel.written("delete") == [half_made]


async def test_new_is_what_came_since_or_leads_there(kernel: Kernel) -> None:
    old = kernel.tree.connect(A)
    found = dialer(kernel)
    assert found.new(TWO, {old}) == []
    kernel.tree.connect(A, address=TWO.address)
    kernel.tree.connect(B, address=TWO.address)
    (new,) = found.new(TWO, {old})
    assert is_at(new, TWO)
    assert not is_at(new, ONE)
    assert found.new(TWO, {old, new.name}) == [new]


async def test_addresses_share_the_limit_of_connects(kernel: Kernel) -> None:
    kernel.works(takes=3)
    connector = kernel.connector(limit=2)
    nqns = [f"{A[:-2]}{number:02x}" for number in range(6)]
    both = (ONE.address, TWO.address)
    await asyncio.gather(*(connector.connect(Target(both, 4420, nqn)) for nqn in nqns))
    assert kernel.runner.most_running["nvme"] == 2
