"""What the kernel holds is not taken down, whoever wants to: it is asked, and it knows all mounts.

The driver sees the mounts of its own mount namespace alone, and no swap at all.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import pytest

from rds_csi.errors import VolumeInUse
from rds_csi.model.contexts import Target as Address
from rds_csi.model.host_identity import host_identity
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.nvme.child import Prover
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.reaper import Reaper
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import SubprocessRunner
from rds_csi.runtime.retry import RetryPolicy
from tests.lab import node
from tests.lab.application import tell
from tests.lab.target import Target
from tests.lab.waiting import until

PREFIX: Final = "nqn.2000-02.com.mikrotik"
NQN: Final = f"{PREFIX}:pvc-" + "e" * 28
HOST: Final = host_identity("lab", "held")
ADDRESS: Final = Address(("127.0.0.1",), 4420, NQN)
CONFIG: Final = ConnectionConfig(reconnect_delay=1)

Holder = Literal["mounted elsewhere", "swap"]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    file = tmp_path / "volume.img"
    with file.open("wb") as content:
        content.truncate(64 << 20)
    target = Target(NQN, file, port=ADDRESS.port)
    target.start()
    yield target
    target.stop()


@pytest.fixture
async def runner() -> AsyncIterator[SubprocessRunner]:
    runner = SubprocessRunner()
    yield runner
    await runner.close()


@pytest.fixture
async def connector(runner: SubprocessRunner, target: Target) -> AsyncIterator[Connector]:
    made = Connector(
        runner, Sysfs(), HOST, in_use=lambda _devno: False, policy=RetryPolicy(attempts=1)
    )
    yield made
    await made.disconnect(NQN)


@contextmanager
def held(how: Holder, device: Path, place: Path) -> Iterator[None]:
    """Held by the kernel, in a way that no look at our mounts shows."""
    if how == "swap":
        subprocess.run(["mkswap", device], check=True, capture_output=True)
        subprocess.run(["swapon", device], check=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", device], check=True)
        return
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    place.mkdir()
    script = 'mount "$0" "$1" && echo mounted && exec sleep 600'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen([*command, device, place], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mounted\n"
        assert str(place) not in Path("/proc/self/mountinfo").read_text()
        try:
            yield
        finally:
            other.kill()


def no_mounts(_devno: tuple[int, int]) -> bool:
    """What is to be seen of the holders here."""
    return False


def names() -> list[str]:
    return [found.name for found in node.controllers(NQN)]


async def gone(connector: Connector) -> None:
    """Taken down, as soon as the holder's namespace is gone, a moment after its last process."""

    async def tried() -> bool:
        try:
            await connector.disconnect(NQN)
        except VolumeInUse:
            await asyncio.sleep(0.2)
        return not names()

    for _ in range(50):
        if await tried():
            return
    raise AssertionError("still held")


@pytest.mark.parametrize("how", ["mounted elsewhere", "swap"])
async def test_disconnect_and_reaper_ask_the_kernel(
    how: Holder, connector: Connector, tmp_path: Path
) -> None:
    namespace = await connector.connect_with_config(ADDRESS, CONFIG)
    before = names()

    async def nothing() -> set[str]:
        return set()

    reaper = Reaper(
        sysfs=Sysfs(),
        connector=connector,
        host=HOST.nqn,
        nqn_prefix=PREFIX,
        recorded=nothing,
        mounted=lambda: no_mounts,
        locked=lambda _nqn: False,
        grace=0,
    )
    with held(how, namespace.device, tmp_path / "elsewhere"):
        with pytest.raises(VolumeInUse, match=r"nvme[0-9]+n1 is held") as caught:
            await connector.disconnect(NQN, volume="pvc-1")
        tell(str(caught.value))
        await reaper.once()
        for _ in range(5):
            [finding] = [found for found in await reaper.once() if found.nqn == NQN]
            if finding.error != "it is used now":
                break  # else a machine that stood still had the kernel connect anew just then
        assert finding.verdict.disconnect, "nothing is to be seen of the holder"
        assert "is held" in finding.error
        assert names() == before
        assert [found.state for found in node.controllers(NQN)] == ["live"]
    await gone(connector)


async def test_a_connection_that_is_held_is_not_replaced(
    connector: Connector, target: Target, tmp_path: Path
) -> None:
    """The RDS moved, and the old connection waits for it; to ask takes no answer from the RDS."""
    namespace = await connector.connect_with_config(ADDRESS, CONFIG)
    before = names()
    with held("mounted elsewhere", namespace.device, tmp_path / "elsewhere"):
        target.cut()
        await until(lambda: node.controllers(NQN)[0].state == "connecting", "the outage is seen")
        with pytest.raises(VolumeInUse, match="is held"):
            await connector.connect_with_config(replace(ADDRESS, addresses=("127.0.0.2",)), CONFIG)
        assert names() == before
        target.restore()
        await until(lambda: node.controllers(NQN)[0].state == "live", "it is back")
    await gone(connector)


async def test_what_nobody_holds_is_taken_down_in_an_outage_too(
    connector: Connector, target: Target
) -> None:
    await connector.connect_with_config(ADDRESS, CONFIG)
    target.cut()
    await until(lambda: node.controllers(NQN)[0].state == "connecting", "the outage is seen")
    await connector.disconnect(NQN)
    assert names() == []
    target.restore()


async def test_the_block_that_is_read_is_the_subsystems_own(
    connector: Connector, runner: SubprocessRunner, tmp_path: Path
) -> None:
    """Between the look and the read, the device's name and number pass to another volume."""
    namespace = await connector.connect_with_config(ADDRESS, CONFIG)
    meant = Sysfs().controllers(NQN)
    await connector.disconnect(NQN)
    other = Target(NQN[:-1] + "f", tmp_path / "volume.img", port=4421)
    other.start()
    try:
        taken = await connector.connect_with_config(
            replace(ADDRESS, port=4421, nqn=other.nqn), CONFIG
        )
        assert (taken.device, taken.devno) == (namespace.device, namespace.devno)
        prover = Prover(runner, Sysfs(), HOST)
        found = await prover.read(
            namespace.device.name, namespace.devno, meant, timeout=30, volume="pvc-1"
        )
        tell(f"{found.returncode}: {found.stderr.strip()}")
        assert found.returncode == 3
        right = await prover.read(
            taken.device.name,
            taken.devno,
            Sysfs().controllers(other.nqn),
            timeout=30,
            volume="pvc-1",
        )
        assert right.returncode == 0
    finally:
        await connector.disconnect(other.nqn)
        other.stop()
