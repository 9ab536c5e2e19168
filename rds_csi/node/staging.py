"""What this node remembers of the volumes staged on it: one small file for each.

The files lie in a directory of the host, so they outlive the pod, and are hints: the kernel
decides what is connected and mounted. They are needed for what the kernel cannot tell: how a
volume was staged and published when asked again, of which hand-over that is, which connections
of an idle raw block volume are ours, and that a format was begun and not finished.
"""

import asyncio
import builtins
import json
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import aiofiles
import aiofiles.os
import structlog

from rds_csi.errors import InvalidParameter
from rds_csi.model.data_addresses import read_addresses
from rds_csi.model.parameters import ConnectionConfig
from rds_csi.model.volume import check_volume_id, is_volume_id, read_nqn

T = TypeVar("T")
log = structlog.get_logger(__name__)

_VERSION: Final = 1
_LARGEST: Final = 1024 * 1024
"""Bytes; a file beyond that is not ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedVolume:
    """One volume.

    ``fs_type`` is empty for raw block. ``staging_path`` is empty when it is not staged and only
    ``formatting`` or ``lost`` has to be kept. ``read_only``: nobody on this node may write.
    ``formatting`` is the UUID of a file system whose ``mkfs`` was begun
    (:mod:`rds_csi.filesystem.format`); it is removed before the first mount. ``targets`` are the
    published paths, each with whether it is read-only.

    ``generation`` is that of the volume's hand-overs under which it was connected and mounted
    (:mod:`rds_csi.node.handover`); None where it is not known, as in records of versions that
    did not count them, which read these and drop the number. ``superseded`` is a later one that
    a call has named since.

    What brings its connection back when the kernel has given it up: ``connection`` are the settings
    of its class by their keys, ``pinned`` whether its class names the address, so that no setting
    of this node replaces it, and ``uuid`` the file system's own, by which what comes back is known.

    ``exclusive``: no other node may have it at the same time; False also in records of versions
    that did not say.

    ``lost`` is the file system that was on it and was not there any more when it was staged
    (:mod:`rds_csi.node.contents`); ``ungrown`` why its file system could not be grown.
    """

    volume: str
    nqn: str
    address: str
    port: int
    staging_path: str
    fs_type: str = ""
    read_only: bool = False
    mount_flags: tuple[str, ...] = ()
    formatting: str = ""
    targets: tuple[tuple[str, bool], ...] = ()
    generation: int | None = None
    superseded: int | None = None
    connection: tuple[tuple[str, str], ...] = ()
    pinned: bool = False
    uuid: str = ""
    exclusive: bool = False
    lost: str = ""
    ungrown: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The data addresses of its RDS; none where a record says what never was one."""
        try:
            return read_addresses("address", self.address)
        except InvalidParameter:
            return ()

    @property
    def config(self) -> ConnectionConfig:
        """The settings of its class; :class:`InvalidParameter` for one that never was."""
        return ConnectionConfig.from_parameters(dict(self.connection))

    @property
    def staged(self) -> bool:
        """Whether it is more than what has to be remembered of a format or a loss."""
        return bool(self.staging_path)

    def unstaged(self) -> Self:
        """What has to be remembered when it is not staged any more."""
        return replace(
            self,
            staging_path="",
            targets=(),
            generation=None,
            superseded=None,
            uuid="",
            ungrown="",
        )

    def target(self, path: str) -> bool | None:
        """Whether the target at ``path`` is read-only, or None for no such target."""
        return dict(self.targets).get(path)

    def with_target(self, path: str, read_only: bool) -> Self:
        """The same with one more target."""
        return replace(self, targets=(*self.without_target(path).targets, (path, read_only)))

    def without_target(self, path: str) -> Self:
        """The same without that target."""
        return replace(self, targets=tuple(each for each in self.targets if each[0] != path))

    def encode(self) -> bytes:
        """The file's content."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """The volume in a file's content; raises ValueError for anything that we did not write.

        Fields we do not know are passed over: a later version may have written them.
        """
        values = json.loads(content)
        if not isinstance(values, dict) or values.get("version") != _VERSION:
            raise ValueError("no record of this version")
        known = {name: read(values[name]) for name, read in _FIELDS.items() if name in values}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(str(error)) from None


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"{value!r} is no {kind.__name__}")
        return value

    return read


_text: Final = _exactly(str)
_truth: Final = _exactly(bool)
_list: Final = _exactly(list)
_number: Final = _exactly(int)


def _perhaps(value: Any) -> int | None:
    return None if value is None else int(_number(value))


def _pair(value: Any) -> tuple[str, str]:
    key, text = _list(value)
    return _text(key), _text(text)


def _target(value: Any) -> tuple[str, bool]:
    path, read_only = _list(value)
    return _text(path), _truth(read_only)


_FIELDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "volume": _text,
    "nqn": _text,
    "address": _text,
    "port": _number,
    "staging_path": _text,
    "fs_type": _text,
    "read_only": _truth,
    "mount_flags": lambda value: tuple(_text(flag) for flag in _list(value)),
    "formatting": _text,
    "targets": lambda value: tuple(_target(each) for each in _list(value)),
    "generation": _perhaps,
    "superseded": _perhaps,
    "connection": lambda value: tuple(_pair(each) for each in _list(value)),
    "pinned": _truth,
    "uuid": _text,
    "exclusive": _truth,
    "lost": _text,
    "ungrown": _text,
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """The NQNs that may be those of something staged.

    A readable record speaks for the one NQN in it, generation and all. An unreadable one speaks
    for every NQN of the volume that its file is named after.
    """

    nqns: frozenset[str]
    unreadable: frozenset[str]

    def __contains__(self, nqn: object) -> bool:
        """Whether it may be."""
        name = read_nqn(str(nqn))
        return nqn in self.nqns or (name is not None and name.volume in self.unreadable)


class StagingStore:
    """The files of one state directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def read(self, volume: str) -> StagedVolume | None:
        """The volume, or None where there is none or its file is unreadable (logged)."""
        return await asyncio.to_thread(self._read, volume)

    def _read(self, volume: str) -> StagedVolume | None:
        path = self._path(volume)
        try:
            with path.open("rb") as file:
                staged = StagedVolume.parse(file.read(_LARGEST))
            if staged.volume != volume:
                raise ValueError(f"it is of volume {staged.volume!r}")  # noqa: TRY301 - as below
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            # No record is the safe reading: nothing is formatted or removed for want of one.
            log.warning("unreadable staging record", path=str(path), error=str(error)[:300])
            return None
        return staged

    async def write(self, staged: StagedVolume) -> None:
        """Keep the volume: when this returns, the file survives a power cut.

        Runs to its end even when the caller is cancelled: a write that is still under way
        must not overtake the next call's.
        """
        await _to_its_end(self._write(self._path(staged.volume), staged.encode()))

    async def delete(self, volume: str) -> None:
        """Forget the volume, durably; none is fine."""
        await _to_its_end(self._delete(self._path(volume)))

    async def list(self) -> list[StagedVolume]:
        """Every readable record, in the order of volume ids."""
        found = await asyncio.to_thread(self._read_all)
        return [staged for staged in found.values() if staged is not None]

    async def recorded(self) -> "Recorded":
        """The NQNs of what may be staged. Raises OSError if the directory cannot be read."""
        records = await asyncio.to_thread(self._read_all)
        return Recorded(
            frozenset(each.nqn for each in records.values() if each is not None and each.staged),
            frozenset(volume for volume, each in records.items() if each is None),
        )

    def _read_all(self) -> dict[str, StagedVolume | None]:
        """Every record by the volume id that its file is named after; takes a while."""
        return {volume: self._read(volume) for volume in self._volumes()}

    def _volumes(self) -> builtins.list[str]:
        try:
            names = os.listdir(self._directory)  # noqa: PTH208 - names are all that is asked
        except FileNotFoundError:
            return []
        volumes = (name.removesuffix(".json") for name in names if name.endswith(".json"))
        return sorted(volume for volume in volumes if is_volume_id(volume))

    def _path(self, volume: str) -> Path:
        return self._directory / f"{check_volume_id(volume)}.json"

    async def _write(self, path: Path, content: bytes) -> None:
        await aiofiles.os.makedirs(self._directory, mode=0o700, exist_ok=True)
        # One writer per volume: the callers hold the volume's lock.
        temporary = path.with_suffix(".tmp")
        async with aiofiles.open(temporary, "wb") as file:
            await file.write(content)
            await file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        await aiofiles.os.replace(temporary, path)
        await asyncio.to_thread(_sync_directory, self._directory)

    async def _delete(self, path: Path) -> None:
        try:
            await aiofiles.os.unlink(path)
        except FileNotFoundError:
            return
        await asyncio.to_thread(_sync_directory, self._directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``; a cancelled caller is let go only when it has ended."""
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancellation = cancellation or error
    if cancellation is not None:
        if not task.cancelled() and task.exception() is not None:
            log.warning("unfinished while being cancelled", error=str(task.exception()))
        raise cancellation
    return task.result()
