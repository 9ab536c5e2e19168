"""The mount table: its parser, and the acts that are believed only when it shows them."""

import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rds_csi.errors import CommandFailed, Internal, VolumeInUse
from rds_csi.filesystem.mounts import Mount, Mounts, MountTable, parse
from rds_csi.runtime.process import Result
from tests.unit.fakes.mounts import FakeMountTable, FileSystem
from tests.unit.fakes.runner import FakeRunner

MANUAL = (
    b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
    b"23 28 0:22 / /sys rw,relatime - sysfs sysfs rw\n"
)


def test_the_example_of_the_manual() -> None:
    mount, plain = parse(MANUAL)
    assert mount.devno == (98, 0)
    assert (mount.root, mount.point) == ("/mnt1", "/mnt2")
    assert mount.options == ("rw", "noatime")
    assert (mount.fs_type, mount.source) == ("ext3", "/dev/root")
    assert mount.super_options == ("rw", "errors=continue")
    assert (plain.point, plain.read_only, plain.file_system_read_only) == ("/sys", False, False)


def escaped(path: bytes) -> bytes:
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in path)


paths = (
    st.binary(min_size=1, max_size=40)
    .filter(lambda path: b"\0" not in path)
    .map(lambda path: b"/" + path)
)
words = st.text(string.ascii_lowercase, min_size=1, max_size=8).map(str.encode)


@given(
    root=paths,
    point=paths,
    source=paths,
    tags=st.lists(words.map(lambda word: word + b":7"), max_size=3),
    devno=st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
)
def test_any_path_comes_through(
    root: bytes, point: bytes, source: bytes, tags: list[bytes], devno: tuple[int, int]
) -> None:
    fields = [
        b"36", b"35", b"%d:%d" % devno, escaped(root), escaped(point), b"ro,nosuid", *tags, b"-",
        b"ext4", escaped(source), b"ro",
    ]  # fmt: skip
    (mount,) = parse(b" ".join(fields) + b"\n")
    assert os.fsencode(mount.root) == root
    assert os.fsencode(mount.point) == point
    assert os.fsencode(mount.source) == source
    assert mount.devno == devno
    assert mount.read_only
    assert mount.file_system_read_only


few_paths = st.sampled_from(
    [
        *(b"/", b"/a", b"/a/b", b"/dev", b"/dev/nvme0n1", b"/nvme0n1", b"259:1", b"ext4"),
        *(b"/a b", b"/a\\b", b"/a#", b"/\xff", b"/nvme0n1//deleted"),
    ]
)
entries = st.tuples(st.sampled_from([(0, 6), (259, 1), (259, 11), (9, 1)]), few_paths, few_paths)


def deepest(table: Sequence[Mount], path: Path) -> Mount | None:
    found = [
        (len(mount.point), number)
        for number, mount in enumerate(table)
        if path.is_relative_to(mount.point)
    ]
    return table[max(found)[1]] if found else None


@given(
    entries=st.lists(entries, max_size=8),
    hash_escaped=st.booleans(),
    many=st.booleans(),
    path=few_paths.map(os.fsdecode),
)
def test_a_table_finds_what_reading_every_line_finds(
    entries: list[tuple[tuple[int, int], bytes, bytes]], hash_escaped: bool, many: bool, path: str
) -> None:
    lines = [
        b"1 1 %d:%d %s %s rw - ext4 %s rw" % (*devno, escaped(root), escaped(point), escaped(root))
        for devno, root, point in entries
    ]
    content = b"\n".join(lines)
    if not hash_escaped:  # older kernels write it as it is
        content = content.replace(b"\\043", b"#")
    table, every = MountTable(content, many=many), parse(content)
    assert table.at(path) == [mount for mount in every if mount.point == path]
    for devno in [(0, 6), (259, 1), (259, 11), (9, 1)]:
        assert table.of_file_system(devno) == [each for each in every if each.devno == devno]
    if not path.startswith("/") or "//" in path:
        return  # not a path that can be seen through a mount
    holder = deepest(every, Path(path))
    assert table.covering(Path(path)) == holder
    if holder is not None:
        root = str(Path(holder.root) / Path(path).relative_to(holder.point))
        assert table.of_node(Path(path)) == [
            each for each in every if (each.devno, each.root) == (holder.devno, root)
        ]


@given(st.binary())
def test_no_content_raises(content: bytes) -> None:
    parse(content)


@pytest.mark.parametrize(
    "line",
    [
        b"36",
        b"36 35 98:0 /a /b rw - ext4",
        b"36 35 98 /a /b rw - ext4 /dev/x rw",
        b"36 35 98:x /a /b rw - ext4 /dev/x rw",
        b"36 35 98:0 /a /b rw ext4 /dev/x rw",
    ],
)
def test_a_line_that_is_none_does_not_hide_the_others(line: bytes) -> None:
    assert [mount.point for mount in parse(line + b"\n" + MANUAL)] == ["/mnt2", "/sys"]


class Host(FakeRunner):
    """Real directories, a table like the kernel's, and one device with ext4."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.dev = root / "dev"
        self.dev.mkdir()
        self.node = self.dev / "nvme0n1"
        self.node.touch()
        self.stage = root / "stage"
        self.stage.mkdir()
        self.target = root / "target"
        self.target.mkdir()
        self.file = root / "file"
        self.file.touch()
        self.disk: FileSystem | None = FileSystem((259, 3), "ext4")
        self.table = FakeMountTable(
            root / "mountinfo", dev=self.dev, file_system=lambda _device: self.disk
        )
        self.lies = False

    async def run(
        self,
        args: Sequence[str],
        *,
        timeout: float,  # noqa: ASYNC109 - the port of rds_csi.runtime.process
        volume: str = "",
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        result = Result(0, "", "") if self.lies else self.table.run(args)
        self.on(args[0], result=result, times=1)
        return await super().run(
            args, timeout=timeout, volume=volume, check=check, environment=environment
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def mounts(host: Host) -> Mounts:
    return Mounts(host, table=host.table.path)


async def mount(mounts: Mounts, host: Host, options: Sequence[str] = ("rw",)) -> None:
    words = ["mount", "-t", "ext4", "-o", ",".join(options), str(host.node), str(host.stage)]
    await host.run(words, timeout=1)
    assert host.lies or mounts.at(str(host.stage))


async def test_mount_bind_unmount(mounts: Mounts, host: Host) -> None:
    await mount(mounts, host, ("rw", "noatime", "discard"))
    (staged,) = mounts.at(str(host.stage))
    assert (staged.devno, staged.root) == ((259, 3), "/")
    bound = await mounts.bind(str(host.stage), str(host.target), read_only=False, volume="pvc-1")
    assert (bound.devno, bound.root, bound.options) == ((259, 3), "/", ("rw", "noatime"))
    assert [mount.point for mount in mounts.of_file_system((259, 3))] == [
        str(host.stage), str(host.target),
    ]  # fmt: skip
    await mounts.unmount(str(host.target), volume="pvc-1")
    await mounts.unmount(str(host.stage), volume="pvc-1")
    await mounts.unmount(str(host.stage), volume="pvc-1")
    assert host.table.points() == []
    assert len(host.asked("umount")) == 2


async def test_a_read_only_bind_keeps_the_flags_of_the_mount(mounts: Mounts, host: Host) -> None:
    await mount(mounts, host, ("rw", "noatime", "nosuid"))
    bound = await mounts.bind(str(host.stage), str(host.target), read_only=True, volume="pvc-1")
    assert set(bound.options) == {"ro", "noatime", "nosuid"}
    assert bound.read_only
    assert not bound.file_system_read_only
    assert not mounts.at(str(host.stage))[0].read_only


async def test_a_device_node_is_found_wherever_it_is_bound(mounts: Mounts, host: Host) -> None:
    await mounts.bind(str(host.node), str(host.file), read_only=False, volume="pvc-1")
    (found,) = mounts.of_node(host.node)
    assert found.point == str(host.file)
    assert mounts.of_node(host.dev / "nvme1n1") == []
    assert mounts.of_file_system((259, 3)) == []
    host.table.unplug(str(host.node))
    assert mounts.of_node(host.node) == []


async def test_only_the_point_itself_counts_not_its_parent(mounts: Mounts, host: Host) -> None:
    await mount(mounts, host)
    assert mounts.at(str(host.stage / "below")) == []
    assert mounts.at(f"{host.stage}-sibling") == []


async def test_a_stack_is_unmounted_to_the_ground(mounts: Mounts, host: Host) -> None:
    await mount(mounts, host)
    for _ in range(3):
        host.table.stack(str(host.stage))
    await mounts.unmount(str(host.stage), volume="pvc-1")
    assert host.table.points() == []


async def test_busy_is_said_and_nothing_is_forced(mounts: Mounts, host: Host) -> None:
    await mount(mounts, host)
    host.table.busy.add(str(host.stage))
    with pytest.raises(VolumeInUse, match="busy"):
        await mounts.unmount(str(host.stage), volume="pvc-1")
    assert host.table.points() == [str(host.stage)]
    assert [call.args for call in host.asked("umount")] == [("umount", str(host.stage))]


async def test_success_that_the_table_does_not_show_is_none(mounts: Mounts, host: Host) -> None:
    host.lies = True
    with pytest.raises(Internal, match="nothing is at"):
        await mounts.bind(str(host.stage), str(host.target), read_only=False, volume="pvc-1")
    host.lies = False
    await mount(mounts, host)
    host.lies = True
    with pytest.raises(Internal, match="unmounted nothing"):
        await mounts.unmount(str(host.stage), volume="pvc-1")
    with pytest.raises(Internal, match="did not become read-only"):
        await mounts.make_read_only(mounts.at(str(host.stage))[0], volume="pvc-1")


async def test_another_failure_of_umount_is_kept(mounts: Mounts, host: Host) -> None:
    await mount(mounts, host)
    stale = Mounts(host, table=host.table.path)
    host.table.entries.pop()  # gone meanwhile, though the file still shows it
    with pytest.raises(CommandFailed, match="not mounted"):
        await stale.unmount(str(host.stage), volume="pvc-1")


def test_the_table_of_this_machine_is_read() -> None:
    assert "/" in [mount.point for mount in Mounts(FakeRunner()).all()]
