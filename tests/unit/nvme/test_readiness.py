"""A connected volume is usable when its device is there, has a size, and answers."""

import asyncio
from pathlib import Path

import pytest

from rds_csi.errors import ConnectFailed
from rds_csi.nvme.child import Prover
from rds_csi.nvme.proven import NOT_OURS
from rds_csi.nvme.readiness import Readiness, Timings, device_number
from rds_csi.runtime.process import Result
from tests.unit.fakes.sysfs import OTHER_NQN
from tests.unit.nvme.kernel import DELETE, HOST, READ, TARGET, A, B, Kernel, now

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("state", ["connecting", "resetting", "new"])
async def test_waits_for_a_connection_the_kernel_brings_back(kernel: Kernel, state: str) -> None:
    kernel.reads()
    name = kernel.tree.connect(A, state=state)
    waiting = asyncio.create_task(kernel.connector().connect(TARGET))
    await asyncio.sleep(5)
    assert not waiting.done()
    kernel.tree.set(name, "state", "live")
    assert (await waiting).device.name == "nvme0n1"
    assert not kernel.runner.asked("nvme")


async def test_an_outage_is_waited_out_and_never_disconnected(kernel: Kernel) -> None:
    kernel.reads()
    kernel.tree.connect(A, state="connecting")
    with pytest.raises(ConnectFailed, match=r"device did not appear.*nvme0 is connecting"):
        await kernel.connector().connect(TARGET)
    assert now() == pytest.approx(20, abs=0.2)
    assert kernel.tree.controllers() == ["nvme0"]
    assert not kernel.runner.asked("nvme")
    assert not kernel.runner.asked(*DELETE)


async def test_waits_for_the_namespace_and_asks_for_a_rescan(kernel: Kernel) -> None:
    kernel.works()
    kernel.size = None
    waiting = asyncio.create_task(kernel.connector().connect(TARGET))
    await asyncio.sleep(4)
    assert kernel.written("rescan") == ["nvme0"]
    kernel.tree.add_namespace("nvme0", size=1 << 20)
    assert (await waiting).size == 1 << 20


async def test_waits_for_the_size_and_for_the_device_node(kernel: Kernel) -> None:
    kernel.works()
    kernel.size = 0
    waiting = asyncio.create_task(kernel.connector().connect(TARGET))
    await asyncio.sleep(2)
    (kernel.tree.dev / "nvme0n1").unlink()
    kernel.tree.resize("nvme0n1", 1 << 20)
    await asyncio.sleep(2)
    assert not waiting.done()
    (kernel.tree.dev / "nvme0n1").touch()
    assert (await waiting).size == 1 << 20


@pytest.mark.requirement("CTOR-05")
async def test_a_device_that_never_appears_is_taken_down_again(kernel: Kernel) -> None:
    kernel.works()
    kernel.size = None
    with pytest.raises(ConnectFailed, match="device did not appear within 20 s") as caught:
        await kernel.connector().connect(TARGET)
    assert caught.value.transient
    assert kernel.tree.controllers() == []


async def test_a_device_that_does_not_answer_is_not_connected(kernel: Kernel) -> None:
    kernel.runner.on(*READ, result=Result(1, "", "[Errno 5] Input/output error\n"))
    kernel.works()
    with pytest.raises(ConnectFailed, match=r"does not answer reads.*Input/output error"):
        await kernel.connector().connect(TARGET)
    assert kernel.tree.controllers() == []


async def test_a_device_that_is_anothers_by_now_is_no_answer(kernel: Kernel) -> None:
    said = "nvme0n1 (259:1) is not a device of it\n"
    kernel.runner.on(*READ, result=Result(NOT_OURS, "", said))
    kernel.works()
    with pytest.raises(ConnectFailed, match=r"lost while it was tried.*is not a device") as caught:
        await kernel.connector().connect(TARGET)
    assert caught.value.transient
    assert kernel.tree.controllers() == []


async def test_the_device_read_is_named_by_number_and_by_whose_it_is(kernel: Kernel) -> None:
    kernel.works()
    namespace = await kernel.connector().connect(TARGET)
    (call,) = kernel.runner.asked(*READ)
    assert call.args[len(READ) :] == (
        *(str(kernel.tree.sys), str(kernel.tree.dev), A, HOST.nqn),
        *("nvme0n1", f"{namespace.devno[0]}:{namespace.devno[1]}"),
        str(kernel.tree.sys / "class/nvme/nvme0"),
    )


async def test_a_failed_read_leaves_an_older_connection_alone(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.runner.on(*READ, result=Result(1, "", "Input/output error"))
    with pytest.raises(ConnectFailed):
        await kernel.connector().connect(TARGET)
    assert kernel.tree.controllers() == ["nvme0"]


async def test_a_read_that_hangs_keeps_nobody_from_disconnecting(kernel: Kernel) -> None:
    kernel.runner.on(*READ, takes=1000, stuck=True)
    kernel.removes()
    kernel.tree.connect(A)
    connector = kernel.connector()
    with pytest.raises(ConnectFailed, match="does not answer reads: one hangs"):
        await connector.connect(TARGET)
    assert not connector.busy(A)
    assert kernel.tree.controllers() == ["nvme0"]
    await connector.disconnect(A)  # which frees the read
    assert kernel.tree.controllers() == []


def test_device_number_is_that_of_a_block_device_only(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert device_number(tmp_path / "x") is None
    assert device_number(tmp_path / "missing") is None
    assert device_number(Path("/dev/null")) is None


async def _no_rescan(_nqn: str, _volume: str) -> None:
    pytest.fail("nothing is to be read again")


def readiness(kernel: Kernel) -> Readiness:
    return Readiness(
        Prover(kernel.runner, kernel.sysfs, HOST),
        kernel.sysfs,
        HOST,
        timings=Timings(appear=0.5),
        number_of=kernel.number_of,
        rescan=_no_rescan,
    )


async def why_not(kernel: Kernel) -> str:
    with pytest.raises(ConnectFailed, match=r"device did not appear within 0\.5 s: ") as caught:
        await readiness(kernel).usable(A, "pvc-1")
    assert caught.value.volume == "pvc-1"
    assert kernel.runner.calls == [], "nothing is read that is not ready"
    return caught.value.what.partition(": ")[2]


async def test_what_is_missing_is_told(kernel: Kernel) -> None:
    tree = kernel.tree
    assert await why_not(kernel) == "there is no connection of this host"
    tree.connect(A, hostnqn=OTHER_NQN, size=None)
    tree.connect(B)
    assert await why_not(kernel) == "there is no connection of this host"
    for state in ("connecting", ""):
        tree.set(tree.connect(A, size=None), "state", state)
    assert await why_not(kernel) == "nvme2 is connecting, nvme3 is unknown"
    tree.set("nvme3", "state", "live")
    assert await why_not(kernel) == "the connection has no namespace 1"


async def test_a_size_and_the_right_number_are_told_to_be_missing(kernel: Kernel) -> None:
    kernel.tree.connect(A, size=0)
    assert await why_not(kernel) == f"{kernel.tree.dev}/nvme0n1 has no size yet"
    kernel.tree.resize("nvme0n1", 1 << 20)
    (kernel.tree.dev / "nvme0n1").unlink()
    number = kernel.tree.devno("nvme0n1")
    assert await why_not(kernel) == f"{kernel.tree.dev}/nvme0n1 is not the kernel's device {number}"


async def test_what_is_usable_is_read_once(kernel: Kernel) -> None:
    kernel.tree.connect(A, state="connecting")
    kernel.tree.connect(A)
    kernel.reads()
    found = await readiness(kernel).usable(A, "pvc-1")
    assert (found.size, found.nsid) == (64 << 20, 1)
    (call,) = kernel.runner.calls
    assert (call.timeout, call.volume) == (Timings().probe, "pvc-1")
