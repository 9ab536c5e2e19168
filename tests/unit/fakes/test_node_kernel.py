"""The fake kernel stops where it is told, and gives names and numbers anew as the real one does."""

import asyncio
from pathlib import Path

import pytest

from rds_csi.errors import ConnectFailed
from rds_csi.filesystem import probe
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from tests.unit.fakes.mounts import Entry
from tests.unit.fakes.node_kernel import HOST_NQN, Disk, FakeKernel, Killed, Steps

TARGET = Target(("10.0.0.1",), 4420, "nqn.2000-02.com.mikrotik:pvc-1")
OTHER = "nqn.2000-02.com.mikrotik:pvc-2"


@pytest.fixture
async def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.rds[TARGET.nqn] = Disk(1024**3)
    kernel.rds[OTHER] = Disk(2 * 1024**3)
    await kernel.connect_with_retry(TARGET, ConnectionConfig())
    return kernel


async def test_a_killed_step_and_a_cancelled_one() -> None:
    steps = Steps(stop=2)
    await steps.boundary("one")
    with pytest.raises(Killed, match="two"):
        await steps.boundary("two")
    await steps.boundary("three")
    cancelled = Steps(stop=1, how="cancel")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled.boundary("one"))


async def test_connecting_shows_a_device_and_disconnecting_removes_it(kernel: FakeKernel) -> None:
    found = kernel.find(TARGET.nqn)
    assert found is not None
    assert found.device.exists()
    assert (found.devno, found.size) == ((259, 1), 1024**3)
    assert [each.nqn for each in kernel.controllers_of(lambda _nqn: True)] == [TARGET.nqn]
    await kernel.disconnect(TARGET.nqn)
    assert not found.device.exists()
    assert kernel.find(TARGET.nqn) is None
    with pytest.raises(ConnectFailed):
        await kernel.connect_with_retry(
            Target(("10.0.0.1",), 4420, "nqn.other"), ConnectionConfig()
        )


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_device_given_up_leaves_name_and_number_unless_they_are_kept(
    kernel: FakeKernel, mounted: bool
) -> None:
    before = kernel.find(TARGET.nqn)
    assert before is not None
    if mounted:
        kernel.table.entries.append(
            Entry(before.devno, "/", "/mnt", ("rw",), "ext4", str(before.device))
        )
    kernel.swap(TARGET.nqn, OTHER)
    assert kernel.find(TARGET.nqn) is None
    after = kernel.find(OTHER)
    assert after is not None
    assert ((after.device, after.devno) == (before.device, before.devno)) is not mounted
    number = f"{after.devno[0]}:{after.devno[1]}"
    probe.prove(str(kernel.sys), number, OTHER, HOST_NQN)
    with pytest.raises(probe.Refused):
        probe.prove(str(kernel.sys), number, TARGET.nqn, HOST_NQN)


async def test_a_size_is_seen_after_a_rescan_and_not_before(kernel: FakeKernel) -> None:
    kernel.rds[TARGET.nqn].size *= 2
    kernel.rescans_until_seen = 2
    sizes = []
    for _ in range(3):
        found = kernel.find(TARGET.nqn)
        assert found is not None
        sizes.append(found.size >> 30)
        await kernel.rescan(TARGET.nqn)
    assert sizes == [1, 1, 2]
