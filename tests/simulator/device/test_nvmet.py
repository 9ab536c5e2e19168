"""Exports through configfs, on a stand-in for the kernel; the real one is in tests/kernel."""

import errno
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rds_csi.simulator import Simulator
from rds_csi.simulator.device.nvmet import Nvmet
from tests.simulator.device.fake_configfs import FakeConfigFs
from tests.simulator.device.fake_loops import FakeLoops

MIB, GIB = 1024**2, 1024**3
NQN = "nqn.2000-02.com.mikrotik:a"
ADD = (
    "/disk/add type=file slot=a file-path=raid10/a.img file-size=1M mount-filesystem=no "
    f'nvme-tcp-server-nqn="{NQN}" nvme-tcp-export=yes'
)
NOTHING: dict[str, list[str]] = {"subsystems": [], "hosts": []}


@pytest.fixture
def configfs(tmp_path: Path) -> FakeConfigFs:
    return FakeConfigFs(tmp_path / "nvmet")


@pytest.fixture
def loops() -> FakeLoops:
    return FakeLoops()


def simulator(
    root: Path, configfs: FakeConfigFs, loops: FakeLoops | None = None, **settings: int
) -> Simulator:
    exporter = Nvmet(root, "192.0.2.1", configfs=configfs, loops=loops or FakeLoops(), **settings)
    return Simulator(root, pools={"raid10": 16 * GIB}, export=exporter)


@pytest.fixture
async def rds(tmp_path: Path, configfs: FakeConfigFs, loops: FakeLoops) -> AsyncIterator[Simulator]:
    async with simulator(tmp_path / "rds", configfs, loops) as found:
        yield found
    assert configfs.tree() == NOTHING


def attribute(configfs: FakeConfigFs, nqn: str, name: str) -> str:
    return configfs.read(configfs.root / "subsystems" / nqn / name)


async def test_an_export(rds: Simulator, configfs: FakeConfigFs, loops: FakeLoops) -> None:
    assert await rds.run(ADD) == ""
    assert configfs.tree() == {"subsystems": [NQN], "hosts": [], "port 1": [NQN]}
    namespace = "namespaces/1"
    path = rds.path("raid10/a.img")
    assert loops.file(attribute(configfs, NQN, f"{namespace}/device_path")) == str(path)
    assert attribute(configfs, NQN, f"{namespace}/enable") == "1"
    assert attribute(configfs, NQN, "attr_allow_any_host") == "1"
    port = configfs.root / "ports" / "1"
    assert configfs.read(port / "addr_traddr") == "192.0.2.1"
    assert configfs.read(port / "addr_trsvcid") == "4420"
    assert configfs.read(port / "addr_adrfam") == "ipv4"
    # The port comes last: nobody may connect to something half made.
    assert configfs.log[-1] == f"link ports/1/subsystems/{NQN}"


async def test_the_end_of_an_export(rds: Simulator, configfs: FakeConfigFs) -> None:
    await rds.run(ADD)
    await rds.run("/disk/set a nvme-tcp-export=no")
    assert configfs.tree() == {"subsystems": [], "hosts": [], "port 1": []}
    await rds.run("/disk/set a nvme-tcp-export=yes")
    assert configfs.tree()["port 1"] == [NQN]
    await rds.run("/disk/remove a")
    assert configfs.tree()["subsystems"] == []
    assert rds.path("raid10/a.img").exists()


async def test_disks_share_a_port(rds: Simulator, configfs: FakeConfigFs) -> None:
    await rds.run(ADD)
    await rds.run(
        "/disk/add type=file slot=b file-path=raid10/b.img file-size=1M nvme-tcp-export=yes"
    )
    assert configfs.tree()["port 1"] == ["b", NQN]
    await rds.run("/disk/set b nvme-tcp-server-port=4421")
    assert configfs.tree()["port 1"] == [NQN]
    assert configfs.tree()["port 2"] == ["b"]


async def test_the_tcp_port_can_be_overridden(tmp_path: Path, configfs: FakeConfigFs) -> None:
    async with simulator(tmp_path / "rds", configfs, port=5555) as rds:
        await rds.run(ADD)
        assert configfs.read(configfs.root / "ports/1/addr_trsvcid") == "5555"


async def test_ipv6(tmp_path: Path, configfs: FakeConfigFs) -> None:
    exporter = Nvmet(tmp_path / "rds", "::1", configfs=configfs, loops=FakeLoops())
    async with Simulator(tmp_path / "rds", export=exporter) as rds:
        await rds.run(ADD)
        assert configfs.read(configfs.root / "ports/1/addr_adrfam") == "ipv6"


async def test_allowed_hosts(rds: Simulator, configfs: FakeConfigFs) -> None:
    await rds.run(ADD)
    allowed = configfs.root / "subsystems" / NQN / "allowed_hosts"
    for hosts in (["nqn.one"], ["nqn.two"], ["nqn.one", "nqn.two"], []):
        configfs.log.clear()
        line = f'/disk/set a nvme-tcp-server-allow-host-name="{",".join(hosts)}"'
        assert await rds.run(line) == ""
        assert configfs.names(allowed) == hosts
        assert attribute(configfs, NQN, "attr_allow_any_host") == str(int(not hosts))
        # The export itself is not touched: connected hosts stay connected.
        assert not [entry for entry in configfs.log if "ports" in entry or "enable" in entry]


async def test_growth_shows_once_the_export_begins_anew(
    rds: Simulator, configfs: FakeConfigFs, loops: FakeLoops
) -> None:
    await rds.run(ADD)
    told = rds.namespaces["a"]
    configfs.log.clear()
    await rds.run("/disk/set a file-size=2M comment=x")
    assert rds.files["raid10/a.img"] == 2 * MIB
    assert configfs.log == []
    assert loops.size(rds.path("raid10/a.img")) == MIB
    assert rds.namespaces["a"] == told
    await rds.run("/disk/set a nvme-tcp-export=no; /disk/set a nvme-tcp-export=yes")
    assert loops.size(rds.path("raid10/a.img")) == 2 * MIB
    assert rds.namespaces["a"].size == 2 * MIB


async def test_a_kind_device_announces_growth(
    rds: Simulator, configfs: FakeConfigFs, loops: FakeLoops
) -> None:
    rds.quirks.growth = "announced"
    await rds.run(ADD)
    told = rds.namespaces["a"]
    await rds.run("/disk/set a file-size=2M")
    assert loops.size(rds.path("raid10/a.img")) == 2 * MIB
    assert configfs.log[-1] == f"write subsystems/{NQN}/namespaces/1/revalidate_size 1"
    assert rds.namespaces["a"] == replace(told, size=2 * MIB)
    assert rds.exported == {"a"}


async def test_a_list_of_hosts_cuts_nobody_unless_it_is_the_quirk(
    rds: Simulator, configfs: FakeConfigFs
) -> None:
    await rds.run(ADD)
    link = f"link ports/1/subsystems/{NQN}"
    for cuts in (False, True):
        rds.quirks.allow_list_cuts = cuts
        configfs.log.clear()
        await rds.run(f"/disk/set a nvme-tcp-server-allow-host-name=nqn.of-{cuts}")
        assert [entry for entry in configfs.log if "ports" in entry] == [f"un{link}", link] * cuts
    # A data path that was cut stays cut.
    await rds.cut("a")
    await rds.run("/disk/set a nvme-tcp-server-allow-host-name=nqn.another")
    assert configfs.tree()["port 1"] == []


async def test_what_hosts_discard_is_free_again(rds: Simulator, loops: FakeLoops) -> None:
    loops.earlier = 4 * MIB  # the device's number had another file
    await rds.run(ADD)
    whole = rds.free("raid10")
    loops.discard(rds.path("raid10/a.img"), MIB // 2)
    assert rds.free("raid10") == whole + MIB // 2
    # It stays so when the export ends, and a file is never more than wholly empty.
    loops.discard(rds.path("raid10/a.img"), MIB // 4)
    await rds.run("/disk/set a nvme-tcp-export=no; /disk/set a nvme-tcp-export=yes")
    assert rds.free("raid10") == whole + 3 * MIB // 4
    loops.discard(rds.path("raid10/a.img"), MIB)
    await rds.run("/disk/remove a")
    assert rds.free("raid10") == whole + MIB
    await rds.run("/file/remove raid10/a.img")
    assert rds.free("raid10") == whole + MIB


async def test_cut_and_restore(rds: Simulator, configfs: FakeConfigFs) -> None:
    await rds.run(ADD)
    other = ADD.replace("slot=a", "slot=b").replace("a.img", "b.img").replace(":a", ":b")
    await rds.run(other)
    both = [NQN, NQN.replace(":a", ":b")]
    await rds.cut("a")
    assert configfs.tree()["port 1"] == both[1:]
    assert configfs.tree()["subsystems"] == both
    await rds.restore("a")
    assert configfs.tree()["port 1"] == both
    await rds.cut()
    assert configfs.tree()["port 1"] == []
    # What is changed or made while cut off stays cut off.
    await rds.run("/disk/set a nvme-tcp-server-allow-host-name=nqn.host")
    await rds.run("/disk/set b nvme-tcp-export=no; /disk/set b nvme-tcp-export=yes")
    await rds.run(ADD.replace("slot=a", "slot=c").replace("a.img", "c.img").replace(":a", ":c"))
    assert configfs.tree()["port 1"] == []
    await rds.restore()
    assert configfs.tree()["port 1"] == [*both, NQN.replace(":a", ":c")]
    await rds.cut("a")
    await rds.run("/disk/set a nvme-tcp-server-port=4421")
    assert NQN not in [*configfs.tree()["port 1"], *configfs.tree().get("port 2", [])]
    await rds.restore("a")
    assert configfs.tree()["port 2"] == [NQN]


async def test_each_export_has_other_identifiers(rds: Simulator, configfs: FakeConfigFs) -> None:
    await rds.run(ADD)
    names = ("attr_serial", "namespaces/1/device_uuid", "attr_cntlid_min")
    seen = [[attribute(configfs, NQN, name) for name in names]]
    await rds.run("/disk/set a nvme-tcp-export=no; /disk/set a nvme-tcp-export=yes")
    seen.append([attribute(configfs, NQN, name) for name in names])
    await rds.reboot()
    seen.append([attribute(configfs, NQN, name) for name in names])
    serials, uuids, controllers = map(set, zip(*seen, strict=True))
    assert (len(serials), len(uuids), len(controllers)) == (3, 3, 2)
    assert rds.namespaces["a"].uuid in uuids
    assert rds.namespaces["a"].serial in serials


async def test_a_kind_device_keeps_its_identifiers(rds: Simulator, configfs: FakeConfigFs) -> None:
    rds.quirks.stable_identifiers = True
    await rds.run(ADD)
    told = rds.namespaces["a"]
    await rds.reboot()
    await rds.run("/disk/set a nvme-tcp-export=no; /disk/set a nvme-tcp-export=yes")
    assert rds.namespaces["a"] == told
    assert attribute(configfs, NQN, "namespaces/1/device_uuid") == told.uuid
    # Another habit from now on does not touch what is exported.
    rds.quirks.stable_identifiers = False
    configfs.log.clear()
    await rds.run("/disk/set a comment=x")
    assert configfs.log == []


async def test_after_a_reboot_a_port_opens_with_its_first_export(
    rds: Simulator, configfs: FakeConfigFs
) -> None:
    await rds.run(ADD)
    other = ADD.replace("slot=a", "slot=b").replace("a.img", "b.img").replace(":a", ":b")
    await rds.run(other)
    rds.quirks.export_spacing = 0.05
    configfs.log.clear()
    await rds.reboot()
    # Its connections ended before anything else: nobody was refused while it went down.
    assert all(entry.startswith("unlink ports/1/") for entry in configfs.log[:2])
    links = [entry for entry in configfs.log if "link ports/1/subsystems/" in entry]
    assert [entry.split(" ")[0] for entry in links] == ["unlink", "unlink", "link"]
    assert configfs.tree()["port 1"] == [NQN]
    assert rds.waiting == {"b"}
    await rds.exports_up()
    assert configfs.tree()["port 1"] == [NQN, NQN.replace(":a", ":b")]
    assert rds.waiting == set()


async def test_what_a_killed_run_left_is_taken_over(tmp_path: Path, configfs: FakeConfigFs) -> None:
    loops = FakeLoops()
    killed = simulator(tmp_path / "rds", configfs, loops)
    await killed.start()
    await killed.run(ADD)
    await killed.run('/disk/set a nvme-tcp-server-allow-host-name="nqn.host"')
    await killed.server.stop()
    async with simulator(tmp_path / "rds", configfs, loops) as rds:
        assert rds.exported == {"a"}
        assert configfs.tree()["port 1"] == [NQN]
    # Its host is nobody's by now; we cannot know who made it.
    assert configfs.tree() == {"subsystems": [], "hosts": ["nqn.host"]}


async def test_what_others_made_is_never_touched(tmp_path: Path, configfs: FakeConfigFs) -> None:
    foreign = configfs.root / "subsystems" / NQN
    configfs.make(foreign)
    configfs.make(foreign / "namespaces" / "1")
    configfs.write(foreign / "namespaces/1/device_path", "/dev/sda")
    port = configfs.root / "ports" / "1"
    configfs.make(port)
    for name, value in {
        "addr_trtype": "tcp",
        "addr_adrfam": "ipv4",
        "addr_traddr": "192.0.2.1",
        "addr_trsvcid": "4420",
    }.items():
        configfs.write(port / name, value)
    configfs.link(port / "subsystems" / NQN, foreign)
    configfs.make(configfs.root / "hosts" / "nqn.host")
    before = configfs.tree()
    async with simulator(tmp_path / "rds", configfs) as rds:
        assert "nqn already in use" in await rds.run(ADD)
        assert rds.disks == {}
        await rds.run(ADD.replace(NQN, NQN + "2") + " nvme-tcp-server-allow-host-name=nqn.host")
        assert rds.exported == {"a"}
        assert configfs.tree()["port 1"] == [NQN, NQN + "2"]
    assert configfs.tree() == before
    assert configfs.read(foreign / "namespaces/1/device_path") == "/dev/sda"


@pytest.mark.parametrize("rename", ["closed", "open"])
async def test_a_new_name_is_a_new_subsystem(
    rds: Simulator, configfs: FakeConfigFs, rename: str
) -> None:
    """The kernel's target renames nothing: the old one goes first, and all its connections."""
    rds.quirks.set("rename", rename)
    await rds.run(ADD)
    new = f"{NQN}.1"
    configfs.log.clear()
    off = "/disk/set a nvme-tcp-export=no; " if rename == "closed" else ""
    line = f"{off}/disk/set a nvme-tcp-server-nqn={new}; /disk/set a nvme-tcp-export=yes"
    assert await rds.run(line) == ""
    assert configfs.tree() == {"subsystems": [new], "hosts": [], "port 1": [new]}
    gone = configfs.log.index(f"unlink ports/1/subsystems/{NQN}")
    assert gone < configfs.log.index(f"link ports/1/subsystems/{new}")


async def test_a_name_in_use_changes_nothing(rds: Simulator, configfs: FakeConfigFs) -> None:
    rds.quirks.rename = "open"
    await rds.run(ADD)
    await rds.run(
        "/disk/add type=file slot=b file-path=raid10/b.img file-size=1M nvme-tcp-export=yes"
    )
    before = configfs.tree()
    assert "in use" in await rds.run(f"/disk/set b nvme-tcp-server-nqn={NQN}")
    assert configfs.tree() == before
    assert rds.exported == {"a", "b"}
    assert "nvme-tcp-server-nqn" not in rds.disks["b"].properties


@pytest.mark.parametrize("name", ["enable", "device_path", "attr_allow_any_host"])
async def test_a_refusing_kernel_leaves_nothing_behind(
    rds: Simulator, configfs: FakeConfigFs, name: str
) -> None:
    configfs.failing.add(name)
    output = await rds.run(ADD)
    assert output.startswith("failure: could not export: Invalid argument")
    assert configfs.tree() == NOTHING
    assert rds.exported == set()
    assert rds.disks == {}
    assert await rds.run(ADD) == ""


async def test_an_unmounted_pool_ends_its_exports(rds: Simulator, configfs: FakeConfigFs) -> None:
    await rds.run(ADD)
    await rds.unmount_pool("raid10")
    assert configfs.tree()["subsystems"] == []
    await rds.mount_pool("raid10")
    assert configfs.tree()["subsystems"] == [NQN]


@pytest.mark.parametrize("possible", [True, False])
async def test_page_cache_only_where_direct_io_is_impossible(
    rds: Simulator, loops: FakeLoops, monkeypatch: pytest.MonkeyPatch, possible: bool
) -> None:
    real = os.open

    def without_direct_io(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT and not possible:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags & ~os.O_DIRECT, mode)

    monkeypatch.setattr(os, "open", without_direct_io)
    await rds.run(ADD)
    assert loops.direct == [possible]


async def test_the_stand_in_refuses_what_the_kernel_refuses(configfs: FakeConfigFs) -> None:
    subsystem = configfs.root / "subsystems" / "s"
    configfs.make(subsystem)
    configfs.make(configfs.root / "hosts" / "h")
    configfs.write(subsystem / "attr_allow_any_host", "1")
    with pytest.raises(OSError, match="Invalid"):
        configfs.link(subsystem / "allowed_hosts" / "h", configfs.root / "hosts" / "h")
    configfs.write(subsystem / "attr_allow_any_host", "0")
    configfs.link(subsystem / "allowed_hosts" / "h", configfs.root / "hosts" / "h")
    with pytest.raises(OSError, match="Invalid"):
        configfs.write(subsystem / "attr_allow_any_host", "1")
    for path in (subsystem, configfs.root / "hosts" / "h"):
        with pytest.raises(OSError, match="busy"):
            configfs.remove(path)
    with pytest.raises(FileNotFoundError):
        configfs.write(subsystem / "attr_nope", "1")
