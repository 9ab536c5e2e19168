"""The connector against a played kernel: in virtual time, in both layouts."""

import asyncio

import pytest

from rds_csi.errors import (
    Code,
    CommandFailed,
    CommandTimeout,
    ConnectFailed,
    ConnectRejected,
    NotOurs,
    NotReady,
    VolumeInUse,
)
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from tests.unit.fakes.sysfs import OTHER_NQN
from tests.unit.nvme.kernel import HOST, REFUSED, TARGET, A, B, Kernel, option

pytestmark = pytest.mark.looptime


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
    targets = [Target(("192.0.2.1",), 4420, nqn) for nqn in nqns]
    await asyncio.gather(*(connector.connect(target) for target in targets))
    assert kernel.runner.most_running["nvme"] == 3
    assert len(kernel.runner.asked("nvme")) == 20


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


async def test_a_live_connection_without_a_device_is_replaced(kernel: Kernel) -> None:
    kernel.tree.connect(A, size=None)
    kernel.works()
    found = await kernel.connector().connect_with_retry(TARGET, ConnectionConfig())
    assert kernel.written("delete") == ["nvme0"]
    assert found.size == 64 << 20
    assert kernel.events == ["retry", "connected"]


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


async def test_the_first_address_that_takes_it_is_enough(kernel: Kernel) -> None:
    kernel.works()
    kernel.away = {"192.0.2.1"}
    target = Target(("192.0.2.1", "192.0.2.2"), 4420, A)
    await kernel.connector().connect(target)
    (controller,) = kernel.sysfs.controllers(A)
    assert controller.address == "192.0.2.2"


async def test_where_none_takes_it_the_first_failure_is_told(kernel: Kernel) -> None:
    kernel.works()
    kernel.away = {"192.0.2.1", "192.0.2.2"}
    target = Target(("192.0.2.1", "192.0.2.2"), 4420, A)
    with pytest.raises(ConnectFailed, match=r"192\.0\.2\.1:4420 failed"):
        await kernel.connector().connect(target)
    assert kernel.tree.controllers() == []


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
        connector.connect_with_retry(Target(("192.0.2.1",), 4420, nqn), ConnectionConfig()),
        connector.disconnect(nqn),
        connector.rescan(nqn),
    ):
        with pytest.raises(NotOurs) as caught:
            await attempt
        assert caught.value.code == Code.FAILED_PRECONDITION
    assert kernel.runner.calls == []


async def test_find_is_about_this_host(kernel: Kernel) -> None:
    connector = kernel.connector()
    assert connector.find(A) is None
    kernel.tree.connect(A, hostnqn=OTHER_NQN)
    assert connector.find(A) is None
    kernel.tree.connect(A)
    assert connector.find(A) is not None
