"""Each nvme-cli that a supported distribution has: what it is told, what it says, what comes out.

Debian 12 has 2.3, Debian 13 (and the node's image) 2.13; when this was written sid had 2.16 and
experimental 3.1. ``nox -s kernel`` unpacks them, and says loudly which it could not fetch.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from rds_csi.errors import CommandFailed, ConnectFailed, ConnectRejected, DriverError, NotReady
from rds_csi.model.contexts import Target as Address
from rds_csi.model.host_identity import host_identity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.arguments import connect_arguments, connect_file
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.counters import CounterReader, Counters
from rds_csi.nvme.sysfs import Controller, Sysfs
from rds_csi.runtime.process import SubprocessRunner
from rds_csi.runtime.retry import RetryPolicy
from tests.lab.application import tell
from tests.lab.network import dropped
from tests.lab.standin import standing_in
from tests.lab.target import Target
from tests.lab.waiting import until

UNPACKED: Final = Path(__file__).parents[2] / "build" / "tools" / "nvme-cli"
ORIGINS: Final = (
    "this machine",
    "trixie",
    pytest.param("sid", marks=pytest.mark.exhaustive),
    "experimental",
)
NQN: Final = "nqn.2000-02.com.mikrotik:pvc-" + "c" * 28
HOST: Final = host_identity("lab", "nvme-cli")
ADDRESS: Final = Address(("127.0.0.1",), 4420, NQN)
ENDPOINT: Final = ADDRESS.endpoints[0]
SYSFS: Final = Path("/sys/class/nvme")

CONFIGS: Final = {
    "our defaults": ConnectionConfig(),
    "everything": ConnectionConfig(
        ctrl_loss_tmo=77,
        reconnect_delay=7,
        keep_alive_tmo=9,
        fast_io_fail_tmo=11,
        nr_io_queues=1,
        queue_size=32,
    ),
    "never give up, but fail fast": ConnectionConfig(fast_io_fail_tmo=0),
    "as long as there are numbers": ConnectionConfig(ctrl_loss_tmo=2**31 - 1),
}


@pytest.fixture(params=ORIGINS)
def version(request: pytest.FixtureRequest) -> Iterator[str]:
    """The nvme-cli that the driver finds, and no other; its version."""
    if request.param == "this machine":
        yield version_of("nvme")
        return
    program = UNPACKED / request.param / "nvme"
    if not program.exists():
        pytest.skip(f"the nvme-cli of {request.param} was not fetched")
    with standing_in("nvme", f'#!/bin/sh\nexec {program} "$@"\n'):
        yield version_of(program)


def version_of(program: str | Path) -> str:
    said = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
    tell(said)
    return said.split()[2]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    file = tmp_path / "volume.img"
    with file.open("wb") as content:
        content.truncate(64 << 20)
    target = Target(NQN, file, port=ADDRESS.port, address="0.0.0.0")
    target.start()
    yield target
    target.stop()


@pytest.fixture
async def connector() -> AsyncIterator[Connector]:
    runner = SubprocessRunner()
    made = Connector(
        runner, Sysfs(), HOST, in_use=lambda _devno: False, policy=RetryPolicy(attempts=1)
    )
    yield made
    await made.disconnect(NQN)
    await runner.close()


@pytest.fixture
def without_transport() -> Iterator[None]:
    """A node that lacks the module, and cannot load it."""
    with written(Path("/proc/sys/kernel/modprobe"), "/bin/false\n"):
        subprocess.run(["rmmod", "nvme_tcp"], check=True)
        yield
    subprocess.run(["modprobe", "nvme-tcp"], check=True)


async def failure(connector: Connector, address: Address) -> DriverError:
    with pytest.raises(DriverError) as caught:
        await connector.connect(address)
    tell(f"{type(caught.value).__name__}: {caught.value}")
    return caught.value


@contextmanager
def unreachable(address: str) -> Iterator[None]:
    route = ["ip", "route", "{}", "unreachable", address]
    subprocess.run([word.format("add") for word in route], check=True)
    try:
        yield
    finally:
        subprocess.run([word.format("del") for word in route], check=True)


@contextmanager
def written(file: Path, value: str) -> Iterator[None]:
    before = file.read_text()
    file.write_text(value)
    try:
        yield
    finally:
        file.write_text(before)


@pytest.mark.usefixtures("target")
async def test_every_setting_comes_out_as_asked_for(version: str, connector: Connector) -> None:
    """The connector proves each of them itself; here the kernel is asked once more."""
    for name, config in CONFIGS.items():
        await connector.connect_with_config(ADDRESS, config)
        (controller,) = Sysfs().controllers(NQN)
        shown = {
            file: (SYSFS / controller.name / file).read_text().strip()
            for file in ("ctrl_loss_tmo", "reconnect_delay", "fast_io_fail_tmo", "kato", "sqsize")
        }
        tell(f"nvme-cli {version}, {name}: {shown}")
        loss, delay, fast = config.ctrl_loss_tmo, config.reconnect_delay, config.fast_io_fail_tmo
        # Attempts are whole: 2**31 - 1 seconds are a few less, and not minus something.
        attempts = shown["ctrl_loss_tmo"]
        assert attempts == "off" if loss < 0 else abs(int(attempts) - loss) < delay
        assert shown["reconnect_delay"] == str(delay)
        assert shown["fast_io_fail_tmo"] == ("off" if fast is None else str(max(fast, 1)))
        assert shown["kato"] == str(config.keep_alive_tmo or 5)
        assert shown["sqsize"] == str((config.queue_size or 128) - 1)
        # "already connected" is found, and the settings of what stands are not asked for again.
        await connector.connect_with_config(ADDRESS, replace(config, ctrl_loss_tmo=5))
        await connector.disconnect(NQN)


@pytest.mark.usefixtures("target")
async def test_a_second_address_is_a_second_connection(version: str, connector: Connector) -> None:
    """None of them takes one connection of a subsystem for all."""
    both = replace(ADDRESS, addresses=("127.0.0.1", "127.0.0.2"))
    found = await connector.connect(both)
    controllers = Sysfs().controllers(NQN)
    tell(f"nvme-cli {version}: {[(each.address, each.state) for each in controllers]}")
    assert [each.address for each in controllers if each.live] == list(both.addresses)
    assert [each.devno for each in Sysfs().devices(controllers)] == [found.devno]
    await connector.disconnect(NQN)
    assert Sysfs().controllers(NQN) == []


async def test_each_failure_is_the_one_it_is(
    version: str, target: Target, connector: Connector
) -> None:
    nowhere = await failure(connector, replace(ADDRESS, port=4499))
    assert "Connection refused" in str(nowhere)
    with unreachable("10.9.9.8"):
        away = await failure(connector, replace(ADDRESS, addresses=("10.9.9.8",)))
    assert "No route to host" in str(away)
    with written(Path("/proc/sys/net/ipv4/tcp_syn_retries"), "1"), dropped("to the target"):
        silent = await failure(connector, ADDRESS)
    assert "timed out" in str(silent)
    missing = await failure(connector, replace(ADDRESS, nqn=NQN[:-1] + "d"))
    assert "it does not export" in str(missing)
    target.admit_nobody()
    refused = await failure(connector, ADDRESS)
    assert "or not to this host" in str(refused)
    assert {type(each) for each in (nowhere, away, silent, missing, refused)} == {ConnectFailed}
    assert all(each.transient for each in (nowhere, away, silent, missing, refused)), version


@pytest.mark.usefixtures("target")
async def test_a_connection_found_by_nvme_cli_itself_is_used(
    version: str, connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody was faster: between our look and ours, as it seems to the connector."""
    await connector.connect(ADDRESS)
    seen = connector._own
    looks: Iterator[list[Controller]] = iter([[]])
    monkeypatch.setattr(connector, "_own", lambda nqn: next(looks, None) or seen(nqn))
    before = [path.name for path in SYSFS.iterdir()]
    await connector.connect(ADDRESS)
    assert [path.name for path in SYSFS.iterdir()] == before, version


@pytest.mark.usefixtures("target")
async def test_settings_that_are_dropped_are_found_out(connector: Connector) -> None:
    """What the driver did until 2026-11, with Debian 13: options, and a file for one of them."""
    program = UNPACKED / "trixie" / "nvme"
    if not program.exists():
        pytest.skip("the nvme-cli of trixie was not fetched")
    config = ConnectionConfig(fast_io_fail_tmo=7)
    told = [str(program), *connect_arguments(ENDPOINT, config, HOST)]
    only = replace(config, ctrl_loss_tmo=0, reconnect_delay=0)
    with connect_file(ENDPOINT, only, HOST) as file:
        script = f"#!/bin/sh\nexec {' '.join([*told, *file])}\n"
        with standing_in("nvme", script), pytest.raises(ConnectRejected) as caught:
            await connector.connect_with_config(ADDRESS, config)
    tell(str(caught.value))
    assert "ctrl_loss_tmo is 600, asked for was off" in str(caught.value)
    assert "reconnect_delay is 10, asked for was 5" in str(caught.value)
    assert not Sysfs().controllers(NQN), "the wrong connection stands"


@pytest.mark.usefixtures("without_transport")
async def test_without_the_module_it_is_the_module_that_is_named(
    version: str, connector: Connector
) -> None:
    """The newest nvme-cli calls it "invalid arguments"."""
    found = await failure(connector, ADDRESS)
    assert type(found) is NotReady, version
    assert "modprobe nvme-tcp" in found.advice


@pytest.mark.usefixtures("target")
async def test_each_asks_a_target_what_it_counted(version: str, connector: Connector) -> None:
    """The page comes out whole; behind a file without a block device a target counts nothing."""
    await connector.connect(ADDRESS)
    (controller,) = Sysfs().controllers(NQN)
    counted = await asked(controller)
    assert counted == Counters(reads=0, writes=0, read_units=0, written_units=0), version


@pytest.mark.usefixtures("target")
async def test_a_cut_is_found_while_a_target_is_asked(connector: Connector) -> None:
    """The question must not hold up what the kernel does for everybody who waits for I/O."""
    config = ConnectionConfig(keep_alive_tmo=2, reconnect_delay=1)
    await connector.connect_with_config(ADDRESS, config)
    (controller,) = Sysfs().controllers(NQN)
    with dropped("both ways"):
        question = asyncio.create_task(asked(controller))
        # "resetting" comes first, and lasted for a minute while a question had one.
        await until(lambda: state(controller) == "connecting", "the cut is found", seconds=30)
        with pytest.raises(CommandFailed):
            await question
    await until(lambda: state(controller) == "live", "it comes back")
    await asked(controller)


async def asked(controller: Controller) -> Counters:
    runner = SubprocessRunner()
    try:
        return await CounterReader(runner, Sysfs(), HOST.nqn).read(controller, volume="v")
    finally:
        await runner.close()


def state(controller: Controller) -> str:
    return Sysfs().read(controller.name, "state")
