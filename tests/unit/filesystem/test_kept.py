"""A mount table that is read again when it has changed, or when it is too old to be believed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rds_csi.filesystem.kept import LONGEST, Kept, MountEvents
from rds_csi.filesystem.mounts import Mounts
from tests.unit.fakes.reads import counted
from tests.unit.fakes.runner import FakeRunner


class World:
    """A number that changes, with or without a word, and a clock."""

    def __init__(self) -> None:
        self.value = 1
        self.now = 100.0
        self.told = False
        self.reads = 0
        self.fails = False
        self.kept = Kept(self.read, self.changed, now=lambda: self.now)

    def read(self) -> int:
        self.reads += 1
        if self.fails:
            raise OSError("not now")
        return self.value

    def changed(self) -> bool:
        told, self.told = self.told, False
        return told


@pytest.fixture
def world() -> World:
    return World()


def test_what_does_not_change_is_read_once(world: World) -> None:
    assert [world.kept.get() for _ in range(200)] == [1] * 200
    assert world.reads == 1


def test_what_changed_is_read_at_once_and_once(world: World) -> None:
    world.kept.get()
    world.value, world.told = 2, True
    assert [world.kept.get() for _ in range(3)] == [2] * 3
    assert world.reads == 2


@pytest.mark.parametrize("passed", [LONGEST, 1e9, -1.0])
def test_what_changes_without_a_word_is_seen_later(world: World, passed: float) -> None:
    """Also where the clock is none."""
    world.kept.get()
    world.value = 2
    world.now += LONGEST - 0.1
    assert world.kept.get() == 1
    world.now = 100.0 + passed
    assert world.kept.get() == 2


def test_a_change_that_could_not_be_read_is_not_forgotten(world: World) -> None:
    world.kept.get()
    world.value, world.told, world.fails = 2, True, True
    with pytest.raises(OSError, match="not now"):
        world.kept.get()
    world.fails = False
    assert world.kept.get() == 2


def test_a_change_while_it_is_read_is_seen_at_the_next_look(world: World) -> None:
    """The event is taken before the content: never an old content with no event left."""
    order: list[str] = []

    def changed() -> bool:
        order.append("asked")
        return False

    def read() -> int:
        order.append("read")
        return 1

    Kept(read, changed).get()
    assert order == ["asked", "read"]


def test_a_plain_file_is_read_each_time(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("1 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    mounts = Mounts(FakeRunner(), table=table)
    with counted(tmp_path) as counts:
        assert mounts.lately().at("/")
        table.write_text("")
        assert not mounts.lately().at("/")
    assert counts["mountinfo"] >= 2


def test_the_table_that_has_not_changed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("1 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    mounts = Mounts(FakeRunner(), table=tmp_path / "mountinfo", changed=lambda: False)
    with counted(tmp_path) as counts:
        tables = {id(mounts.lately()) for _ in range(200)}
    assert (len(tables), counts["mountinfo"]) == (1, 1)


def test_no_table_is_an_error_and_no_empty_one(tmp_path: Path) -> None:
    mounts = Mounts(FakeRunner(), table=tmp_path / "none")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            mounts.lately()


KERNEL = """
import ctypes, os, sys
from pathlib import Path
from rds_csi.filesystem.mounts import Mounts
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, point, kind, flags):
    if libc.mount(source, os.fsencode(point), kind, flags, None):
        raise OSError(ctypes.get_errno(), point)
READ_ONLY, REMOUNT, BIND, REC, PRIVATE = 1, 32, 4096, 16384, 1 << 18
libc.unshare(0x00020000) and sys.exit(77)
try:
    mount(None, "/", None, REC | PRIVATE)
    mount(b"none", sys.argv[1], b"tmpfs", 0)
except PermissionError:
    sys.exit(77)
reads = 0
class Counted(Mounts):
    def look(self, *, many=False):
        global reads
        reads += 1
        return super().look(many=many)
mounts, point = Counted(None), sys.argv[1]
assert len(mounts.lately().at(point)) == 1
mounts.lately(); mounts.lately()
assert reads <= 2, reads
os.mkdir(point + "/a"); os.mkdir(point + "/b")
mount(b"none", point + "/a", b"tmpfs", 0)
assert mounts.lately().at(point + "/a")
mount(os.fsencode(point + "/a"), point + "/b", None, BIND)
assert not mounts.lately().at(point + "/b")[-1].read_only
mount(None, point + "/b", None, BIND | REMOUNT | READ_ONLY)
assert mounts.lately().at(point + "/b")[-1].read_only
libc.umount2(os.fsencode(point + "/b"), 0)
assert not mounts.lately().at(point + "/b")
before = reads
for _ in range(50):
    mounts.lately()
assert reads == before, (reads, before)
"""

PROPAGATED = """
import ctypes, os, sys
from pathlib import Path
from rds_csi.filesystem.mounts import Mounts
libc = ctypes.CDLL(None, use_errno=True)
def call(done):
    if done:
        sys.exit(77)
def mount(source, point, kind, flags):
    call(libc.mount(source, os.fsencode(point), kind, flags, None))
NEW, REC, PRIVATE, SLAVE, SHARED = 0x00020000, 16384, 1 << 18, 1 << 19, 1 << 20
point = sys.argv[1]
call(libc.unshare(NEW))
mount(None, "/", None, REC | PRIVATE)
mount(b"none", point, b"tmpfs", 0)
mount(None, point, None, SHARED)
os.mkdir(point + "/a")
asks, answers = os.pipe(), os.pipe()
if os.fork() == 0:
    call(libc.unshare(NEW))
    mount(None, point, None, SLAVE)
    mounts = Mounts(None)
    mounts.lately(); mounts.lately()
    os.write(answers[1], b"r")
    for wanted in (True, False):
        os.read(asks[0], 1)
        right = bool(mounts.lately().at(point + "/a")) == wanted
        os.write(answers[1], b"y" if right else b"n")
    os._exit(0)
os.close(answers[1])
told = os.read(answers[0], 1)
if told:
    mount(b"none", point + "/a", b"tmpfs", 0)
    os.write(asks[1], b"?")
    told += os.read(answers[0], 1)
    call(libc.umount2(os.fsencode(point + "/a"), 0))
    os.write(asks[1], b"?")
    told += os.read(answers[0], 1)
status = os.waitstatus_to_exitcode(os.wait()[1])
sys.exit(status if status else 0 if told == b"ryy" else f"the other namespace said {told}")
"""


@pytest.fixture
def point(tmp_path: Path) -> Path:
    (tmp_path / "point").mkdir()
    return tmp_path / "point"


@pytest.mark.parametrize("program", [KERNEL, PROPAGATED], ids=["own", "propagated"])
def test_the_kernel_tells_of_each_mount_remount_and_unmount(point: Path, program: str) -> None:
    """Also of those that another mount namespace made, as the host's reach the driver's container.

    In mount namespaces of its own, where the machine allows them.
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(point)],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 77:
        pytest.skip("no mount namespace can be made here")
    assert done.returncode == 0, done.stderr


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_the_table_is_let_go() -> None:
    before = open_files()
    events = MountEvents(Path("/proc/self/mountinfo"))
    assert events()
    assert open_files() == before + 2
    events.close()
    events.close()
    assert open_files() == before
