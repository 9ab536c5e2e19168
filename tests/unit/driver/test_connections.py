"""Connector and reaper agree on whose a connection is and on what uses it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rds_csi.config import DriverConfig, NodeConfig
from rds_csi.driver.connections import Host, MapsOver, build_connections, build_returns
from rds_csi.errors import CommandFailed, NotOurs, VolumeInUse
from rds_csi.filesystem.mounts import Mounts
from rds_csi.model.host_identity import host_identity
from rds_csi.node.staging import StagedVolume
from rds_csi.nvme.connector import Connector
from rds_csi.nvme.reaper import Reaper
from rds_csi.nvme.returns import SETTLED
from rds_csi.nvme.sysfs import Sysfs
from rds_csi.pathlayer.maps import Maps
from rds_csi.runtime.process import Result
from tests.unit.fakes.device_mapper import FakeDeviceMapper, FakeTable
from tests.unit.fakes.runner import FakeRunner
from tests.unit.fakes.sysfs import OTHER_NQN, FakeSysfs

PREFIX = "nqn.2014-08.org.example"
VOLUME = "pvc-" + "a" * 28
NQN = f"{PREFIX}:{VOLUME}"


class OfMapper(FakeRunner):
    """Runs dmsetup."""

    def __init__(self, mapper: FakeDeviceMapper) -> None:
        super().__init__()
        self._mapper = mapper

    async def run(self, args: Sequence[str], **how: Any) -> Result:
        result = self._mapper.run(args)
        if how.get("check", True) and result.returncode:
            raise CommandFailed("dmsetup failed", returncode=1, stderr=result.stderr)
        return result


IDENTITY = host_identity("test", "n1.tag")


@dataclass
class Machine:
    """A host with one connection, on a fake tree; what speaks for the connection is set by hand."""

    root: Path
    locked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tree = FakeSysfs(self.root / "fake")
        self.tree.connect(NQN, hostnqn=IDENTITY.nqn)
        self.config = DriverConfig(
            endpoint=self.root / "csi.sock", cluster_id="test", nqn_prefix=PREFIX
        )
        self.settings = NodeConfig(
            node_id="n1", state_dir=self.root / "state", connects=3, reap_grace=77
        )
        self.table = self.root / "mountinfo"
        self.table.write_text("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
        sysfs = Sysfs(self.tree.sys, dev=self.tree.dev)
        host = Host.of(self.config, self.settings, "n1.tag", sysfs)
        self.host = replace(host, mounts=Mounts(host.runner, table=self.table))

    def mount(self) -> None:
        major, minor = self.tree.devno("nvme0n1")
        self.table.write_text(f"20 1 {major}:{minor} / /mnt rw - ext4 /dev/nvme0n1 rw\n")

    async def record(self, **changes: object) -> None:
        staged = StagedVolume(
            volume=VOLUME, nqn=NQN, address="192.0.2.1", port=4420, staging_path="/stage"
        )
        await self.host.store.write(replace(staged, **changes))  # type: ignore[arg-type]

    def build(self, **more: object) -> tuple[Connector, Reaper]:
        return build_connections(
            self.config,
            self.settings,
            self.host,
            locked=self.locked.__contains__,
            **more,  # type: ignore[arg-type]
        )

    async def reason(self, **more: object) -> str:
        """Why the reaper keeps the connection, or takes it."""
        _, reaper = self.build(dry_run=True, **more)
        (finding,) = await reaper.once()
        return finding.verdict.reason


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_the_host_is_known_by_the_name_the_controller_computes(machine: Machine) -> None:
    assert machine.host.identity == IDENTITY
    assert machine.host.store._directory == machine.settings.state_dir
    connector, _ = machine.build()
    assert connector.find(NQN) is not None
    machine.tree.set("nvme0", "hostnqn", OTHER_NQN)
    assert connector.find(NQN) is None
    assert await machine.reason() == "connected by another host identity"


async def test_both_know_the_names_of_volumes_by_the_same_prefix(machine: Machine) -> None:
    machine.config = replace(machine.config, nqn_prefix="nqn.2014-08.org.other")
    connector, _ = machine.build()
    with pytest.raises(NotOurs):
        await connector.disconnect(NQN)
    assert await machine.reason() == "not the name of a volume of this driver"


async def test_both_see_what_is_mounted(machine: Machine) -> None:
    machine.mount()
    connector, _ = machine.build()
    with pytest.raises(VolumeInUse, match="nvme0n1 is mounted"):
        await connector.disconnect(NQN)
    assert await machine.reason() == "mounted"


async def test_a_volumes_own_map_speaks_for_it_only_while_it_is_used(machine: Machine) -> None:
    mapper = FakeDeviceMapper(machine.tree.sys, machine.tree.dev)
    (machine.tree.sys / "block").mkdir()
    uuid = machine.host.maps.identity(VOLUME, 0).uuid
    mapper.add(uuid, uuid, FakeTable(8, [machine.tree.devno("nvme0n1")], queues=True))
    machine.host = replace(
        machine.host,
        maps=Maps(
            OfMapper(mapper),
            machine.host.devices,
            f"{machine.config.owner}/{IDENTITY.nqn}",
            root=machine.tree.sys,
            dev=machine.tree.dev,
        ),
    )
    assert "nothing uses its device" in await machine.reason()
    major, minor = mapper.maps[0].devno
    before = machine.table.read_text()
    machine.table.write_text(f"{before}21 1 {major}:{minor} / /mnt rw - ext4 /dev/dm-0 rw\n")
    assert await machine.reason() == "mounted"
    machine.table.write_text(before)
    over = MapsOver(machine.host)
    mapper.open.add(mapper.maps[0].devno)
    with pytest.raises(VolumeInUse, match="still in use"):
        await over.remove_over(NQN)
    mapper.open.clear()
    await over.remove_over(NQN)
    assert mapper.maps == {}
    mapper.add("another", "LVM-x", FakeTable(8, [machine.tree.devno("nvme0n1")], queues=False))
    assert await machine.reason() == "held by another block device"
    await over.remove_over(NQN)
    assert len(mapper.maps) == 1


async def test_what_is_locked_or_recorded_speaks_for_a_connection(machine: Machine) -> None:
    assert "nothing uses its device" in await machine.reason()
    machine.locked.add(VOLUME)
    assert await machine.reason() == "an operation is at work on it"
    machine.locked.clear()
    await machine.record()
    assert await machine.reason() == "recorded as staged"
    await machine.record(staging_path="", lost="ext4")
    assert "nothing uses its device" in await machine.reason(), "remembered, but not staged"


async def test_a_volume_is_locked_whatever_the_generation_of_its_connection(
    machine: Machine,
) -> None:
    machine.tree.set("nvme0", "subsysnqn", f"{NQN}.3")
    assert "nothing uses its device" in await machine.reason()
    await machine.record()
    assert "nothing uses its device" in await machine.reason(), "the record is of another one"
    machine.locked.add(VOLUME)
    assert await machine.reason() == "an operation is at work on it"
    machine.locked.clear()
    await machine.record(nqn=f"{NQN}.3")
    assert await machine.reason() == "recorded as staged"


@pytest.mark.parametrize(("grace", "used"), [(None, 77), (5.0, 5), (0.0, 0)])
async def test_the_grace_is_the_settings_unless_it_is_said(
    machine: Machine, grace: float | None, used: int
) -> None:
    assert f"of {used} s; waiting" in await machine.reason(grace=grace)


async def test_connects_are_limited_as_set(machine: Machine) -> None:
    connector, _ = machine.build()
    for _ in range(3):
        assert not connector._dialer._limit.locked()
        await connector._dialer._limit.acquire()
    assert connector._dialer._limit.locked()


async def test_orphans_and_events_are_told_to_whoever_counts(machine: Machine) -> None:
    events: list[str] = []
    orphans: list[str] = []
    connector, reaper = machine.build(on_event=events.append, on_orphan=orphans.append)
    connector._on_event("retry")
    reaper._on_disconnect(NQN)
    assert (events, orphans) == (["retry"], [NQN])


async def test_the_reaper_takes_down_through_the_connector(machine: Machine) -> None:
    """So a connect under way and a clean-up never meet."""
    connector, reaper = machine.build()
    assert reaper._connector is connector


@pytest.mark.parametrize("record", [{}, {"exclusive": False}, {"exclusive": True}])
async def test_only_a_record_that_says_so_makes_a_volume_exclusive(
    tmp_path: Path, record: dict[str, bool]
) -> None:
    machine = Machine(tmp_path)
    returns = build_returns(machine.settings, machine.host)
    assert not await returns._exclusive(VOLUME)
    await machine.record(**record)
    assert await returns._exclusive(VOLUME) is record.get("exclusive", False)


async def test_no_target_is_asked_over_a_link_that_has_just_come_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert build_returns(machine.settings, machine.host)._settled == SETTLED >= 10


async def test_what_is_known_of_a_target_outlives_connections_below_a_map(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    returns = build_returns(machine.settings, machine.host)
    assert returns._mapped() == set()
    entry = machine.tree.sys / "block" / "dm-3"
    (entry / "dm").mkdir(parents=True)
    (entry / "dev").write_text("253:3\n")
    (entry / "size").write_text("2048\n")
    (entry / "dm" / "suspended").write_text("0\n")
    (entry / "slaves").mkdir()
    identity = machine.host.maps.identity(VOLUME, 4)
    (entry / "dm" / "uuid").write_text(f"{identity.uuid}\n")
    assert returns._mapped() == {VOLUME}
