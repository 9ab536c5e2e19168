"""A connection for each address of a target, beside each other where the kernel joins them."""

import asyncio
from pathlib import Path

import pytest
import structlog.testing

from rds_csi.errors import ConnectFailed, NotOurs, Unavailable
from rds_csi.model.contexts import Endpoint, Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.multipath import answers, missing
from tests.unit.fakes.runner import Call
from tests.unit.fakes.sysfs import OTHER_NQN, FakeSysfs
from tests.unit.nvme.kernel import A, Kernel, now, option

pytestmark = pytest.mark.looptime

ONE, TWO = "192.0.2.1", "192.0.2.2"
BOTH = Target((ONE, TWO), 4420, A)
CONFIG = ConnectionConfig()


@pytest.fixture
def joining(tmp_path: Path) -> Kernel:
    """A kernel with native multipath."""
    kernel = Kernel(FakeSysfs(tmp_path / "fake", multipath=True))
    kernel.works()
    return kernel


@pytest.fixture
def plain(tmp_path: Path) -> Kernel:
    """A kernel without."""
    kernel = Kernel(FakeSysfs(tmp_path / "fake", multipath=False))
    kernel.works()
    return kernel


def addresses(kernel: Kernel) -> list[str]:
    return [each.address for each in kernel.sysfs.controllers(A)]


def dialled(kernel: Kernel) -> list[str]:
    return [option(call, "-a") for call in kernel.runner.asked("nvme")]


async def test_each_address_has_its_connection_and_there_is_one_device(joining: Kernel) -> None:
    found = await joining.connector().connect(BOTH)
    assert addresses(joining) == [ONE, TWO]
    assert joining.sysfs.namespace_of(joining.sysfs.controllers(A)) == found
    assert len(joining.sysfs.devices(joining.sysfs.controllers(A))) == 1
    assert joining.events == ["connected"]


async def test_where_the_kernel_joins_none_there_is_one_connection(plain: Kernel) -> None:
    """Two devices of one volume know nothing of each other."""
    connector = plain.connector()
    with structlog.testing.capture_logs() as logs:
        await connector.connect(BOTH)
    assert addresses(plain) == [ONE]
    (line,) = [line for line in logs if line["event"] == "only one of its addresses is used"]
    assert line["unused"] == [TWO]
    assert "nvme_core.multipath=Y" in line["why"]
    assert await connector.connect_missing(BOTH, CONFIG) == [TWO]
    assert addresses(plain) == [ONE]


async def test_without_an_identifier_of_its_own_nothing_is_joined(joining: Kernel) -> None:
    """The kernel would take any namespace for another path to it, another RDS's too."""
    connector = joining.connector()
    await connector.connect(Target((ONE,), 4420, A))
    (joining.tree.block("nvme0n1") / "wwid").write_text("nvme.0000-61-4c696e7578-00000001\n")
    with structlog.testing.capture_logs() as logs:
        await connector.connect(BOTH)
    assert addresses(joining) == [ONE]
    assert "no identifier of its own" in next(line["why"] for line in logs if "why" in line)


async def test_one_address_is_enough_and_the_other_comes_later(joining: Kernel) -> None:
    joining.away = {ONE}
    connector = joining.connector()
    await connector.connect(BOTH)
    assert addresses(joining) == [TWO]
    assert dialled(joining) == [TWO], "where nobody answers, nvme is not even asked"
    assert joining.events == ["path_failed", "connected"]
    assert await connector.connect_missing(BOTH, CONFIG) == [ONE]
    joining.away.clear()
    assert await connector.connect_missing(BOTH, CONFIG) == []
    assert sorted(addresses(joining)) == [ONE, TWO]
    assert await connector.connect_missing(BOTH, CONFIG) == []
    assert dialled(joining) == [TWO, ONE]


async def test_a_repeated_connect_brings_a_missing_path_back(joining: Kernel) -> None:
    connector = joining.connector()
    await connector.connect(BOTH)
    joining.tree.disconnect("nvme1")
    await connector.connect(BOTH)
    assert addresses(joining) == [ONE, TWO]


async def test_an_address_that_swallows_all_costs_little(joining: Kernel) -> None:
    joining.silent = {ONE}
    began = now()
    await joining.connector().connect(BOTH)
    assert dialled(joining) == [TWO]
    assert now() - began < 6


async def test_where_nobody_answers_each_is_tried_and_the_first_failure_told(
    joining: Kernel,
) -> None:
    joining.away = {ONE, TWO}
    with pytest.raises(ConnectFailed, match=r"192\.0\.2\.1:4420 failed"):
        await joining.connector().connect(BOTH)
    assert dialled(joining) == [ONE, TWO]
    assert joining.events == ["path_failed", "path_failed"]


@pytest.mark.parametrize("mounted", [False, True])
async def test_another_target_under_the_name_is_no_path(joining: Kernel, mounted: bool) -> None:
    """The kernel joins what has the same identifier, and what has not leads to no device."""
    joining.empty = {TWO}
    connector = joining.connector()
    await connector.connect(Target((ONE,), 4420, A))
    if mounted:
        joining.mounted.add(joining.tree.devno("nvme0n1"))
    with structlog.testing.capture_logs() as logs:
        await connector.connect(BOTH)
    assert addresses(joining) == [ONE]
    assert "does not lead to its device" in next(line["why"] for line in logs if "why" in line)
    assert joining.written("delete") == ["nvme1"]


async def test_another_head_of_the_same_number_is_no_path_either(joining: Kernel) -> None:
    """The kernel makes one for new identifiers while the old head is still held."""
    connector = joining.connector()
    await connector.connect(Target((ONE,), 4420, A))
    joining.empty = {TWO}

    def connect(call: Call) -> None:
        joining.connect(call)
        tree = joining.tree
        tree._block(tree.controller("nvme1") / "nvme0c1n2", size=64 << 20, nsid=1, dev=False)
        tree._block(tree.subsystem("nvme1") / "nvme0n2", size=64 << 20, nsid=1)

    joining.runner.forget()
    joining.removes()
    joining.runner.on("nvme", "connect", effect=connect)
    with structlog.testing.capture_logs() as logs:
        assert await connector.connect_missing(BOTH, CONFIG) == [TWO]
    assert "does not lead to its device" in next(line["why"] for line in logs if "why" in line)
    assert joining.written("delete") == ["nvme1"]


async def test_a_path_with_other_settings_is_told_and_never_taken_from_who_uses_it(
    joining: Kernel,
) -> None:
    connector = joining.connector()
    await connector.connect(Target((ONE,), 4420, A))
    joining.granted = {"ctrl_loss_tmo": "600"}
    with structlog.testing.capture_logs() as logs:
        assert await connector.connect_missing(BOTH, CONFIG) == [TWO]
    assert "ctrl_loss_tmo is 600" in next(line["why"] for line in logs if "why" in line)
    assert addresses(joining) == [ONE], "unused, so it is taken back"
    joining.mounted.add(joining.tree.devno("nvme0n1"))
    assert await connector.connect_missing(BOTH, CONFIG) == [TWO]
    assert addresses(joining) == [ONE, TWO], "its device is in use over the other one"


async def test_no_first_connection_is_made_by_the_way(kernel: Kernel) -> None:
    kernel.works()
    connector = kernel.connector()
    assert await connector.connect_missing(BOTH, CONFIG) == [ONE, TWO]
    kernel.tree.connect(A, hostnqn=OTHER_NQN)
    assert await connector.connect_missing(BOTH, CONFIG) == [ONE, TWO]
    assert not kernel.runner.calls
    with pytest.raises(NotOurs):
        await connector.connect_missing(Target((ONE, TWO), 4420, "boot"), CONFIG)


async def test_who_ends_the_volume_meanwhile_has_the_last_word(joining: Kernel) -> None:
    connector = joining.connector()
    await connector.connect(Target((ONE,), 4420, A))
    asked = []

    async def no() -> bool:
        asked.append(connector.busy(A))
        return False

    assert await connector.connect_missing(BOTH, CONFIG, confirm=no) == [TWO]
    assert asked == [True]
    joining.silent = {TWO}  # it takes a while until it is known whether anybody answers
    work = asyncio.create_task(connector.connect_missing(BOTH, CONFIG))
    await asyncio.sleep(0.1)
    await connector.disconnect(A)
    assert not work.done(), "the disconnect did not wait for it"
    joining.silent.clear()
    with structlog.testing.capture_logs() as logs:
        assert await work == [ONE, TWO]
    assert addresses(joining) == []
    assert logs == [], "nothing is wrong with the kernel"


async def test_a_connect_that_hangs_at_one_address_fails_nobody(joining: Kernel) -> None:
    joining.runner.forget()
    joining.reads()
    joining.removes()
    joining.runner.on("nvme", "connect", effect=joining.connect, takes=0.5, times=1)
    hanging = joining.runner.on("nvme", "connect", takes=1000, stuck=True)
    connector = joining.connector()
    found = await connector.connect(BOTH)
    assert found.device.name == "nvme0n1"
    assert connector.busy(A), "what hangs may connect yet"
    ending = asyncio.create_task(connector.disconnect(A))
    await asyncio.sleep(100)
    assert not ending.done()
    joining.tree.connect(A, address=TWO)
    hanging.gone.set()
    await ending
    assert addresses(joining) == []


@pytest.mark.parametrize("state", ["live", "connecting"])
async def test_every_path_is_taken_down_and_seen_to_be_gone(joining: Kernel, state: str) -> None:
    connector = joining.connector()
    await connector.connect(BOTH)
    joining.tree.set("nvme1", "state", state)
    await connector.disconnect(A)
    assert joining.written("delete") == ["nvme0", "nvme1"]
    assert addresses(joining) == []


async def test_one_path_that_stays_is_no_success(joining: Kernel) -> None:
    connector = joining.connector()
    await connector.connect(BOTH)
    joining.runner.forget()
    joining.runner.on("/", takes=0)
    joining.runner._answers[-1].words = ()
    joining.runner._answers[-1].effect = lambda _call: joining.tree.disconnect("nvme0")
    with pytest.raises(Unavailable, match="nvme1 did not go"):
        await connector.disconnect(A)


async def test_a_path_to_an_old_address_harms_nobody_beside_a_live_one(joining: Kernel) -> None:
    joining.tree.connect(A, address=ONE)
    joining.tree.connect(A, address="192.0.2.77", state="connecting")
    joining.mounted.add(joining.tree.devno("nvme0n1"))
    await joining.connector().connect(BOTH)
    assert addresses(joining) == [ONE, "192.0.2.77", TWO]
    assert joining.written("delete") == []


async def test_a_path_that_the_kernel_tries_in_vain_is_helped_by_another(joining: Kernel) -> None:
    joining.tree.connect(A, address=ONE, state="connecting")
    joining.away = {ONE}
    await joining.connector().connect(BOTH)
    assert addresses(joining) == [ONE, TWO]
    assert joining.written("delete") == []


def test_an_address_with_a_connection_that_goes_is_missing(kernel: Kernel) -> None:
    kernel.tree.connect(A, address=ONE, state="connecting")
    assert missing(BOTH, kernel.sysfs.controllers(A)) == [Endpoint(TWO, 4420, A)]
    kernel.tree.connect(A, address=TWO, state="deleting")
    assert missing(BOTH, kernel.sysfs.controllers(A)) == [Endpoint(TWO, 4420, A)]
    kernel.tree.connect(A, address=TWO, port=4421)
    assert missing(BOTH, kernel.sysfs.controllers(A)) == [Endpoint(TWO, 4420, A)]


@pytest.mark.looptime(False)
async def test_whether_somebody_answers_is_asked_by_tcp() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await answers(Endpoint("127.0.0.1", port, A))
    server.close()
    await server.wait_closed()
    assert not await answers(Endpoint("127.0.0.1", port, A))
