"""What a full node costs: 200 volumes, 5,000 mounts, and who asks for them every minute.

On a tree like the kernel's sysfs and a file like its mount table, in this process: one
NodeGetVolumeStats for each volume (the kubelet's poll), a pass of the reaper, the looks of the
metrics. The mount table does not change meanwhile, so it is read when it is too old; what the
kernel takes to write it is added, as measured with as many real mounts. Prints the CPU time of
each, of a whole minute with the programs that the driver starts (``stat``), and the longest CPU
time for which the event loop did nothing else, also with all 200 calls at once.

Exits with 1 if the promises (2 % of a CPU, 50 ms) are not kept in the best of three rounds: what
else runs on the machine makes a round worse, never better.
"""

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rds_csi.csi import v1 as csi
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.kept import LONGEST
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.host_identity import HostIdentity
from rds_csi.node.ports import NodePorts
from rds_csi.node.service import Node, NodeSettings
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.states import VolumeStates
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.reaper import Reaper
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.pathlayer.maps import Maps
from rds_csi.runtime.process import SubprocessRunner
from rds_csi.telemetry import logs
from tests.unit.fakes.sysfs import HOST_ID, HOST_NQN, FakeSysfs

VOLUMES: Final = 200
MOUNTS: Final = 5000
MINUTE: Final = 60.0
LOOKS_A_MINUTE: Final = 4
TABLES_A_MINUTE: Final = MINUTE / LONGEST
KERNELS_TABLE: Final = 0.014
"""CPU seconds in which Linux 6.18 writes a table of 5,000 mounts; reading a file shows none."""
SHARE_LIMIT: Final = 0.02
STALL_LIMIT: Final = 0.05
ROUNDS: Final = 3
PREFIX: Final = "nqn.2000-02.com.mikrotik"


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds: CPU of this process, CPU of its programs, the longest stall of the loop."""

    own: float
    programs: float
    stall: float


class Host:
    """The node: what the kernel shows, and the driver's rooms on it."""

    def __init__(self, root: Path) -> None:
        self.kubelet = root / "kubelet"
        tree = FakeSysfs(root / "fake")
        lines = [
            "1 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
            "2 1 0:6 / /dev rw,nosuid shared:2 - devtmpfs devtmpfs rw,size=4096k\n",
        ]
        lines += [other_mount(number) for number in range(MOUNTS - 2 * VOLUMES)]
        for number in range(VOLUMES):
            tree.connect(f"{PREFIX}:{volume(number)}")
            dress(tree.block(f"nvme{number}n1"))
            major, minor = tree.devno(f"nvme{number}n1")
            for point in (self.staging(number), self.target(number)):
                Path(point).mkdir(parents=True)
                lines.append(
                    f"{number} 1 {major}:{minor} / {point} rw,relatime shared:{number} - ext4 "
                    f"/dev/nvme{number}n1 rw,stripe=256\n"
                )
        (root / "mountinfo").write_text("".join(lines))
        self.runner = SubprocessRunner()
        self.sysfs = Sysfs(tree.sys, dev=tree.dev)
        self.mounts = Mounts(self.runner, table=root / "mountinfo", changed=lambda: False)
        self.store = StagingStore(root / "state")
        maps = Maps(self.runner, BlockDevices(self.runner), "bench", root=tree.sys, dev=tree.dev)
        connector = Connector(
            self.runner, self.sysfs, HostIdentity(HOST_NQN, HOST_ID), in_use=self.mounts.uses
        )
        self.node = Node(
            NodeSettings(node_id="bench", host_nqn=HOST_NQN, kubelet_dir=self.kubelet),
            NodePorts(
                initiator=connector,
                subsystems=self.sysfs,
                runner=self.runner,
                store=self.store,
                mounts=self.mounts,
                devices=BlockDevices(self.runner),
                maps=maps,
            ),
        )
        self.reaper = Reaper(
            sysfs=self.sysfs,
            connector=connector,
            host=HOST_NQN,
            nqn_prefix=PREFIX,
            recorded=self.store.recorded,
            mounted=lambda: self.mounts.look(many=True).uses,
            locked=lambda _nqn: False,
        )
        self.states = VolumeStates(self.store, self.sysfs, maps, self.mounts, HOST_NQN)

    def staging(self, number: int) -> str:
        """Where the kubelet has a volume staged."""
        return f"{self.kubelet}/plugins/kubernetes.io/csi/rds.csi/{number:064x}/globalmount"

    def target(self, number: int) -> str:
        """Where a pod sees it."""
        return f"{self.kubelet}/pods/{number:036x}/volumes/kubernetes.io~csi/{number}/mount"

    async def stage(self) -> None:
        """Write the records of all volumes."""
        for number in range(VOLUMES):
            await self.store.write(
                StagedVolume(
                    volume=volume(number),
                    nqn=f"{PREFIX}:{volume(number)}",
                    address="192.0.2.1",
                    port=4420,
                    staging_path=self.staging(number),
                    fs_type="ext4",
                    targets=((self.target(number), False),),
                )
            )

    async def stats(self, number: int) -> None:
        """One call of the kubelet."""
        reply = await self.node.node_get_volume_stats(
            csi.NodeGetVolumeStatsRequest(volume_id=volume(number), volume_path=self.target(number))
        )
        if len(reply.usage) != 2:
            raise SystemExit(f"volume {number} is not measured: {reply}")

    async def one_by_one(self) -> None:
        """The kubelet's poll of a minute."""
        for number in range(VOLUMES):
            await self.stats(number)

    async def all_at_once(self) -> None:
        """The same after the kubelet was restarted."""
        await asyncio.gather(*map(self.stats, range(VOLUMES)))

    async def look(self) -> None:
        """What the metrics do."""
        look = await self.states.look()
        if look.states != {"live": VOLUMES}:
            raise SystemExit(f"not all volumes are well: {look}")

    async def table(self) -> None:
        """What is done when the table is too old."""
        self.mounts.look(many=True)

    async def reap(self) -> None:
        """What the reaper does."""
        findings = await self.reaper.once()
        if {finding.verdict.reason for finding in findings} != {"mounted"}:
            raise SystemExit(f"not all volumes are in use: {findings}")

    async def storage(self) -> None:
        """NodeGetStorageHealth."""
        await self.node.node_get_storage_health(csi.NodeGetStorageHealthRequest())


def volume(number: int) -> str:
    """The id of a volume."""
    return f"pvc-{number:028x}"


def other_mount(number: int) -> str:
    """A mount of a container, as long as they are."""
    layer = f"/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/{number}/fs"
    return (
        f"{number} 1 0:{number + 50} / /run/containerd/io.containerd.runtime.v2.task/k8s.io/"
        f"{number:064x}/rootfs rw,relatime shared:{number} - overlay overlay "
        f"rw,lowerdir={layer},upperdir={layer},workdir={layer}\n"
    )


def dress(block: Path) -> None:
    """The other entries that the kernel has in a block device's directory."""
    for name in ("alignment_offset", "capability", "discard_alignment", "diskseq", "eui", "events"):
        (block / name).write_text("0\n")
    for name in ("bdi", "integrity", "mq", "power", "queue", "slaves", "trace"):
        (block / name).mkdir()


async def cost(work: Callable[[], Awaitable[object]]) -> Cost:
    """What the work costs while the loop has something else to do every millisecond.

    A stall is the longest CPU time between two of those, of all threads: what else runs on the
    machine does not count.
    """
    longest, done = 0.0, False

    async def watch() -> None:
        nonlocal longest
        before = time.process_time()
        while not done:
            await asyncio.sleep(0.001)
            now = time.process_time()
            longest = max(longest, now - before)
            before = now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    own, programs, longest = time.process_time(), children(), 0.0
    await work()
    spent = Cost(time.process_time() - own, children() - programs, longest)
    done = True
    await watching
    return spent


def children() -> float:
    """CPU seconds of the programs that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def measure(root: Path) -> bool:
    """Print it all; whether the promises are kept."""
    host = Host(root)
    await host.stage()
    works = {
        f"{VOLUMES} NodeGetVolumeStats": host.one_by_one,
        "  the same, all at once": host.all_at_once,
        "a pass of the reaper": host.reap,
        "a look of the metrics": host.look,
        "NodeGetStorageHealth": host.storage,
        "the mount table anew": host.table,
    }
    print(f"{VOLUMES} volumes, {MOUNTS} mounts        CPU ms   programs   longest stall ms")
    best: dict[str, Cost] = {}
    for name, work in works.items():
        rounds = [await cost(work) for _ in range(ROUNDS)]
        best[name] = Cost(
            min(each.own for each in rounds),
            min(each.programs for each in rounds),
            min(each.stall for each in rounds),
        )
        own, programs, stall = (
            value * 1000 for value in (best[name].own, best[name].programs, best[name].stall)
        )
        print(f"{name:28}{own:12.1f}{programs:11.1f}{stall:14.1f}")
    await host.runner.close()
    polls, _, reap, look, _, table = best.values()
    tables = TABLES_A_MINUTE * (table.own + KERNELS_TABLE)
    share = (polls.own + polls.programs + reap.own + LOOKS_A_MINUTE * look.own + tables) / MINUTE
    # The table is read in a thread; as it is measured here, it is all one stall.
    stall = max(each.stall for each in best.values() if each is not table)
    print(f"of one CPU                  {share:12.2%}   (promised: {SHARE_LIMIT:.0%})")
    print(
        f"longest stall of the loop   {stall * 1000:9.1f} ms   (promised: {STALL_LIMIT * 1000:.0f})"
    )
    return share <= SHARE_LIMIT and stall <= STALL_LIMIT


def main() -> int:
    """Run all of it; the exit status."""
    logs.configure(level="warning")
    with tempfile.TemporaryDirectory(prefix="rds-bench-") as name:
        return 0 if asyncio.run(measure(Path(name))) else 1


if __name__ == "__main__":
    sys.exit(main())
