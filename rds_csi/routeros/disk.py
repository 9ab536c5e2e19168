"""What the RDS says of a disk, in our terms."""

from dataclasses import dataclass
from typing import Any, Self

from rds_csi.errors import OutcomeUnknown, RouterOSError, VolumeInUse
from rds_csi.model.access import FILE_SYSTEMS
from rds_csi.model.record import Record
from rds_csi.model.volume import is_legacy_id
from rds_csi.routeros.reply import as_boolean, as_integer, as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A ``/disk`` entry of type file.

    ``size`` is in bytes, exact, as RouterOS stored it; 0 where it shows none, as of a disk whose
    pool is not mounted: then nobody knows how large it is. ``file_path`` has no leading slash, as
    ``/file`` spells it. ``record`` is None where the comment is none that we could have
    written. ``allowed_host`` is the host NQN the export is restricted to, "" for any.
    ``file_system`` is what RouterOS recognised in it when it looked last, "" for none that we
    make; ``mountable`` and ``mount_point`` say whether RouterOS would mount that, and where it has.
    """

    slot: str
    size: int
    file_path: str
    comment: str
    record: Record | None
    nqn: str
    port: int
    exported: bool
    allowed_host: str
    file_system: str = ""
    mountable: bool = False
    mount_point: str = ""

    @classmethod
    def parse(cls, item: dict[str, Any]) -> Self:
        """The disk in one item of a query.

        Raises :class:`RouterOSError` where size or port are there and no numbers: neither is
        guessed, and ``file-size``, which RouterOS rounds, is never looked at.
        """
        comment = as_text(item.get("comment"))
        return cls(
            slot=as_text(item.get("slot")),
            size=as_integer(item.get("size") or 0),
            file_path=as_text(item.get("file-path")).removeprefix("/"),
            comment=comment,
            record=Record.parse(comment),
            nqn=as_text(item.get("nvme-tcp-server-nqn")),
            port=as_integer(item.get("nvme-tcp-server-port") or 0),
            exported=as_boolean(item.get("nvme-tcp-export")),
            allowed_host=as_text(item.get("nvme-tcp-server-allow-host-name")),
            file_system=_file_system(item.get("fs")),
            mountable=as_boolean(item.get("mount-filesystem")),
            mount_point=as_text(item.get("mount-point")),
        )

    def is_of(self, owner: str, base_path: str) -> bool:
        """Whether the owner may touch it: by its record, or as a disk of the Go driver.

        That driver wrote no record; its disks are known by slot, path and empty comment.
        """
        if self.record is not None:
            return self.record.owner == owner
        return (
            not self.comment
            and is_legacy_id(self.slot)
            and self.file_path.startswith(f"{base_path}/")
            and self.file_path.endswith(f"/{self.slot}.img")
        )

    def require_export(self, exported: bool, allowed_host: str, nqn: str) -> None:
        """Raise :class:`RouterOSError` unless it is exported so: open or closed, to whom, as what.

        And :class:`VolumeInUse` where RouterOS itself may have mounted what a node is to use.
        """
        shown = (self.exported, self.allowed_host, self.nqn)
        if shown != (exported, allowed_host, nqn):
            raise RouterOSError(
                f"RouterOS shows export {self.exported} to {self.allowed_host or 'any host'!r} as "
                f"{self.nqn!r} instead of {exported} to {allowed_host or 'any host'!r} as {nqn!r}",
                volume=self.slot,
            )
        if exported and (self.mountable or self.mount_point):
            raise VolumeInUse(
                f"RouterOS shows mount-filesystem {self.mountable}, mount-point "
                f"{self.mount_point!r}: it may have mounted the file system a node is to use",
                volume=self.slot,
                advice=f"/disk/set {self.slot} mount-filesystem=no, and see that it is not mounted",
            )

    def require_open_to_holders(self) -> None:
        """Raise :class:`OutcomeUnknown` where holders with maps wait for a closed export."""
        held = self.record is not None and self.record.mapped and bool(self.record.nodes)
        if held and not self.exported:
            raise OutcomeUnknown(
                "it was to be exported anew with its new size, and RouterOS shows it closed: its "
                "I/O waits",
                volume=self.slot,
                advice="the next attempt opens it; by hand, on the RDS: "
                f"/disk/set {self.slot} nvme-tcp-export=yes",
            )


def _file_system(value: Any) -> str:
    text = as_text(value)
    return text if text in FILE_SYSTEMS else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """A pool of the RDS: its size, what is free, and what is promised to files of disks, in bytes.

    What nodes trim is free again, and yet promised: they write it anew whenever they like.
    """

    pool: str
    size: int
    free: int
    file_system: str
    promised: int = 0

    @property
    def room(self) -> int:
        """Bytes that are free and promised to nobody, a reserve not subtracted."""
        return max(0, min(self.free, self.size - self.promised))

    @classmethod
    def parse(cls, pool: str, item: dict[str, Any], promised: int = 0) -> Self | None:
        """The pool in one item; None where it is not mounted, which is when it has no ``free``."""
        if item.get("free") in (None, "") or as_text(item.get("mounted")) in ("no", "false"):
            return None
        return cls(
            pool=pool,
            size=as_integer(item.get("size")),
            free=as_integer(item.get("free")),
            file_system=as_text(item.get("fs")),
            promised=promised,
        )
