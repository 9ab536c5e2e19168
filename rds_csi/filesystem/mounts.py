"""The kernel's mount table, and the few acts that change it.

The table (``/proc/self/mountinfo``, see ``proc_pid_mountinfo(5)``) is the truth: each act is
checked in it afterwards, because ``mount`` and ``umount`` may be killed half-way or find that
somebody else was there before. Nothing here forces an unmount or detaches lazily: either would
cut off writers that still hold data.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from rds_csi.errors import CommandFailed, Internal, VolumeInUse
from rds_csi.filesystem.kept import Kept, MountEvents
from rds_csi.model.block_device import DeviceNumber
from rds_csi.runtime.process import Runner

log = structlog.get_logger(__name__)

_ODD: Final = re.compile(rb"[\s\\#]")
_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2})")
_FLAGS_OF_A_MOUNT: Final = frozenset(
    {"nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"}
)
"""Flags that belong to one mount and not to the file system. Remounting a bind mount sets all of
them anew, so those that shall stay are repeated (``mount(2)``, MS_REMOUNT with MS_BIND)."""
_TIMEOUT: Final = 60.0
"""Seconds for one ``mount`` or ``umount``."""
_DEEPEST_STACK: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of the table.

    ``devno`` is the device of the file system, ``root`` the directory or file in it that is
    seen at ``point``. ``options`` belong to this mount, ``super_options`` to the file system.
    """

    devno: DeviceNumber
    root: str
    point: str
    options: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]
    tags: tuple[str, ...] = ()
    """How mounts propagate: ``shared:N``, ``master:N``; private without any."""

    @property
    def shared(self) -> bool:
        """Whether mounts below it are seen elsewhere too, as the kubelet must see ours."""
        return any(tag.startswith("shared:") for tag in self.tags)

    @property
    def read_only(self) -> bool:
        """Whether this mount was made read-only."""
        return "ro" in self.options

    @property
    def file_system_read_only(self) -> bool:
        """Whether the file system takes no writes: mounted so, or the kernel met an error."""
        return "ro" in self.super_options


def parse(content: bytes) -> list[Mount]:
    """The lines of a table in their order, which is that of mounting.

    Takes bytes, because a path may hold any byte but NUL: what is not UTF-8 survives as
    surrogates (``os.fsdecode``). A line that is none is passed over and logged.
    """
    mounts = []
    for line in content.split(b"\n"):
        if not line:
            continue
        mount = _parse_line(line)
        if mount is None:
            log.warning("unreadable line in the mount table", line=repr(line[:300]))
        else:
            mounts.append(mount)
    return mounts


def _parse_line(line: bytes) -> Mount | None:
    # 36 35 98:0 /root /point options [tag[:value]...] - type source super-options
    fields = line.split(b" ")
    try:
        separator = fields.index(b"-", 6)
        major, minor = fields[2].split(b":")
        fs_type, source, super_options = fields[separator + 1 : separator + 4]
        return Mount(
            devno=(int(major), int(minor)),
            root=_unescape(fields[3]),
            point=_unescape(fields[4]),
            options=tuple(_unescape(fields[5]).split(",")),
            fs_type=_unescape(fs_type),
            source=_unescape(source),
            super_options=tuple(_unescape(super_options).split(",")),
            tags=tuple(os.fsdecode(tag) for tag in fields[6:separator]),
        )
    except ValueError:
        return None


def _unescape(field: bytes) -> str:
    # The kernel writes space, tab, newline, '#' and backslash as three octal digits.
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field))


class MountTable:
    """The mount table at one moment: read once, asked as often as it takes.

    A node has thousands of lines, and a call asks for a few. So lines are searched as bytes and
    only those found are parsed. For ``many`` questions an index is made first; it takes as long
    as some twenty searches.
    """

    def __init__(self, content: bytes, *, many: bool = False) -> None:
        self._content = content
        self._index = _index(content) if many else None
        self._found: dict[str, list[Mount]] = {}

    def all(self) -> list[Mount]:
        """The whole table."""
        return parse(self._content)

    def at(self, point: str) -> list[Mount]:
        """The mounts exactly at ``point``, the visible one last; never that of a parent."""
        return [mount for mount in self._lines_with(point) if mount.point == point]

    def covering(self, path: Path) -> Mount | None:
        """The mount through which ``path`` is seen; None where the table shows none."""
        found = (self.at(str(point)) for point in (path, *path.parents))
        return next((mounts[-1] for mounts in found if mounts), None)

    def of_file_system(self, devno: DeviceNumber) -> list[Mount]:
        """The mounts of the file system on a block device."""
        found = self._lines_with(f"{devno[0]}:{devno[1]}")
        return [mount for mount in found if mount.devno == devno]

    def of_node(self, node: Path) -> list[Mount]:
        """The bind mounts of a device node itself: raw block volumes that are published.

        Such a mount has the file system that holds the node (devtmpfs) as its device, and the
        node's path in there as its root. The node of a device that is gone matches no more: the
        kernel adds ``//deleted`` to its root.
        """
        holder = self.covering(node)
        if holder is None:
            return []
        root = _path_inside(holder, node)
        return [
            mount
            for mount in self._lines_with(root)
            if (mount.devno, mount.root) == (holder.devno, root)
        ]

    def uses(self, devno: DeviceNumber) -> bool:
        """Whether the device is mounted, as a file system or as a raw block volume."""
        if self.of_file_system(devno):
            return True
        try:
            name = Path(f"/sys/dev/block/{devno[0]}:{devno[1]}").readlink().name
        except FileNotFoundError:
            return False  # the device is gone, and a bind mount of its node shows nothing
        return bool(self.of_node(Path("/dev", name)))

    def _lines_with(self, text: str) -> list[Mount]:
        """The lines with ``text`` as number, root or point, and perhaps others, in their order."""
        if text not in self._found:
            field = os.fsencode(text)
            if not field or _ODD.search(field):
                # Kernels differ in what they escape, so how it is written is not known.
                self._found[text] = self.all()
            elif self._index is not None:
                self._found[text] = parse(b"\n".join(self._index.get(field, ())))
            else:
                self._found[text] = parse(b"\n".join(_search(self._content, field)))
        return self._found[text]


class Mounts:
    """The mount table as this process sees it, read anew for every question but :meth:`lately`.

    ``changed`` tells whether the table has changed since it was last asked.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        table: Path = Path("/proc/self/mountinfo"),
        changed: Callable[[], bool] | None = None,
    ) -> None:
        self._runner = runner
        self._table = table
        self._kept = Kept(lambda: self.look(many=True), changed or MountEvents(table))

    def lately(self) -> MountTable:
        """The table of this moment, for an answer and for no act: see :mod:`.kept`.

        Only a file system that the kernel made read-only may be seen up to ten seconds late.
        """
        return self._kept.get()

    def look(self, *, many: bool = False) -> MountTable:
        """The table of this moment, for several questions, or ``many``."""
        return MountTable(self._table.read_bytes(), many=many)

    def all(self) -> list[Mount]:
        """The whole table."""
        return self.look().all()

    def at(self, point: str) -> list[Mount]:
        """See :meth:`MountTable.at`."""
        return self.look().at(point)

    def covering(self, path: Path) -> Mount | None:
        """See :meth:`MountTable.covering`."""
        return self.look().covering(path)

    def of_file_system(self, devno: DeviceNumber) -> list[Mount]:
        """See :meth:`MountTable.of_file_system`."""
        return self.look().of_file_system(devno)

    def of_node(self, node: Path) -> list[Mount]:
        """See :meth:`MountTable.of_node`."""
        return self.look().of_node(node)

    def uses(self, devno: DeviceNumber) -> bool:
        """See :meth:`MountTable.uses`."""
        return self.look().uses(devno)

    def visible(self, point: str, volume: str) -> Mount:
        """What was just mounted at ``point``; :class:`Internal` if the table shows nothing."""
        found = self.at(point)
        if not found:
            raise Internal(f"mount reported success but nothing is at {point}", volume=volume)
        return found[-1]

    async def bind(self, source: str, point: str, *, read_only: bool, volume: str) -> Mount:
        """Show the directory ``source`` at ``point`` as well.

        The flags of the source's mount stay. Raises :class:`Internal` if the table does not
        show the mount, or shows it writable although it was to be read-only.
        """
        await self._run(["mount", "--bind", source, point], volume)
        mount = self.visible(point, volume)
        if not read_only:
            return mount
        return await self.make_read_only(mount, volume=volume)

    async def make_read_only(self, mount: Mount, *, volume: str) -> Mount:
        """Make one bind mount read-only; the file system's other mounts stay as they are."""
        kept = [flag for flag in mount.options if flag in _FLAGS_OF_A_MOUNT]
        await self._run(
            ["mount", "-o", ",".join(["remount", "bind", "ro", *kept]), mount.point], volume
        )
        changed = self.visible(mount.point, volume)
        if not changed.read_only:
            raise Internal(f"the mount at {mount.point} did not become read-only", volume=volume)
        return changed

    async def unmount(self, point: str, *, volume: str) -> None:
        """Unmount everything at ``point``; returns when the table shows nothing there.

        Usually that is one mount or none. Other drivers stacked a new bind mount on each
        repeated publish, so there may be more. Raises :class:`VolumeInUse` where the kernel
        says that files are open.
        """
        for _ in range(_DEEPEST_STACK):
            before = len(self.at(point))
            if not before:
                return
            try:
                await self._run(["umount", point], volume)
            except CommandFailed as error:
                if "busy" not in error.stderr:
                    raise
                raise VolumeInUse(
                    f"{point} cannot be unmounted: {error.stderr.strip()}",
                    volume=volume,
                    advice="a process on the node still uses it",
                ) from error
            if len(self.at(point)) >= before:
                raise Internal(
                    f"umount {point} reported success but unmounted nothing", volume=volume
                )
        raise Internal(f"more than {_DEEPEST_STACK} mounts at {point}", volume=volume)

    async def _run(self, args: Sequence[str], volume: str) -> None:
        await self._runner.run(args, timeout=_TIMEOUT, volume=volume)


def _index(content: bytes) -> dict[bytes, list[bytes]]:
    """The lines by each of the fields that are asked for: number, root, point."""
    index: dict[bytes, list[bytes]] = {}
    for line in content.split(b"\n"):
        for field in dict.fromkeys(line.split(b" ", 5)[2:5]):
            index.setdefault(field, []).append(line)
    return index


def _search(content: bytes, field: bytes) -> Iterator[bytes]:
    """The lines that have this field somewhere behind the first."""
    needle, start = b" " + field + b" ", 0
    while (found := content.find(needle, start)) >= 0:
        begin = content.rfind(b"\n", 0, found) + 1
        end = content.find(b"\n", found)
        start = end if end >= 0 else len(content)
        yield content[begin:start]


def _path_inside(mount: Mount, path: Path) -> str:
    return str(Path(mount.root) / path.relative_to(mount.point))
