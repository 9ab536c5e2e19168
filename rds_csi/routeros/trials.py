"""What nobody has measured yet of RouterOS, tried on scratch volumes of ``rds-csi doctor --write``.

Each builder is one line that first proves the volume ours. What is tried is then either
``accepted`` or refused with RouterOS's text (:func:`verdict`); what stands there afterwards is
printed. A line that RouterOS cannot parse tries nothing.
"""

from typing import Final, NamedTuple

from rds_csi.model.record import Record
from rds_csi.routeros.commands import show
from rds_csi.routeros.fragments import (
    block,
    files,
    find_disk,
    read_comment,
    read_path,
    refuse,
    require_ours,
    require_own_file,
    require_users,
    when,
)
from rds_csi.routeros.quoting import (
    MAXIMUM_LINE,
    check_file_path,
    check_host_nqn,
    check_slot,
    check_subsystem_nqn,
    number,
    quote,
)
from rds_csi.routeros.reply import Reply

SUCCEEDS: Final = ":put csi-doctor"
UNKNOWN: Final = "/csi-doctor"
FAILS: Final = ':error "csi-doctor"'
"""Bare lines for the question of exit statuses: one works, two do not, none changes a thing."""

_WRAPPING: Final = 120
_REFUSED: Final = "refused: "


class Verdict(NamedTuple):
    """Whether RouterOS did what was tried, and its text if not."""

    accepted: bool
    text: str = ""


class Volume(NamedTuple):
    """A scratch volume: where it is, and the record that proves it ours."""

    slot: str
    file_path: str
    nqn: str
    record: Record
    base_path: str


def verdict(reply: Reply) -> Verdict:
    """What became of what was tried."""
    lines = [line.removeprefix(_REFUSED) for line in reply.lines if line.startswith(_REFUSED)]
    return Verdict(accepted=reply.has("accepted"), text=" ".join(lines))


def long_line() -> str:
    """Print the length of a text that makes the line almost as long as lines may be."""
    return f":put [:len {quote('x' * long_length())}]"


def long_length() -> int:
    """How long that text is."""
    return MAXIMUM_LINE - _WRAPPING


def find_by_path(volume: Volume) -> str:
    """Print how many disks are found by the file's path with a leading slash, and without."""
    path = check_file_path(volume.file_path)
    return block(
        *(f":put [:len [/disk/find where file-path={quote(each)}]]" for each in (f"/{path}", path))
    )


def same_slot(volume: Volume, file_path: str, size: int) -> str:
    """Add a second disk to the slot, over another file; remove it again if that works."""
    add = _add(volume._replace(file_path=file_path), size)
    return _on(volume, _attempt(f":local csiNew [{add}]; /disk/remove $csiNew"))


def over_file(volume: Volume, size: int) -> str:
    """Forget the disk, keep its file, and add a disk over that."""
    add = f"{_add(volume, size)} nvme-tcp-server-nqn={quote(check_subsystem_nqn(volume.nqn))}"
    return _on(
        volume,
        ":local csiFile $csiPath",
        require_own_file(volume.slot, volume.record.owner, volume.base_path),
        require_users(1),
        "/disk/remove ($csiDisk->0)",
        ":delay 500ms",
        _attempt(add),
        ":delay 500ms",
        show(volume.slot),
    )


def allow(volume: Volume, hosts: tuple[str, ...]) -> str:
    """Restrict the export to these host NQNs, with commas between them."""
    text = quote(",".join(check_host_nqn(host) for host in hosts))
    change = f"/disk/set ($csiDisk->0) nvme-tcp-server-allow-host-name={text}"
    return _on(volume, _attempt(change), show(volume.slot))


def allow_later(volume: Volume, host: str, milliseconds: int) -> str:
    """Restrict the export to a host NQN when some time has passed."""
    change = (
        f"/disk/set ($csiDisk->0) nvme-tcp-server-allow-host-name={quote(check_host_nqn(host))}"
    )
    return _on(volume, f":delay {number(milliseconds)}ms", change)


def rename(volume: Volume, nqn: str) -> str:
    """Give the export another name, whether it is open or closed."""
    change = f"/disk/set ($csiDisk->0) nvme-tcp-server-nqn={quote(check_subsystem_nqn(nqn))}"
    return _on(volume, _attempt(change), show(volume.slot))


def copy_settings(source: Volume, target: Volume, size: int = 0) -> str:
    """Add the target with ``copy-from`` the source; slot, file and comment are the target's.

    Without a size, it is for RouterOS to take that over as well.
    """
    add = (
        f"/disk/add copy-from={quote(check_slot(source.slot))} "
        f"slot={quote(check_slot(target.slot))} "
        f"file-path={quote(check_file_path(target.file_path))} nvme-tcp-export=no "
        f"{f'file-size={number(size)} ' if size else ''}comment={quote(target.record.encode())}"
    )
    return _on(source, _absent(target), _attempt(add), ":delay 500ms", show(target.slot))


def copy_file(source: Volume, target: Volume) -> str:
    """Copy the source's file to the target's name."""
    there, here = check_file_path(source.file_path), check_file_path(target.file_path)
    copy = f"/file/copy {quote(there)} name={quote(here)}"
    return _on(source, _absent(target), _attempt(copy))


def copy_disk(source: Volume, target: Volume) -> str:
    """Copy what is in the source to the target, by the RDS itself; it waits for the end."""
    copy = f"/disk/copy src={quote(check_slot(source.slot))} dst={quote(check_slot(target.slot))}"
    return _on(target, _attempt(copy))


def _on(volume: Volume, *then: str) -> str:
    """Do it if the disk exists and its record is the owner's."""
    return block(
        find_disk(volume.slot),
        when("[:len $csiDisk] = 0", refuse("no-disk")),
        read_path(),
        read_comment(),
        require_ours(volume.slot, volume.record.owner, volume.base_path),
        *then,
    )


def _absent(target: Volume) -> str:
    return when(
        f"{files(f'name={quote(check_file_path(target.file_path))}')} > 0", refuse("leftover-file")
    )


def _attempt(action: str) -> str:
    return (
        f':onerror csiWhy in={{ {action}; :put "accepted" }} do={{ :put ("{_REFUSED}" . $csiWhy) }}'
    )


def _add(volume: Volume, size: int) -> str:
    return (
        f"/disk/add type=file slot={quote(check_slot(volume.slot))} "
        f"file-path={quote(check_file_path(volume.file_path))} file-size={number(size)} "
        f"mount-filesystem=no nvme-tcp-export=no comment={quote(volume.record.encode())}"
    )
