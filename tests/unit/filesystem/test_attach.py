"""Mounting a device and binding its node: what is shown afterwards has to be that device."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rds_csi.errors import CommandStuck, FailedPrecondition, Internal, NotUndone, Unavailable
from rds_csi.filesystem.attach import DeviceMounts
from rds_csi.filesystem.grow import Grower
from rds_csi.filesystem.mounts import Mount, Mounts
from rds_csi.model.block_device import Device
from rds_csi.model.contexts import Target
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.runtime.process import Result
from tests.unit.fakes.mounts import Entry
from tests.unit.fakes.node_host import FakeBlockDevices, FakeHost
from tests.unit.fakes.node_kernel import HOST_NQN, Disk

Act = Callable[[], Awaitable[Mount]]
Bind = Callable[[bool], Awaitable[Mount]]
A = "nqn.2000-02.com.mikrotik:pvc-a"
B = "nqn.2000-02.com.mikrotik:pvc-b"


@pytest.fixture
async def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    for nqn in (A, B):
        host.rds[nqn] = Disk(1024**3)
        host.rds[nqn].make("ext4", "11111111-2222-4333-8444-555555555555")
    await host.connect_with_retry(Target(("10.0.0.1",), 4420, A), ConnectionConfig())
    (host.kubelet / "stage").mkdir()
    (host.kubelet / "file").touch()
    return host


@pytest.fixture
def device(host: FakeHost) -> Device:
    found = host.connections[A]
    return Device(host.dev / found.name, found.devno, A, HOST_NQN)


@pytest.fixture
def attach(host: FakeHost) -> DeviceMounts:
    return DeviceMounts(Mounts(host, table=host.table.path), FakeBlockDevices(host, host.sys))


@pytest.fixture
def mount(attach: DeviceMounts, host: FakeHost, device: Device) -> Act:
    point = str(host.kubelet / "stage")
    return lambda: attach.mount(device, point, fs_type="ext4", options=["rw"], volume="pvc-a")


@pytest.fixture
def bind(attach: DeviceMounts, host: FakeHost, device: Device) -> Bind:
    point = str(host.kubelet / "file")
    return lambda read_only: attach.bind(device, point, read_only=read_only, volume="pvc-a")


async def test_what_is_mounted_is_returned(
    host: FakeHost, mount: Act, bind: Bind, device: Device
) -> None:
    assert (await mount()).devno == device.devno
    host.set_read_only(A)
    assert (await bind(True)).read_only
    assert host.acts == [("mount", A), ("bind", A)]


async def test_a_device_that_takes_writes_is_not_shown_as_read_only(
    host: FakeHost, bind: Bind
) -> None:
    """The kernel gave it up and it came back, under the same number, without the flag."""
    with pytest.raises(Unavailable, match="takes writes again"):
        await bind(True)
    assert host.table.points() == []


async def test_the_kernels_words_are_told(host: FakeHost, mount: Act) -> None:
    host.rds[A].content = "ntfs"
    with pytest.raises(FailedPrecondition, match="wrong fs type"):
        await mount()
    assert host.table.points() == []


async def test_success_that_the_table_does_not_show_is_none(
    host: FakeHost, mount: Act, bind: Bind
) -> None:
    host.refusals["mount"] = Result(0, "", "")
    for act in (mount, lambda: bind(True)):
        with pytest.raises(Internal, match="nothing is at"):
            await act()


@pytest.mark.parametrize(
    "change",
    [{"devno": (259, 99)}, {"type": "xfs"}, {"options": ("ro",)}],
    ids=["devno", "type", "mode"],
)
async def test_a_mount_that_is_not_what_was_asked_for_is_taken_away(
    host: FakeHost, mount: Act, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """``mount`` says success, and the table shows another device, type or mode."""
    original = host.table.run

    def run(words: Sequence[str]) -> Result:
        result = original(words)
        if words[0] == "mount":
            host.table.entries[-1] = replace(host.table.entries[-1], **change)
            host.table._write()
        return result

    monkeypatch.setattr(host.table, "run", run)
    with pytest.raises(Internal, match="instead of"):
        await mount()
    assert host.table.points() == []


async def test_a_node_that_is_not_the_devices_is_taken_away(
    host: FakeHost, bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBlockDevices, "number_of", lambda *_: (259, 77))
    with pytest.raises(Internal, match=r"shows device \(259, 77\), not 259:1"):
        await bind(False)
    assert host.table.points() == []


@pytest.mark.parametrize("how", ["mount", "bind", "bind read-only"])
async def test_a_device_that_goes_meanwhile_is_the_reason_and_nothing_stays(
    host: FakeHost, mount: Act, bind: Bind, how: str
) -> None:
    for step in ("before mount", "mount holds the device", "after mount"):
        host.steps.at, host.steps.then = step, lambda: host.swap(A, B)
        with pytest.raises(Unavailable, match="not its device any more"):
            await (mount() if how == "mount" else bind(how == "bind read-only"))
        assert host.table.points() == []
        host.swap(B, A)


async def test_the_last_look_at_a_bound_node_is_whose_it_is(
    host: FakeHost, bind: Bind, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing keeps a bound node's number from being given anew, at any moment."""

    def number_of(*_: object) -> tuple[int, int]:
        host.swap(A, B)
        return device.devno

    monkeypatch.setattr(FakeBlockDevices, "number_of", number_of)
    with pytest.raises(Unavailable, match="not its device any more"):
        await bind(False)
    assert host.table.points() == []


async def test_what_cannot_be_taken_away_is_said(host: FakeHost, mount: Act) -> None:
    host.steps.at, host.steps.then = "after mount", lambda: host.swap(A, B)
    host.refusals["umount"] = Result(32, "", "umount: target is busy.")
    with pytest.raises(NotUndone, match=r"not its device any more.*could not be unmounted again"):
        await mount()


async def test_under_a_stuck_mount_nothing_is_done(
    host: FakeHost, mount: Act, bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still mount, so its point is left alone and the volume locked."""

    async def hang(*_: object, **__: object) -> Result:
        host.table.entries.append(
            Entry((259, 1), "/", str(host.kubelet / "stage"), ("rw",), "ext4", "/dev/nvme1n1")
        )
        host.table._write()
        raise CommandStuck("mount hangs")

    monkeypatch.setattr(host, "run", hang)
    for act in (mount, lambda: bind(True)):
        with pytest.raises(CommandStuck):
            await act()
    assert host.table.points() == [str(host.kubelet / "stage")] * 2


async def test_what_was_there_before_is_not_unmounted(host: FakeHost, mount: Act) -> None:
    stage = str(host.kubelet / "stage")
    host.table.entries.append(Entry((8, 1), "/x", stage, ("rw",), "ext4", "/dev/sda1"))
    host.table._write()
    host.rds[A].content = "ntfs"
    with pytest.raises(FailedPrecondition):
        await mount()
    assert host.table.points() == [stage]


async def test_a_mount_of_another_device_is_not_grown(
    host: FakeHost, mount: Act, device: Device
) -> None:
    """After renumbering, ``resize2fs`` would be given a device that this mount is not of."""
    shown = await mount()
    host.rds[A].size *= 2
    host.acts.clear()
    grower = Grower(host, FakeBlockDevices(host, host.sys))
    with pytest.raises(Unavailable, match=r"shows device \(259, 1\), not 259:7"):
        await grower.grow(replace(device, devno=(259, 7)), shown, volume="pvc-a")
    with pytest.raises(Unavailable, match="not its device any more"):
        await grower.grow(replace(device, nqn=B), shown, volume="pvc-a")
    assert host.acts == []
