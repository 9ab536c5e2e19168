"""How often the kernel is asked: once for each look, however many volumes and mounts there are."""

import asyncio
import threading
from collections import Counter
from pathlib import Path

import pytest

from rds_csi.csi import v1 as csi
from rds_csi.filesystem.devices import BlockDevices
from rds_csi.filesystem.mounts import Mounts, MountTable
from rds_csi.model.host_identity import HostIdentity
from rds_csi.node.connected import Volumes
from rds_csi.node.look import Looks
from rds_csi.node.ports import NodePorts
from rds_csi.node.service import Node, NodeSettings
from rds_csi.node.staging import StagedVolume, StagingStore
from rds_csi.node.states import VolumeStates
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.reaper import Reaper
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.runtime.process import Result
from tests.unit.fakes.no_maps import maps_of
from tests.unit.fakes.reads import counted
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import HOST_ID, HOST_NQN, FakeSysfs

PREFIX = "nqn.2000-02.com.mikrotik"
VOLUMES = 20
FOREIGN = 5
DETAILS = 9
"""Attributes of a controller beside its NQN."""


def volume(number: int) -> str:
    return f"pvc-{number:028x}"


class Host:
    """A node with volumes, each staged and published, and connections that are not ours."""

    def __init__(self, root: Path) -> None:
        self.tree = FakeSysfs(root / "fake")
        self.kubelet = root / "kubelet"
        self.kubelet.mkdir()
        self.table = root / "mountinfo"
        lines = ["1 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "2 1 0:6 / /dev rw - devtmpfs none rw\n"]
        for number in range(FOREIGN):
            self.tree.connect(f"nqn.2014-08.org.nixos:disk-{number}")
        for number in range(VOLUMES):
            self.tree.connect(f"{PREFIX}:{volume(number)}")
            major, minor = self.tree.devno(f"nvme{FOREIGN + number}n1")
            lines += [
                f"9 1 {major}:{minor} / {point} rw - ext4 /dev/nvme rw\n"
                for point in (self.staging(number), self.target(number))
            ]
        self.table.write_text("".join(lines))
        self.runner = FakeRunner()
        self.runner.on("stat", result=Result(0, "4096 1000 600 500 100 90\n", ""))
        self.sysfs = Sysfs(self.tree.sys, dev=self.tree.dev)
        self.mounts = Mounts(self.runner, table=self.table, changed=lambda: True)
        self.store = StagingStore(root / "state")
        self.maps = maps_of(self.tree)
        self.connector = Connector(
            self.runner, self.sysfs, HostIdentity(HOST_NQN, HOST_ID), in_use=self.mounts.uses
        )
        self.node = Node(
            NodeSettings(node_id="n", host_nqn=HOST_NQN, kubelet_dir=self.kubelet),
            NodePorts(
                initiator=self.connector,
                subsystems=self.sysfs,
                runner=self.runner,
                store=self.store,
                mounts=self.mounts,
                devices=BlockDevices(self.runner),
                maps=self.maps,
            ),
        )

    def staging(self, number: int) -> str:
        return str(self.kubelet / f"stage-{number}")

    def target(self, number: int) -> str:
        return str(self.kubelet / f"target-{number}")

    async def record(self, count: int) -> None:
        for number in range(count):
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


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def walked(counts: Counter[str], host: Host) -> dict[str, int]:
    """How often the table was read, the controllers were listed, and their NQNs read."""
    under = str(host.tree.sys.relative_to(host.table.parent))
    return {
        "table": counts["mountinfo"],
        "controllers": counts[f"{under}/class/nvme"],
        "subsystems": counts[f"{under}/class/nvme-subsystem"],
        "NQNs": sum(count for name, count in counts.items() if name.endswith("/subsysnqn")),
        "states": sum(count for name, count in counts.items() if name.endswith("/state")),
    }


ALL = FOREIGN + VOLUMES


async def test_stats_read_the_table_once_and_the_details_of_one_volume(host: Host) -> None:
    await host.record(VOLUMES)
    with counted(host.table.parent) as counts:
        reply = await host.node.node_get_volume_stats(
            csi.NodeGetVolumeStatsRequest(volume_id=volume(3), volume_path=host.target(3))
        )
    assert reply.usage[0].total == 4096 * 1000
    assert walked(counts, host) == {
        "table": 1,
        "controllers": 1,
        "subsystems": 0,
        "NQNs": ALL + 1,
        "states": 1,
    }
    assert sum(counts.values()) <= ALL + DETAILS + 20
    with counted(host.table.parent) as counts:
        await host.node.node_get_volume_stats(
            csi.NodeGetVolumeStatsRequest(volume_id=volume(4), volume_path=host.target(4))
        )
    seen = walked(counts, host)
    assert (seen["controllers"], seen["NQNs"], seen["states"]) == (1, 1, 1)
    assert sum(counts.values()) <= DETAILS + 20


async def test_health_of_two_paths_reads_the_table_once(host: Host) -> None:
    await host.record(VOLUMES)
    with counted(host.table.parent) as counts:
        await host.node.node_get_volume_health(
            csi.NodeGetVolumeHealthRequest(
                volume_id=volume(3),
                volume_publish_path=host.target(3),
                staging_target_path=host.staging(3),
            )
        )
    assert walked(counts, host)["table"] == 1
    assert walked(counts, host)["NQNs"] == ALL + 1


async def test_storage_health_walks_once(host: Host) -> None:
    with counted(host.table.parent) as counts:
        await host.node.node_get_storage_health(csi.NodeGetStorageHealthRequest())
    seen = walked(counts, host)
    assert (seen["NQNs"], seen["states"], seen["table"]) == (ALL + VOLUMES, VOLUMES, 0)


async def test_the_states_of_all_volumes_are_one_walk(host: Host) -> None:
    await host.record(VOLUMES)
    states = VolumeStates(host.store, host.sysfs, host.maps, host.mounts, HOST_NQN)
    with counted(host.table.parent) as counts:
        look = await states.look()
    assert look.states == {"live": VOLUMES}
    assert walked(counts, host) == {
        "table": 1,
        "controllers": 1,
        "subsystems": 0,
        "NQNs": ALL + VOLUMES,
        "states": VOLUMES,
    }


def reaper(host: Host, *, grace: float = 0.0) -> Reaper:
    async def recorded() -> set[str]:
        return set()

    return Reaper(
        sysfs=host.sysfs,
        connector=host.connector,
        host=HOST_NQN,
        nqn_prefix=PREFIX,
        recorded=recorded,
        mounted=lambda: host.mounts.look(many=True).uses,
        locked=lambda _nqn: False,
        grace=grace,
    )


async def test_a_pass_of_the_reaper_is_one_walk_that_looks_at_no_stranger(host: Host) -> None:
    with counted(host.table.parent) as counts:
        findings = await reaper(host).once()
    assert len(findings) == ALL
    assert {each.verdict.reason for each in findings} == {
        "mounted",
        "not the name of a volume of this driver",
    }
    assert walked(counts, host) == {
        "table": 1,
        "controllers": 1,
        "subsystems": 0,
        "NQNs": ALL + VOLUMES,
        "states": VOLUMES,
    }


async def test_what_is_taken_down_is_looked_at_again_at_that_moment(host: Host) -> None:
    """Mounted between the pass and the act: the second look sees it."""
    text = host.table.read_text()
    number = VOLUMES - 1
    host.table.write_text("".join(each for each in text.splitlines(keepends=True)
                                  if not each.split()[4].endswith(f"-{number}")))  # fmt: skip
    sweeper = reaper(host)
    await sweeper.once()
    taken: list[str] = []
    disconnect = host.connector.disconnect

    async def mounted_meanwhile(nqn: str, **more: object) -> None:
        taken.append(nqn)
        host.table.write_text(text)
        await disconnect(nqn, **more)  # type: ignore[arg-type]

    host.connector.disconnect = mounted_meanwhile  # type: ignore[method-assign]
    findings = await sweeper.once()
    assert taken == [f"{PREFIX}:{volume(number)}"]
    assert [each.error for each in findings if each.error] == ["it is used now"]
    assert len(host.sysfs.controllers()) == ALL


async def test_looks_are_taken_one_at_a_time_and_off_the_event_loop(host: Host) -> None:
    """The loop goes on while a look hangs, and a second look does not begin meanwhile."""
    go, began = threading.Event(), threading.Semaphore(0)

    class Slow(Mounts):
        def look(self, *, many: bool = False) -> MountTable:
            began.release()
            assert threading.current_thread() is not threading.main_thread()
            assert go.wait(30)
            return super().look(many=many)

    looks = Looks(
        Volumes(host.connector, host.sysfs, host.maps, HOST_NQN),
        Slow(host.runner, table=host.table),
    )
    both = [asyncio.create_task(looks.at(volume(number))) for number in (1, 2)]
    await asyncio.to_thread(began.acquire)
    assert not began.acquire(blocking=False)
    go.set()
    first, second = await asyncio.gather(*both)
    assert (first.controllers[0].nqn, second.controllers[0].nqn) == (
        f"{PREFIX}:{volume(1)}",
        f"{PREFIX}:{volume(2)}",
    )
