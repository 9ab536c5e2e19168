"""Controllers are taken down proven and unused, and seen to be gone."""

import asyncio

import pytest
import structlog.testing

from rds_csi.errors import (
    Code,
    CommandFailed,
    CommandStuck,
    ConnectFailed,
    FailedPrecondition,
    Unavailable,
    VolumeInUse,
)
from rds_csi.model.contexts import Target
from rds_csi.nvme.child import PROVEN, Prover
from rds_csi.nvme.proven import HELD, NOT_OURS
from rds_csi.nvme.readiness import Timings
from rds_csi.nvme.removal import Remover
from rds_csi.runtime.process import Result
from tests.unit.fakes.sysfs import OTHER_NQN
from tests.unit.nvme.kernel import DELETE, HOST, READ, RESCAN, TARGET, A, B, Kernel, now

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize("caller", ["disconnect", "replace"])
async def test_what_the_kernel_holds_is_not_taken_down(kernel: Kernel, caller: str) -> None:
    """A mount in another mount namespace: no look of ours shows it."""
    connecting = caller == "replace"
    state, address = ("connecting", "192.0.2.77") if connecting else ("live", "192.0.2.1")
    kernel.tree.connect(A, address=address, state=state)
    kernel.runner.on(*DELETE, result=Result(HELD, "", "nvme0n1 is held\n"))
    connector = kernel.connector()
    with pytest.raises(VolumeInUse, match=r"nvme0n1 is held, mounted in another mount") as caught:
        await (connector.connect(TARGET) if connecting else connector.disconnect(A, volume="v"))
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert "lsblk" in caught.value.advice
    assert kernel.tree.controllers() == ["nvme0"]
    assert not kernel.runner.asked("nvme")


async def test_what_is_held_for_an_instant_is_taken_down(kernel: Kernel) -> None:
    """By the mount namespace of a container that is being started."""
    kernel.tree.connect(A)
    kernel.runner.on(*DELETE, result=Result(HELD, "", "nvme0n1 is held\n"), times=2)
    kernel.works()
    await kernel.connector().disconnect(A, volume="v")
    assert kernel.tree.controllers() == []
    assert len(kernel.runner.asked(*DELETE)) == 3


async def test_what_the_kernel_holds_is_not_undone(kernel: Kernel) -> None:
    kernel.runner.on(*DELETE, result=Result(HELD, "", "nvme0n1 is held\n"))
    kernel.runner.on(*READ, result=Result(1, "", "Input/output error"))
    kernel.works()
    with (
        structlog.testing.capture_logs() as logs,
        pytest.raises(ConnectFailed, match="does not answer reads"),
    ):
        await kernel.connector().connect(TARGET)
    assert kernel.tree.controllers() == ["nvme0"]
    (line,) = [line for line in logs if line["event"] == "failed connection not undone"]
    assert "is held" in str(line["error"])


async def test_a_kernel_that_does_not_say_whether_it_holds_it_leaves_it(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.runner.on(*DELETE, takes=1000)
    with pytest.raises(Unavailable, match=r"did not go.*did not answer within 15 s"):
        await kernel.connector().disconnect(A)
    assert kernel.tree.controllers() == ["nvme0"]


async def test_disconnects_only_ours_and_proves_it(kernel: Kernel) -> None:
    kernel.removes()
    kernel.tree.connect(B)
    kernel.tree.connect(A)
    kernel.tree.connect(A, hostnqn=OTHER_NQN)
    await kernel.connector().disconnect(A)
    assert kernel.tree.controllers() == ["nvme0", "nvme2"]
    (call,) = kernel.runner.asked(*DELETE)
    assert call.args[len(DELETE) :] == (
        *(str(kernel.tree.sys), str(kernel.tree.dev), A, HOST.nqn),
        str(kernel.tree.sys / "class/nvme/nvme1"),
    )


async def test_nothing_connected_is_success(kernel: Kernel) -> None:
    await kernel.connector().disconnect(A)
    assert kernel.runner.calls == []


async def test_a_controller_that_does_not_go_is_an_error(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.runner.on(*DELETE)  # says 0, does nothing
    with pytest.raises(Unavailable, match="nvme0 did not go"):
        await kernel.connector().disconnect(A)
    assert now() == pytest.approx(10, abs=0.2)
    assert kernel.events == []


async def test_the_reason_of_a_failed_write_is_told(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.runner.fail(*DELETE, stderr="delete_controller of nvme0: Device or resource busy\n")
    with pytest.raises(Unavailable, match=r"did not go.*Device or resource busy"):
        await kernel.connector().disconnect(A)


async def test_a_failed_write_is_no_error_when_the_controller_went(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.runner.on(*DELETE, effect=kernel.write, result=Result(1, "", "No such device"))
    await kernel.connector().disconnect(A)
    assert kernel.tree.controllers() == []


async def test_going_slowly_is_waited_for(kernel: Kernel) -> None:
    name = kernel.tree.connect(A)
    kernel.runner.on(
        *DELETE, effect=lambda _call: kernel.tree.set(name, "state", "deleting"), takes=1
    )
    task = asyncio.create_task(kernel.connector().disconnect(A))
    await asyncio.sleep(5)
    assert not task.done()
    kernel.tree.disconnect(name)
    await task


@pytest.mark.parametrize("how", ["mounted", "partition", "held"])
async def test_refuses_while_in_use(kernel: Kernel, how: str) -> None:
    kernel.tree.connect(A)
    if how == "mounted":
        kernel.mounted.add(kernel.tree.devno("nvme0n1"))
    elif how == "partition":
        kernel.mounted.add(kernel.tree.devno(kernel.tree.add_partition("nvme0n1")))
    else:
        kernel.tree.hold("nvme0n1", "dm-7")
    with pytest.raises(VolumeInUse, match=r"nvme0n1.*(mounted|dm-7)"):
        await kernel.connector().disconnect(A)
    assert kernel.tree.controllers() == ["nvme0"]
    assert kernel.runner.calls == []


async def test_a_hanging_disconnect_is_stuck_and_other_volumes_go_on(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.runner.on(*DELETE, takes=1000, stuck=True, times=1)
    connector = kernel.connector()
    with pytest.raises(CommandStuck):
        await connector.disconnect(A)
    assert connector.busy(A)
    kernel.works()
    await connector.connect(Target(("192.0.2.1",), 4420, B))


async def test_confirm_is_asked_under_the_lock(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.removes()
    connector = kernel.connector()
    asked = []

    async def no() -> bool:
        asked.append(connector.busy(A))
        return False

    await connector.disconnect(A, confirm=no)
    assert asked == [True]
    assert kernel.tree.controllers() == ["nvme0"]


async def test_rescan_only_what_is_live(kernel: Kernel) -> None:
    kernel.removes()
    kernel.tree.connect(A)
    kernel.tree.connect(A, state="connecting")
    await kernel.connector().rescan(A)
    assert kernel.written("rescan") == ["nvme0"]


def remover(kernel: Kernel) -> Remover:
    return Remover(
        Prover(kernel.runner, kernel.sysfs, HOST),
        kernel.sysfs,
        HOST,
        in_use=kernel.mounted.__contains__,
        timings=Timings(),
    )


async def test_all_users_are_named(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.tree.hold("nvme0n1", "dm-7")
    kernel.mounted.add(kernel.tree.devno("nvme0n1"))
    controllers = kernel.sysfs.controllers(A)
    assert remover(kernel).users(controllers) == ["nvme0n1 is mounted", "nvme0n1 is held by dm-7"]
    kernel.tree.connect(B)
    assert remover(kernel).users(kernel.sysfs.controllers(B)) == []


GIVE_UP = (*PROVEN, "give-up")


async def test_what_is_given_up_is_waited_for_although_it_is_in_use(kernel: Kernel) -> None:
    kernel.tree.connect(A, state="connecting")
    kernel.mounted.add(kernel.tree.devno("nvme0n1"))
    kernel.runner.on(*GIVE_UP, effect=lambda _call: kernel.tree.disconnect("nvme0"))
    await remover(kernel).give_up(kernel.sysfs.controllers(A), volume="pvc-1")
    assert kernel.tree.controllers() == []


async def test_what_is_live_is_not_given_up(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.runner.fail(*GIVE_UP, status=HELD, stderr="nvme0 is live\n")
    with pytest.raises(FailedPrecondition, match="not given up: nvme0 is live"):
        await remover(kernel).give_up(kernel.sysfs.controllers(A), volume="pvc-1")
    assert now() == 0, "nothing is waited for"


async def test_what_stays_when_given_up_is_said(kernel: Kernel) -> None:
    kernel.tree.connect(A, state="connecting")
    kernel.runner.fail(*GIVE_UP, stderr="Device or resource busy\n")
    with pytest.raises(Unavailable, match=r"nvme0 did not go when given up: Device or resource"):
        await remover(kernel).give_up(kernel.sysfs.controllers(A), volume="pvc-1")


@pytest.mark.parametrize("status", [0, NOT_OURS])
async def test_what_is_anothers_by_now_need_not_be_read_again(kernel: Kernel, status: int) -> None:
    kernel.tree.connect(A)
    kernel.runner.on(*RESCAN, result=Result(status, "", "it is gone\n"))
    await remover(kernel).rescan(kernel.sysfs.controllers(A), volume="pvc-1")


async def test_what_could_not_be_read_again_is_said(kernel: Kernel) -> None:
    kernel.tree.connect(A)
    kernel.runner.fail(*RESCAN, stderr="no\n")
    with pytest.raises(CommandFailed, match="could not be read again: no") as caught:
        await remover(kernel).rescan(kernel.sysfs.controllers(A), volume="pvc-1")
    assert caught.value.volume == "pvc-1"
