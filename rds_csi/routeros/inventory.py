"""What only a person's commands ask (``doctor``, ``volumes``): users, clock, all disks and files.

Reads only. Each question is a line of its own, so that one that RouterOS refuses hides no other.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rds_csi.errors import RouterOSError
from rds_csi.model.record import owner_tag
from rds_csi.routeros.disk import Disk
from rds_csi.routeros.failures import explain
from rds_csi.routeros.fragments import block, locked, print_json, when
from rds_csi.routeros.quoting import check_file_path, quote, quote_pattern
from rds_csi.routeros.reply import Reply, as_boolean, as_integer, as_text
from rds_csi.routeros.session import Session

SCRATCH: Final = re.compile(r"doctor-[0-9a-f]{24}")
"""The slots of scratch volumes: never the id of a volume."""

_DISK: Final = (
    *("slot", "type", "size", "file-path", "comment", "mount-filesystem", "nvme-tcp-export"),
    *("nvme-tcp-server-nqn", "nvme-tcp-server-port", "nvme-tcp-server-allow-host-name"),
)
_OFFSET: Final = re.compile(r"([+-]?)(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Group:
    """The group of a RouterOS user: its name, and the policies it grants."""

    name: str
    policies: frozenset[str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A disk over a file, ours or not. ``mountable``: RouterOS mounts what it recognises in it."""

    disk: Disk
    mountable: bool


class Inventory:
    """Questions to one RDS. Each method takes one exec and raises :class:`DriverError`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def group(self, user: str) -> Group | None:
        """The user's group; None where RouterOS knows no such user (it may come by RADIUS)."""
        name = user.partition("+")[0]  # what follows are options of the console
        reply = await self._ask(
            block(
                ':put "user"',
                print_json(f"/user/print detail as-value where name={quote(name)}"),
                ':put "group"',
                print_json("/user/group/print detail as-value"),
            )
        )
        users = reply.items("user")
        wanted = as_text(users[0].get("group")) if users else ""
        for item in reply.items("group"):
            if wanted and as_text(item.get("name")) == wanted:
                return Group(wanted, _policies(item.get("policy")))
        return None

    async def packages(self) -> dict[str, str]:
        """The versions of the installed packages by name; those merely available are left out."""
        reply = await self._ask(
            block(':put "packages"', print_json("/system/package/print detail as-value"))
        )
        return {
            as_text(item.get("name")): as_text(item.get("version"))
            for item in reply.items("packages")
            if not as_boolean(item.get("available")) and not as_boolean(item.get("disabled"))
        }

    async def clock(self) -> datetime:
        """What time it is on the RDS, to the second."""
        reply = await self._ask(block(':put "clock"', print_json("/system/clock/print as-value")))
        items = reply.items("clock")
        return read_clock(items[0] if items else {})

    async def require_exports(self) -> None:
        """Have RouterOS parse, and not run, a line with all that we set of a disk, and its lock.

        Raises what ``failures.explain`` makes of a property or command it does not know.
        """
        add = (
            '/disk/add type=file slot="" file-path="" file-size=0 mount-filesystem=no comment="" '
            'nvme-tcp-export=no nvme-tcp-server-nqn="" nvme-tcp-server-port=4420 '
            'nvme-tcp-server-allow-host-name=""'
        )
        await self._ask(block(f":if (false) do={{ {add} }}", when("false", locked("a"))))

    async def entries(self) -> list[Entry]:
        """Every disk over a file, whoever made it."""
        query = f'/disk/print as-value proplist={",".join(_DISK)} where type="file"'
        reply = await self._ask(block(':put "disks"', print_json(query)))
        return [
            # Without a size its file is gone: an entry all the same.
            Entry(Disk.parse({"size": 0} | item), as_boolean(item.get("mount-filesystem")))
            for item in reply.items("disks")
        ]

    async def has_directory(self, path: str) -> bool:
        """Whether the directory is there."""
        query = f"/file/print as-value proplist=name,type where name={quote(check_file_path(path))}"
        reply = await self._ask(block(':put "file"', print_json(query)))
        return any(as_text(item.get("type")) == "directory" for item in reply.items("file"))

    async def scratch_slots(self, owner: str) -> list[str]:
        """The slots in the names of the owner's scratch files."""
        ending = quote_pattern(f"-{owner_tag(owner)}.img")
        where = f"name~{quote(f'/{SCRATCH.pattern}{ending}$')}"
        query = f"/file/print as-value proplist=name where {where}"
        reply = await self._ask(block(':put "file"', print_json(query)))
        names = [as_text(item.get("name")) for item in reply.items("file")]
        return [found[0] for name in names if (found := SCRATCH.search(name))]

    async def owned_files(self, owner: str) -> list[str]:
        """The paths of all files whose names say that the owner's driver made them."""
        where = f"name~{quote(quote_pattern(f'-{owner_tag(owner)}.img') + '$')}"
        query = f"/file/print as-value proplist=name where {where}"
        reply = await self._ask(block(':put "file"', print_json(query)))
        return sorted(as_text(item.get("name")).removeprefix("/") for item in reply.items("file"))

    async def _ask(self, command: str) -> Reply:
        reply = await self._session.execute(command)
        if reply.error is not None:
            raise explain(reply.error)
        return reply


def _policies(value: Any) -> frozenset[str]:
    words = value if isinstance(value, list) else re.split("[,;]", as_text(value))
    return frozenset(str(word) for word in words if word and not str(word).startswith("!"))


def read_clock(item: dict[str, Any]) -> datetime:
    """The moment in ``/system/clock``, which shows local time and how far that is from UTC.

    Raises :class:`RouterOSError` where it cannot be read.
    """
    try:
        local = datetime.fromisoformat(f"{as_text(item['date'])}T{as_text(item['time'])}")
        return local.replace(tzinfo=UTC) - timedelta(seconds=_seconds(item.get("gmt-offset")))
    except (KeyError, ValueError):
        raise RouterOSError(f"the clock of the RDS cannot be read: {str(item)[:300]}") from None


def _seconds(value: Any) -> int:
    """An offset: ``+02:00``, ``02:00:00``, or seconds, which wrap at 2^32 below zero."""
    text = as_text(value or 0)
    match = _OFFSET.fullmatch(text)
    if match:
        seconds = (int(match[2]) * 60 + int(match[3])) * 60 + int(match[4] or 0)
        return -seconds if match[1] == "-" else seconds
    number = as_integer(text)
    return number - 2**32 if number > _DAY else number
