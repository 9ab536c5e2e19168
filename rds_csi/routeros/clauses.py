"""Pieces of RouterOS script that the commands are made of.

Names of variables begin with ``csi``: a variable named like a property would be taken for that
property inside ``where``. RouterOS evaluates both sides of ``&&`` and ``||``, so conditions that
depend on each other are nested. What is assumed of RouterOS is in
``docs/routeros-assumptions.md``.
"""

from typing import Final

from rds_csi.routeros.script import check_slot, quote, quote_pattern
from rds_csi.volume import is_legacy_id, owner_prefixes, owner_tag

PROPERTIES: Final = (
    "slot",
    "size",
    "file-path",
    "comment",
    "nvme-tcp-server-nqn",
    "nvme-tcp-server-port",
    "nvme-tcp-export",
    "nvme-tcp-server-allow-host-name",
    "fs",
    "mount-filesystem",
    "mount-point",
)
"""What is read of a disk. One unknown name would make RouterOS refuse the whole line."""

TRIES: Final = 20
"""How often a change is looked for, 250 ms apart, before its absence is believed."""


def block(*statements: str) -> str:
    """Statements one after the other; empty ones are left out."""
    return "; ".join(statement for statement in statements if statement)


def when(condition: str, *then: str, otherwise: str = "") -> str:
    """Run ``then`` if the condition holds."""
    clause = f":if ({condition}) do={{ {block(*then)} }}"
    return f"{clause} else={{ {otherwise} }}" if otherwise else clause


def refuse(reason: str) -> str:
    """End the line as failed, for a reason that ``failures.py`` knows."""
    return f':error "csi-refused {reason}"'


def disks(where: str) -> str:
    """How many disks there are."""
    return f"[:len [/disk/find where {where}]]"


def files(where: str) -> str:
    """How many files there are."""
    return f"[:len [/file/find where {where}]]"


def print_json(query: str) -> str:
    """Print what a query returns."""
    return f":put [:serialize to=json options=json.no-string-conversion value=[{query}]]"


def print_disks(heading: str, where: str) -> str:
    """Print the properties of the disks below a heading."""
    query = f"/disk/print as-value proplist={','.join(PROPERTIES)} where {where}"
    return block(f':put "{heading}"', print_json(query))


def find_disk(slot: str) -> str:
    """Set ``csiDisk`` to the ids of the disks in the slot: none or one."""
    return block(
        f":local csiDisk [/disk/find where slot={quote(check_slot(slot))}]",
        when("[:len $csiDisk] > 1", refuse("many-disks")),
    )


def read_path() -> str:
    """Set ``csiPath`` to the disk's file as ``/file`` spells it."""
    return block(
        ":local csiPath [:tostr [/disk/get ($csiDisk->0) file-path]]",
        when('[:pick $csiPath 0 1] = "/"', ":set csiPath [:pick $csiPath 1 [:len $csiPath]]"),
    )


def read_comment() -> str:
    """Set ``csiText`` to the disk's comment; done last, so that little time passes until it counts.

    An unset comment is empty.
    """
    return ":local csiText [:tostr [/disk/get ($csiDisk->0) comment]]"


def require_ours(slot: str, owner: str, base_path: str) -> str:
    """Refuse unless the record is the owner's, or there is none and the Go driver made the disk."""
    if not is_legacy_id(slot):
        return require_owner(slot, owner)
    adopted = when("[:len $csiText] = 0", _require_legacy_file(slot, base_path, "not-ours"))
    return block(require_owner(slot, owner), adopted)


def require_owner(slot: str, owner: str) -> str:
    """Refuse unless the record is the owner's; the Go driver wrote none on its disks."""
    prefixes = owner_prefixes(owner)
    head = f"[:pick $csiText 0 {len(prefixes[0])}]"
    foreign = " && ".join(f"({head} != {quote(prefix)})" for prefix in prefixes)
    if is_legacy_id(slot):
        foreign = f"([:len $csiText] > 0) && {foreign}"
    return when(foreign, refuse("not-ours"))


def require_unpublished() -> str:
    """Refuse while the record names nodes: it ends with ``nodes=`` if it names none."""
    return when(
        "[:len $csiText] > 0",
        when(f"{_last('csiText', 7)} != {quote(' nodes=')}", refuse("in-use")),
    )


def require_unmounted() -> str:
    """Have RouterOS let go of the file system it mounted in the disk; refuse while it does not."""
    mounted = "[:len [:tostr [/disk/get ($csiDisk->0) mount-point]]] > 0"
    return when(
        mounted,
        "/disk/set ($csiDisk->0) mount-filesystem=no",
        wait_until(f"!({mounted})"),
        when(mounted, refuse("still-mounted")),
    )


def require_own_file(slot: str, owner: str, base_path: str) -> str:
    """Refuse unless the file's name holds slot and owner, or is the one the Go driver gave it."""
    if is_legacy_id(slot):
        return _require_legacy_file(slot, base_path, "foreign-file")
    return _require_end(f"/{slot}-{owner_tag(owner)}.img", "foreign-file")


def require_users(at_most: int) -> str:
    """Refuse if more disks than that refer to the file ``csiFile``."""
    users = disks('file-path=("/" . $csiFile)')
    return when(f"{users} > {at_most}", refuse("shared-file"))


def require_room(needed: str) -> str:
    """Refuse unless the pool ``csiRoot`` is mounted and has ``needed`` bytes free.

    The free space is only known of a mounted file system; without one the file would land on
    the RDS's own flash.
    """
    return block(
        ":local csiPool [/disk/find where mount-point=$csiRoot]",
        when("[:len $csiPool] = 0", ":set csiPool [/disk/find where slot=$csiRoot]"),
        when("[:len $csiPool] = 0", refuse("no-pool")),
        ":local csiRoom [:tonum [/disk/get ($csiPool->0) free]]",
        when('[:typeof $csiRoom] != "num"', refuse("not-mounted")),
        when(f"$csiRoom < {needed}", ':error ("csi-refused pool-full " . $csiRoom)'),
    )


def wait_until(condition: str) -> str:
    """Wait until the condition holds, but not for ever."""
    return (
        f":local csiTry 0; :while ($csiTry < {TRIES}) do={{ "
        + when(
            condition,
            f":set csiTry {TRIES}",
            otherwise=block(":set csiTry ($csiTry + 1)", ":delay 250ms"),
        )
        + " }"
    )


def named_like(slot: str, owner: str) -> str:
    """The files, anywhere, whose name says that they belong to the owner's volume."""
    name = quote_pattern(f"{check_slot(slot)}-{owner_tag(owner)}.img")
    return f"name~{quote(f'/{name}$')}"


def _require_legacy_file(slot: str, base_path: str, reason: str) -> str:
    base = f"{base_path}/"
    return block(
        when(f"[:pick $csiPath 0 {len(base)}] != {quote(base)}", refuse(reason)),
        _require_end(f"/{slot}.img", reason),
    )


def _require_end(end: str, reason: str) -> str:
    return when(f"{_last('csiPath', len(end))} != {quote(end)}", refuse(reason))


def _last(variable: str, length: int) -> str:
    return f"[:pick ${variable} ([:len ${variable}] - {length}) [:len ${variable}]]"
