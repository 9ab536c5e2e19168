"""The fake host stops where it is told, and does not let data be lost."""

from pathlib import Path

import pytest

from rds_csi.errors import CommandFailed
from rds_csi.filesystem import devices, probe
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from tests.unit.fakes.mounts import Entry
from tests.unit.fakes.node_host import FakeHost
from tests.unit.fakes.node_kernel import HOST_NQN, Disk, Killed

TARGET = Target(("10.0.0.1",), 4420, "nqn.2000-02.com.mikrotik:pvc-1")
UUID = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
async def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.rds[TARGET.nqn] = Disk(1024**3)
    host.state.mkdir()
    mark(host)
    await host.connect_with_retry(TARGET, ConnectionConfig())
    return host


def mark(host: FakeHost, uuid: str = UUID) -> None:
    (host.state / "pvc-1.json").write_text(f'{{"formatting": "{uuid}"}}')


async def probed(host: FakeHost, command: str, *rest: str) -> str:
    result = await host.run(
        [
            *devices._PROBE,
            str(host.sys),
            str(host.dev / "nvme1n1"),
            "259:1",
            TARGET.nqn,
            HOST_NQN,
            probe.NO_MAP,
            command,
            *rest,
        ],
        timeout=1,
    )
    return result.stdout


async def mkfs(host: FakeHost) -> None:
    disk = host.rds[TARGET.nqn]
    digest = f"{disk.size} {disk.content} {disk.uuid}"
    await probed(host, "run", digest, "mkfs.ext4", "-U", UUID, str(host.dev / "nvme1n1"))


async def test_disconnecting_under_a_mount_fails_the_test(host: FakeHost) -> None:
    host.table.entries.append(Entry((259, 1), "/", "/mnt", ("rw",), "ext4", "/dev/nvme1n1"))
    with pytest.raises(AssertionError, match="/mnt"):
        await host.disconnect(TARGET.nqn)
    with pytest.raises(CommandFailed) as caught:
        await probed(host, "claim")
    assert caught.value.returncode == probe.HELD


async def test_mkfs_makes_a_file_system_with_a_middle(host: FakeHost) -> None:
    host.steps.passed.clear()
    host.steps.stop = 3
    with pytest.raises(Killed, match="middle"):
        await mkfs(host)
    assert host.rds[TARGET.nqn].content == "half"
    host.steps.stop = 0
    await mkfs(host)
    assert host.rds[TARGET.nqn].content == "ext4"


async def test_mkfs_over_anything_or_without_a_mark_fails_the_test(host: FakeHost) -> None:
    mark(host, "another")
    with pytest.raises(AssertionError, match="without its mark"):
        await mkfs(host)
    mark(host)
    await mkfs(host)
    with pytest.raises(AssertionError, match="over a file system"):
        await mkfs(host)
    host.rds[TARGET.nqn].data = "data"
    with pytest.raises(AssertionError, match="over a pod's data"):
        await mkfs(host)


async def test_mounting_with_a_mark_fails_the_test(host: FakeHost) -> None:
    await mkfs(host)
    point = host.kubelet / "stage"
    point.mkdir()
    command = ["mount", "-t", "ext4", "-o", "rw", str(host.dev / "nvme1n1"), str(point)]
    with pytest.raises(AssertionError, match="with the mark"):
        await host.run(command, timeout=1)
    mark(host, "")
    await host.run(command, timeout=1)
    assert host.table.points() == [str(point)]


async def test_a_stack_and_a_vanished_point_fail_the_check(host: FakeHost) -> None:
    (host.kubelet / "a").mkdir()
    entry = Entry((259, 1), "/", str(host.kubelet / "a"), ("rw",), "ext4", "/dev/nvme1n1")
    host.table.entries.append(entry)
    host.check()
    host.table.stack(entry.point)
    with pytest.raises(AssertionError, match="stacked"):
        host.check()
    host.table.entries.pop()
    (host.kubelet / "a").rmdir()
    with pytest.raises(AssertionError, match="removed under a mount"):
        host.check()
    assert entry.point in host.leaks()
