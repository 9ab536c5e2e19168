"""The connector against a played kernel: in virtual time, in both layouts."""

import asyncio
from pathlib import Path

import pytest
import structlog.testing

from rds_csi.errors import (
    Code,
    CommandFailed,
    CommandStuck,
    CommandTimeout,
    ConnectFailed,
    ConnectRejected,
    NotOurs,
    NotReady,
    Unavailable,
    VolumeInUse,
)
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.proven import HELD, NOT_OURS
from rds_csi.nvme.readiness import device_number
from rds_csi.runtime.process import Result
from tests.unit.fakes.sysfs import OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import DELETE, HOST, READ, TARGET, A, B, Kernel, now, option

pytestmark = pytest.mark.looptime

REFUSED = (
    "Failed to write to /dev/nvme-fabrics: Connection refused\n"
    "could not add new controller: connection refused\n"
)
IO_ERROR = (
    "Failed to write to /dev/nvme-fabrics: Input/output error\n"
    "could not add new controller: failed to write to nvme-fabrics device\n"
)
TIMED_OUT = (
    "Failed to write to /dev/nvme-fabrics: Connection timed out\n"
    "could not add new controller: failed to write to nvme-fabrics device\n"
)
FABRICS = (
    "Failed to open /dev/nvme-fabrics: {}\n"
    'option "transport" ignored\n'
    "could not add new controller: failed to open nvme-fabrics device\n"
)
INVALID = (
    "Failed to write to /dev/nvme-fabrics: Invalid argument\n"
    "could not add new controller: invalid arguments/configuration\n"
)


@pytest.fixture
def kernel(tree: FakeSysfs) -> Kernel:
    return Kernel(tree)


async def test_connects_and_returns_the_namespace(kernel: Kernel) -> None:
    kernel.works()
    found = await kernel.connector().connect(TARGET, volume="pvc-1")
    assert (found.device.name, found.size, found.nsid) == ("nvme0n1", 64 << 20, 1)
    (call,) = kernel.runner.asked("nvme")
    assert call.args[:10] == (
        *("nvme", "connect", "-t", "tcp", "-a", "192.0.2.1", "-s", "4420", "-n", A),
    )
    assert (option(call, "-q"), option(call, "-I")) == (HOST.nqn, HOST.hostid)
    assert "-v" in call.args, "newer versions say the kernel's errno only then"
    assert call.volume == "pvc-1"
    assert kernel.events == ["connected"]


async def test_a_second_connect_finds_the_first(kernel: Kernel) -> None:
    kernel.works()
    connector = kernel.connector()
    assert await connector.connect(TARGET) == await connector.connect(TARGET)
    assert len(kernel.runner.asked("nvme")) == 1


async def test_concurrent_connects_of_one_volume_connect_once(kernel: Kernel) -> None:
    kernel.works(takes=3)
    connector = kernel.connector()
    found = await asyncio.gather(*(connector.connect(TARGET) for _ in range(5)))
    assert len(set(found)) == 1
    assert len(kernel.runner.asked("nvme")) == 1


async def test_never_more_connects_at_once_than_the_limit(kernel: Kernel) -> None:
    kernel.works(takes=3)
    connector = kernel.connector(limit=3)
    nqns = [f"{A[:-2]}{number:02x}" for number in range(20)]
    targets = [Target("192.0.2.1", 4420, nqn) for nqn in nqns]
    await asyncio.gather(*(connector.connect(target) for target in targets))
    assert kernel.runner.most_running["nvme"] == 3
    assert len(kernel.runner.asked("nvme")) == 20


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


async def test_already_connected_means_look_again(kernel: Kernel) -> None:
    kernel.reads()
    kernel.runner.on(
        "nvme",
        error=CommandFailed("nvme failed", returncode=1, stderr="already connected\n"),
        effect=kernel.connect,
    )
    assert (await kernel.connector().connect(TARGET)).device.name == "nvme0n1"


async def test_already_connected_by_somebody_else_is_not_undone(kernel: Kernel) -> None:
    kernel.size = None
    kernel.state = "connecting"
    kernel.runner.on(
        "nvme",
        error=CommandFailed("nvme failed", returncode=1, stderr="already connected\n"),
        effect=kernel.connect,
    )
    with pytest.raises(ConnectFailed, match="did not appear"):
        await kernel.connector().connect(TARGET)
    assert kernel.tree.controllers() == ["nvme0"]


@pytest.mark.parametrize("status", [1, 17, -9])
async def test_a_failure_without_a_word_means_look_again(kernel: Kernel, status: int) -> None:
    """nvme-cli 3.1 finds "already connected" so."""
    kernel.works()
    kernel.runner.forget()
    kernel.reads()
    kernel.runner.on(
        "nvme", error=CommandFailed("nvme failed", returncode=status), effect=kernel.connect
    )
    assert (await kernel.connector().connect(TARGET)).device.name == "nvme0n1"


async def test_a_connect_that_failed_after_it_connected_is_proven_like_any(kernel: Kernel) -> None:
    """nvme-cli looks its controller up afterwards; what it left is no stranger's."""
    kernel.reads()
    kernel.removes()
    kernel.granted = {"ctrl_loss_tmo": "600"}
    kernel.runner.on(
        "nvme",
        error=CommandFailed("nvme failed", returncode=1, stderr="failed to lookup controller\n"),
        effect=kernel.connect,
    )
    with pytest.raises(ConnectRejected, match="ctrl_loss_tmo is 600"):
        await kernel.connector().connect(TARGET)
    assert kernel.tree.controllers() == []


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


async def test_a_live_connection_without_a_device_is_replaced(kernel: Kernel) -> None:
    kernel.tree.connect(A, size=None)
    kernel.works()
    found = await kernel.connector().connect_with_retry(TARGET, ConnectionConfig())
    assert kernel.written("delete") == ["nvme0"]
    assert found.size == 64 << 20
    assert kernel.events == ["retry", "connected"]


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


@pytest.mark.parametrize(
    ("stderr", "kind", "transient", "text"),
    [
        (REFUSED, ConnectFailed, True, "192.0.2.1:4420 failed:.*Connection refused"),
        (IO_ERROR, ConnectFailed, True, "does not export.*or not to this host"),
        (
            TIMED_OUT,
            ConnectFailed,
            True,
            "timed out",
        ),
        (
            "Failed to write to /dev/nvme-fabrics: No route to host\n",
            ConnectFailed,
            True,
            "No route",
        ),
        (
            "Failed to write to /dev/nvme-fabrics: Network is unreachable\n",
            ConnectFailed,
            True,
            "unreachable",
        ),
        (
            "Failed to write to /dev/nvme-fabrics: Resource temporarily unavailable\n",
            ConnectFailed,
            True,
            "temporarily",
        ),
        (
            "Failed to write to /dev/nvme-fabrics: Permission denied\n",
            ConnectRejected,
            False,
            "Permission denied",
        ),
        (INVALID, ConnectRejected, False, "invalid arguments"),
        ("connect: unrecognized option '--x'\n", ConnectRejected, False, "unrecognized"),
        (
            "Failed to scan topology: No such file or directory\n",
            NotReady,
            False,
            "modprobe nvme-tcp",
        ),
        (
            FABRICS.format("No such file or directory"),
            NotReady,
            False,
            "modprobe nvme-tcp",
        ),
        (
            FABRICS.format("Permission denied"),
            ConnectRejected,
            False,
            "Permission denied",
        ),
        (
            f"{IO_ERROR}failed to connect: failed to write to nvme-fabrics device\n",
            ConnectFailed,
            True,
            "does not export",
        ),
        ("", ConnectFailed, True, "failed: nvme failed with status 1"),
    ],
)
async def test_what_nvme_says(
    kernel: Kernel, stderr: str, kind: type[Exception], transient: bool, text: str
) -> None:
    kernel.runner.fail("nvme", stderr=stderr)
    with pytest.raises(kind, match=text) as caught:
        await kernel.connector().connect(TARGET, volume="pvc-1")
    assert type(caught.value) is kind
    assert caught.value.transient is transient  # type: ignore[attr-defined]
    assert caught.value.volume == "pvc-1"  # type: ignore[attr-defined]


async def test_invalid_argument_without_the_module_names_the_module(tmp_path: Path) -> None:
    kernel = Kernel(FakeSysfs(tmp_path / "x", transport=False))
    kernel.runner.fail("nvme", stderr=INVALID)
    with pytest.raises(NotReady, match="modprobe nvme-tcp"):
        await kernel.connector().connect(TARGET)


async def test_without_the_fabrics_device_nothing_is_run(kernel: Kernel) -> None:
    kernel.fabrics.unlink()
    with pytest.raises(NotReady, match=r"nvme-fabrics does not exist.*modprobe nvme-tcp"):
        await kernel.connector().connect_with_retry(TARGET, ConnectionConfig())
    assert kernel.runner.calls == []


async def test_a_connect_that_is_killed_takes_back_what_it_made(kernel: Kernel) -> None:
    kernel.removes()
    kernel.runner.on("nvme", takes=60)
    other = kernel.tree.connect(B)
    task = asyncio.create_task(kernel.connector().connect(TARGET))
    await asyncio.sleep(10)
    kernel.tree.connect(A, state="connecting")  # the kernel's half-made controller
    kernel.tree.connect(A, state="connecting", hostnqn=OTHER_NQN)
    with pytest.raises(CommandTimeout):
        await task
    assert kernel.written("delete") == ["nvme1"]
    assert kernel.tree.controllers() == [other, "nvme2"]


async def test_a_cancelled_connect_leaves_nothing_running(kernel: Kernel) -> None:
    kernel.runner.on("nvme", takes=60)
    connector = kernel.connector()
    task = asyncio.create_task(connector.connect(TARGET))
    await asyncio.sleep(1)
    assert connector.busy(A)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kernel.runner.running["nvme"] == 0
    assert not connector.busy(A)


@pytest.mark.parametrize("moment", [0.1, 0.505, 0.6, 1.7, 4.0])
async def test_cancelled_at_any_moment_the_next_call_succeeds(
    kernel: Kernel, moment: float
) -> None:
    kernel.works(takes=0.5)
    kernel.size = None if moment > 1 else 64 << 20
    connector = kernel.connector()
    task = asyncio.create_task(connector.connect(TARGET))
    await asyncio.sleep(moment)
    task.cancel()
    await asyncio.wait({task})
    kernel.size = 64 << 20
    found = await connector.connect_with_retry(TARGET, ConnectionConfig())
    assert found.size == 64 << 20
    assert len(kernel.tree.controllers()) == 1


async def test_a_live_connection_at_another_address_is_used(kernel: Kernel) -> None:
    kernel.reads()
    kernel.tree.connect(A, address="192.0.2.77")
    assert (await kernel.connector().connect(TARGET)).device.name == "nvme0n1"


async def test_a_dead_connection_to_the_old_address_is_replaced(kernel: Kernel) -> None:
    kernel.tree.connect(A, address="192.0.2.77", state="connecting")
    kernel.works()
    await kernel.connector().connect(TARGET)
    assert kernel.written("delete") == ["nvme0"]
    (controller,) = kernel.sysfs.controllers(A)
    assert controller.address == "192.0.2.1"


async def test_but_not_while_it_is_in_use(kernel: Kernel) -> None:
    kernel.tree.connect(A, address="192.0.2.77", state="connecting")
    kernel.mounted.add(kernel.tree.devno("nvme0n1"))
    with pytest.raises(VolumeInUse, match=r"nvme0 to 192\.0\.2\.77 \(connecting\).*is mounted"):
        await kernel.connector().connect(TARGET)
    assert kernel.tree.controllers() == ["nvme0"]


async def test_a_leaving_controller_is_waited_for(kernel: Kernel) -> None:
    name = kernel.tree.connect(A, state="deleting")
    kernel.works()
    task = asyncio.create_task(kernel.connector().connect(TARGET))
    await asyncio.sleep(2)
    assert not kernel.runner.asked("nvme")
    kernel.tree.disconnect(name)
    await task
    assert kernel.written("delete") == []


async def test_connects_beside_another_idle_host_identity(kernel: Kernel) -> None:
    kernel.tree.connect(A, hostnqn=OTHER_NQN, address="192.0.2.77")
    kernel.works()
    await kernel.connector().connect(TARGET)
    assert [entry.hostnqn for entry in kernel.sysfs.controllers(A)] == [OTHER_NQN, HOST.nqn]


async def test_nvme_cli_takes_another_host_identity_for_ours(kernel: Kernel) -> None:
    kernel.tree.connect(A, hostnqn=OTHER_NQN)
    kernel.runner.fail("nvme", stderr="already connected\n")
    with pytest.raises(VolumeInUse, match=r"another host identity.*connected on this node: nvme0"):
        await kernel.connector().connect_with_retry(TARGET, ConnectionConfig())
    assert kernel.tree.controllers() == ["nvme0"]


async def test_another_host_identity_that_uses_it_stays_the_only_one(kernel: Kernel) -> None:
    kernel.tree.connect(A, hostnqn=OTHER_NQN)
    kernel.mounted.add(kernel.tree.devno("nvme0n1"))
    with pytest.raises(VolumeInUse, match=r"another host identity.*nvme0n1 is mounted"):
        await kernel.connector().connect(TARGET)
    assert not kernel.runner.asked("nvme")


@pytest.mark.parametrize(("asked", "told"), [(7, "7"), (1, "1"), (0, "1")])
async def test_fast_io_fail_is_an_option(kernel: Kernel, asked: int, told: str) -> None:
    """nvme-cli of every version takes a 0 for nothing said, and I/O would wait for ever."""
    kernel.works()
    await kernel.connector().connect_with_config(TARGET, ConnectionConfig(fast_io_fail_tmo=asked))
    (call,) = kernel.runner.asked("nvme")
    assert option(call, "-F") == told
    assert "-J" not in call.args


async def test_fast_io_fail_goes_by_file_where_there_is_no_option(kernel: Kernel) -> None:
    """nvme-cli 2.3; the file says all that the options say, whoever wins."""
    kernel.works()
    kernel.option = False
    await kernel.connector().connect_with_config(TARGET, ConnectionConfig(fast_io_fail_tmo=7))
    port = {
        "transport": "tcp",
        "traddr": "192.0.2.1",
        "trsvcid": "4420",
        "ctrl_loss_tmo": -1,
        "reconnect_delay": 5,
        "fast_io_fail_tmo": 7,
    }
    subsystem = {"nqn": A, "ports": [port]}
    assert kernel.json == [
        [{"hostnqn": HOST.nqn, "hostid": HOST.hostid, "subsystems": [subsystem]}]
    ]


async def test_another_failure_is_not_tried_again_by_file(kernel: Kernel) -> None:
    kernel.runner.fail("nvme", stderr=REFUSED)
    with pytest.raises(ConnectFailed, match="refused"):
        await kernel.connector().connect_with_config(TARGET, ConnectionConfig(fast_io_fail_tmo=7))
    assert len(kernel.runner.asked("nvme")) == 1


@pytest.mark.parametrize("nqn", ["nqn.2014-08.org.x:pvc-" + "a" * 28, A[:-1], A + ":x", "boot"])
async def test_only_names_of_ours_are_connected_or_disconnected(kernel: Kernel, nqn: str) -> None:
    connector = kernel.connector()
    for attempt in (
        connector.connect_with_retry(Target("192.0.2.1", 4420, nqn), ConnectionConfig()),
        connector.disconnect(nqn),
        connector.rescan(nqn),
    ):
        with pytest.raises(NotOurs) as caught:
            await attempt
        assert caught.value.code == Code.FAILED_PRECONDITION
    assert kernel.runner.calls == []


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
    await connector.connect(Target("192.0.2.1", 4420, B))


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


async def test_waits_for_a_size(kernel: Kernel) -> None:
    kernel.tree.connect(A, size=1 << 20)
    connector = kernel.connector()
    task = asyncio.create_task(connector.wait_for_size(A, 2 << 20, within=10))
    await asyncio.sleep(3)
    assert not task.done()
    kernel.tree.resize("nvme0n1", 2 << 20)
    assert (await task).size == 2 << 20
    with pytest.raises(Unavailable, match="has 2097152 bytes, 4194304 expected"):
        await connector.wait_for_size(A, 4 << 20, within=5)
    kernel.tree.disconnect("nvme0")
    with pytest.raises(Unavailable, match="is gone"):
        await connector.wait_for_size(A, 1, within=1)


async def test_find_is_about_this_host(kernel: Kernel) -> None:
    connector = kernel.connector()
    assert connector.find(A) is None
    kernel.tree.connect(A, hostnqn=OTHER_NQN)
    assert connector.find(A) is None
    kernel.tree.connect(A)
    assert connector.find(A) is not None


def test_device_number_is_that_of_a_block_device_only(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert device_number(tmp_path / "x") is None
    assert device_number(tmp_path / "missing") is None
    assert device_number(Path("/dev/null")) is None
