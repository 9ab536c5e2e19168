"""What an idle node costs whose 200 volumes are well, each under a map.

Everything that a node process does by itself, as the driver puts it together: the healer, the
reaper, who keeps several paths, who watches whether targets come back with what they had. All of it
runs for a minute, on a tree like the kernel's sysfs, after it has had time to ask each target once.
``dmsetup`` and ``nvme`` are stand-ins that print what the real ones would. Counted is the CPU time
of the process and of the programs it starts. The mount table does not change meanwhile.

Exits with 1 if the promise (1 % of a CPU) is not kept.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.node import MINUTE, MOUNTS, PREFIX, VOLUMES, children, dress, other_mount, volume
from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.driver.connections import Host, build_connections, build_returns
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.host_identity import host_identity
from rds_csi.node.connected import Volumes
from rds_csi.node.healer import Healer
from rds_csi.node.mender import Mender
from rds_csi.node.path_keeper import PathKeeper
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.waiting import Waits
from rds_csi.nvme.reconnector import Reconnector
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.pathlayer.maps import Maps
from rds_csi.runtime.process import Result, SubprocessRunner
from rds_csi.runtime.scope import Scope
from rds_csi.telemetry import logs
from tests.unit.fakes.device_mapper import FakeDeviceMapper, FakeTable
from tests.unit.fakes.sysfs import FakeSysfs
from tests.unit.nvme.counting import dumped

WARM: Final = 45.0
"""Seconds until every target has been asked what it counts, and nothing is new any more."""
SHARE_LIMIT: Final = 0.01
NODE: Final = "bench"
SIZE: Final = 64 << 20
COUNTERS: Final = dumped({48: 10, 80: 10})
"""What each target says that it was sent."""


def nqn(number: int) -> str:
    """The name of a volume's export, with a generation."""
    return f"{PREFIX}:{volume(number)}.1"


class StandIns(SubprocessRunner):
    """Runs the programs of a folder instead of the real ones."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the port of rds_csi.runtime.process
        volume: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """See :class:`rds_csi.runtime.process.Runner`."""
        words = [str(self._folder / args[0]), *args[1:]]
        return await super().run(
            words, timeout=timeout, volume=volume, check=check, environment=environment
        )


class Node:
    """What the kernel shows, and the driver's services on it."""

    def __init__(self, root: Path) -> None:
        self.settings = NodeConfig(
            node_id=NODE, kubelet_dir=root / "kubelet", state_dir=root / "state"
        )
        self.config = DriverConfig(endpoint=root / "csi.sock", cluster_id=NODE)
        self.identity = host_identity(NODE, NODE)
        self.tree = FakeSysfs(root / "fake")
        (self.tree.sys / "block").mkdir()
        (root / "bin").mkdir()
        runner = StandIns(root / "bin")
        devices = BlockDevices(runner, root=self.tree.sys)
        self.host = Host(
            identity=self.identity,
            runner=runner,
            sysfs=Sysfs(self.tree.sys, dev=self.tree.dev),
            mounts=Mounts(runner, table=root / "mountinfo", changed=lambda: False),
            devices=devices,
            maps=Maps(runner, devices, NODE, root=self.tree.sys, dev=self.tree.dev),
            store=StagingStore(self.settings.state_dir),
        )
        self.waits = Waits()
        self._programs(root / "bin", self._kernel(root / "mountinfo"))

    def _kernel(self, table: Path) -> str:
        """Connections, maps and mounts; the status of the maps."""
        mapper = FakeDeviceMapper(self.tree.sys, self.tree.dev)
        lines = [other_mount(number) for number in range(MOUNTS - VOLUMES)]
        for number in range(VOLUMES):
            name = self.tree.connect(
                nqn(number), hostnqn=self.identity.nqn, hostid=self.identity.hostid, size=SIZE
            )
            (self.tree.dev / name).touch()
            self.tree.set(name, "dev", "0:0")
            dress(self.tree.block(f"{name}n1"))
            uuid = self.host.maps.identity(volume(number), 1).uuid
            over = [self.tree.devno(f"{name}n1")]
            made = mapper.add(uuid, uuid, FakeTable(SIZE // 512, over, queues=True))
            lines.append(
                f"{number} 1 {made.devno[0]}:{made.devno[1]} / {self._staging(number)} "
                f"rw,relatime shared:{number} - ext4 /dev/{made.node} rw\n"
            )
        table.write_text("".join(lines))
        return mapper.run(["dmsetup", "status", "--target", "multipath"]).stdout

    def _programs(self, folder: Path, status: str) -> None:
        """Stand-ins of what is asked."""
        for name, text in {"dmsetup": status, "nvme": COUNTERS}.items():
            (folder / f"{name}.text").write_text(text)
            (folder / name).write_text(f"#!/bin/sh\nexec cat {folder}/{name}.text\n")
            (folder / name).chmod(0o755)

    def _staging(self, number: int) -> str:
        kubelet = self.settings.kubelet_dir
        return f"{kubelet}/plugins/kubernetes.io/csi/rds.csi/{number:064x}/globalmount"

    async def stage(self) -> None:
        """Write the records of all volumes."""
        for number in range(VOLUMES):
            await self.host.store.write(
                StagedVolume(
                    volume=volume(number),
                    nqn=nqn(number),
                    address="192.0.2.1",
                    port=4420,
                    staging_path=self._staging(number),
                    fs_type="ext4",
                    uuid="99999999-2222-4333-8444-555555555555",
                    generation=1,
                )
            )

    def services(self, scope: Scope) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs by itself, as :mod:`rds_csi.driver.node_part` has it."""
        host, identity = self.host, self.identity
        connector, reaper = build_connections(
            self.config, self.settings, host, locked=lambda _volume: False, scope=scope
        )
        keeper = PathKeeper(
            initiator=connector, subsystems=host.sysfs, store=host.store, host_nqn=identity.nqn
        )
        mender = Mender(
            sight=host.sight(),
            initiator=Reconnector(
                connector,
                host.runner,
                host.sysfs,
                identity,
                scope=scope,
                nqn_prefix=self.config.nqn_prefix,
            ),
            volumes=Volumes(connector, host.sysfs, host.maps, identity.nqn),
            devices=host.devices,
            maps=host.maps,
        )
        healer = Healer(
            sight=host.sight(),
            mender=mender,
            waits=self.waits,
            exclusively=_nobody,
            events=lambda: False,
        )
        return [healer.run, reaper.run, keeper.run, build_returns(self.settings, host).run]


async def _nobody(
    volume: str,
    work: Callable[[], Awaitable[bool]],
    timeout: float,  # noqa: ASYNC109 - the port of rds_csi.node.healer
) -> bool:
    del work
    raise SystemExit(f"{volume} was to be healed within {timeout} s, and it is well")


async def measure(root: Path) -> bool:
    """Print it; whether the promise is kept."""
    node = Node(root)
    await node.stage()
    tasks = [asyncio.create_task(run()) for run in node.services(Scope())]
    await asyncio.sleep(WARM)
    seen = await node.host.sight().all()
    if sum(each.flows for each in seen) != VOLUMES or node.waits.all:
        raise SystemExit(f"not all volumes are well: {node.waits.all}")
    own, programs = time.process_time(), children()
    await asyncio.sleep(MINUTE)
    own, programs = time.process_time() - own, children() - programs
    ended = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await node.host.runner.close()
    if ended:
        raise SystemExit(f"a service ended: {ended}")
    share = (own + programs) / MINUTE
    sys.stdout.write(
        f"idle, {VOLUMES} healthy maps: {own * 1000:.0f} ms of CPU in a minute, programs "
        f"{programs * 1000:.0f} ms\nof one CPU: {share:.2%}   (promised: {SHARE_LIMIT:.0%})\n"
    )
    return share <= SHARE_LIMIT


def main() -> int:
    """Run all of it; the exit status."""
    logs.configure(level="warning")
    with tempfile.TemporaryDirectory(prefix="rds-idle-") as name:
        return 0 if asyncio.run(measure(Path(name))) else 1


if __name__ == "__main__":
    sys.exit(main())
