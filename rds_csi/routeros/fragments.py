"""Pieces of RouterOS script that the commands are made of.

Names of variables begin with ``csi``: a variable named like a property would be taken for that
property inside ``where``. RouterOS evaluates both sides of ``&&`` and ``||``, so conditions that
depend on each other are nested. What is assumed of RouterOS is in
``docs/routeros-assumptions.md``.
"""

import hashlib
from typing import Final

from rds_csi.model.record import MAPPED, owner_prefixes, owner_tag
from rds_csi.model.volume import is_legacy_id
from rds_csi.routeros.failures import PERHAPS
from rds_csi.routeros.quoting import check_slot, quote, quote_pattern

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

_FREE: Final = "[:tonum [/disk/get ($csiPool->0) free]]"

LOCKS: Final = "rds-csi"
"""The address list of the locks."""

LOCK_TIME: Final = "1m"
"""When RouterOS drops a lock: many times what any line takes, so that none is dropped early."""

_LOCK: Final = "/ip/firewall/address-list"

TRIES: Final = 20
"""How often a change is looked for, 250 ms apart, before its absence is believed."""


def block(*statements: str) -> str:
    """Statements one after the other; empty ones are left out."""
    return ";".join(statement for statement in statements if statement)


def when(condition: str, *then: str, otherwise: str = "") -> str:
    """Run ``then`` if the condition holds."""
    clause = f":if ({condition}) do={{{block(*then)}}}"
    return f"{clause} else={{{otherwise}}}" if otherwise else clause


def refuse(reason: str, about: str = "") -> str:
    """End the line as failed, for a reason that ``failures.py`` knows; ``about``: an expression."""
    if about:
        return f':error ("csi-refused {reason} " . {about})'
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


def print_disks(heading: str, where: str, properties: tuple[str, ...] = PROPERTIES) -> str:
    """Print the properties of the disks below a heading."""
    query = f"/disk/print as-value proplist={','.join(properties)} where {where}"
    return block(f':put "{heading}"', print_json(query))


def locked(slot: str, *body: str) -> str:
    """Run ``body`` while no other line that locks the slot does, however they interleave.

    RouterOS has no compare-and-set: reading a comment and writing it are two steps. What it does
    in one is to add an item. An entry of a firewall address list that no rule names is the lock:
    a second one of the same address is refused. Should a version take it all the same, both
    lines see two of them and none goes on. A line that is broken off leaves its lock; RouterOS
    drops that by itself (:data:`LOCK_TIME`), and a line that took longer says so at its end. So
    does one that fails by a text of :data:`PERHAPS`: what it began may still be under way, and
    whoever comes next is to find it done, or not done. ``body`` finds the slot in ``csiSlot``.
    """
    entry = f"list={LOCKS} comment=$csiSlot"
    take = f":set csiLock [{_LOCK}/add {entry} address={_address(slot)} timeout={LOCK_TIME}]"
    alone = when(f"[:len [{_LOCK}/find where {entry}]] > 1", refuse("locked"))
    free = f"{_LOCK}/remove $csiLock"
    return block(
        f':local csiSlot {quote(check_slot(slot))}; :local csiLock ""',
        attempt(take, failed=refuse("no-lock", "$csiWhy")),
        attempt(
            block(alone, *body),
            failed=block(
                when(f"!{perhaps('csiWhy')}", attempt(free, failed="", name="csiGone")),
                ":error $csiWhy",
            ),
        ),
        attempt(free, failed=refuse("lock-lost")),
    )


def attempt(action: str, *, failed: str, name: str = "csiWhy") -> str:
    """Run ``action``; where it fails, ``failed``, with RouterOS's text in the variable."""
    return f":onerror {name} in={{{action}}} do={{{failed}}}"


def perhaps(variable: str) -> str:
    """Whether the text in a variable leaves open what became of a command."""
    return f"([:tostr ${variable}]~{quote(PERHAPS)})"


def find_disk(slot: str = "") -> str:
    """Set ``csiDisk`` to the ids of the disks in the slot: none or one.

    The slot whose lock is held needs no name.
    """
    name = quote(check_slot(slot)) if slot else "$csiSlot"
    return block(
        f":local csiDisk [/disk/find where slot={name}]",
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
    base = f"{base_path}/"
    adopted_file = _require_legacy_file("csiPath", slot, "not-ours", len(base), quote(base))
    adopted = when("[:len $csiText] = 0", adopted_file)
    return block(require_owner(slot, owner), adopted)


def require_owner(slot: str, owner: str) -> str:
    """Refuse unless the record is the owner's; the Go driver wrote none on its disks."""
    versions, words = zip(*(each.split(" ", 1) for each in owner_prefixes(owner)), strict=True)
    end, word = len(versions[0]), quote(f" {words[0]}")
    version = f"[:pick $csiText 0 {end}]"
    foreign = (
        f"({' && '.join(f'({version} != {quote(each)})' for each in versions)}) "
        f"|| ([:pick $csiText {end} {end + len(words[0]) + 1}] != {word})"
    )
    if is_legacy_id(slot):
        foreign = f"([:len $csiText] > 0) && ({foreign})"
    return when(foreign, refuse("not-ours"))


def require_unpublished(reason: str = "in-use") -> str:
    """Refuse while the record names nodes: it ends with ``nodes=`` if it names none."""
    return when(
        "[:len $csiText] > 0",
        when(f"{_last('csiText', 7)} != {quote(' nodes=')}", refuse(reason)),
    )


def set_mapped() -> str:
    """Set ``csiMapped`` to whether the record names nodes, and all of them have maps."""
    return block(
        f':local csiMapped ([:typeof [:find $csiText {quote(MAPPED)}]] = "num")',
        when(f"{_last('csiText', 7)} = {quote(' nodes=')}", ":set csiMapped false"),
    )


def close_export() -> str:
    """Turn the export off and wait for it. RouterOS is not to mount what it finds in it then."""
    return block(
        "/disk/set ($csiDisk->0) mount-filesystem=no nvme-tcp-export=no",
        wait_until(f"{disks('slot=$csiSlot nvme-tcp-export=yes')} = 0"),
    )


def open_export() -> str:
    """Turn the export on, unless it is, and wait for it."""
    exported = f"{disks('slot=$csiSlot nvme-tcp-export=yes')} > 0"
    return when(
        f"!({exported})",
        "/disk/set ($csiDisk->0) nvme-tcp-export=yes",
        wait_until(exported),
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
    """Refuse unless ``csiFile``'s name holds slot and owner, or is the one the Go driver gave it.

    Behind :func:`left_by`.
    """
    if is_legacy_id(slot):
        begin = f"[:pick $csiOld 0 {len(base_path) + 1}]"
        return _require_legacy_file("csiFile", slot, "foreign-file", len(base_path) + 1, begin)
    return _require_end("csiFile", f"/{slot}-{owner_tag(owner)}.img", "foreign-file")


def users_of_file() -> str:
    """How many disks refer to the file ``csiFile``."""
    return disks('file-path=("/" . $csiFile)')


def require_users(at_most: int) -> str:
    """Refuse if more disks than that refer to the file ``csiFile``."""
    return when(f"{users_of_file()} > {at_most}", refuse("shared-file"))


def set_root(path: str) -> str:
    """Set ``csiRoot`` to the first part of the file's path in a variable: where its pool is."""
    return f':set csiRoot [:pick {path} 0 [:find {path} "/"]]'


def require_pool(missing: str) -> str:
    """Refuse unless the pool ``csiRoot`` is mounted; set ``csiPool``, and ``csiRoom`` to its room.

    ``missing`` is the reason where there is no such disk. Of a pool that is not mounted ``/file``
    shows nothing, so there "no such file" proves nothing, and a new file would land on the RDS's
    own flash. Free space is only known of a mounted file system.
    """
    return block(
        ":local csiPool [/disk/find where mount-point=$csiRoot]",
        when("[:len $csiPool] = 0", ":set csiPool [/disk/find where slot=$csiRoot]"),
        when("[:len $csiPool] = 0", refuse(missing, "$csiRoot")),
        f":local csiRoom {_FREE}",
        when('[:typeof $csiRoom] != "num"', refuse("not-mounted", "$csiRoot")),
    )


def require_pool_still() -> str:
    """Refuse unless the pool that :func:`require_pool` found is mounted now as well."""
    return when(f'[:typeof {_FREE}] != "num"', refuse("not-mounted", "$csiRoot"))


def add_up_promised(root: str) -> str:
    """Set ``csiSum`` to the bytes of all file disks, whoever's, in the pool that ``root`` names.

    Each is promised whole. What nodes have trimmed of it is free again until they write it anew.
    """
    return (
        ":local csiSum 0;:foreach csiD in=[/disk/print as-value proplist=size where size>0 "
        f'file-path~("^/" . {root} . "/")] '
        'do={:set csiSum ($csiSum+[:tonum ($csiD->"size")])}'
    )


def require_room(needed: str, *, missing: str) -> str:
    """:func:`require_pool`, and refuse unless ``needed`` bytes are free and promised to nobody."""
    return block(
        require_pool(missing),
        add_up_promised("$csiRoot"),
        ":set csiSum ([:tonum [/disk/get ($csiPool->0) size]]-$csiSum)",
        when("$csiSum < $csiRoom", ":set csiRoom $csiSum"),
        when(f"$csiRoom < {needed}", refuse("pool-full", '$csiRoot . " " . $csiRoom')),
    )


def require_size() -> str:
    """Refuse while the disk shows no size, as one does whose file is out of reach."""
    return when(f"{disks('slot=$csiSlot size>0')} = 0", refuse("no-size"))


def wait_until(condition: str) -> str:
    """Wait until the condition holds, but not for ever."""
    return (
        f":local csiTry 0;:while (($csiTry<{TRIES}) && !({condition})) "
        "do={:set csiTry ($csiTry+1);:delay 250ms}"
    )


def left_by(slot: str, owner: str, base_path: str) -> tuple[str, str]:
    """A statement, and the ``where`` of the volume's files when no disk refers to them any more.

    Ours are known anywhere by slot and owner; those of the Go driver only at the path it gave.
    """
    if is_legacy_id(slot):
        return f":local csiOld {quote(f'{base_path}/{slot}.img')}", "name=$csiOld"
    name = quote_pattern(f"{check_slot(slot)}-{owner_tag(owner)}.img")
    return f":local csiLike {quote(f'/{name}$')}", "name~$csiLike"


def _address(slot: str) -> str:
    """The slot's own address for its lock: one that nobody can come from, whatever a rule says.

    Two slots may share one. Then they wait for each other, and nothing else.
    """
    digest = hashlib.sha256(slot.encode()).digest()
    return f"127.{digest[0]}.{digest[1]}.{digest[2]}"


def _require_legacy_file(variable: str, slot: str, reason: str, length: int, begin: str) -> str:
    """Refuse unless the path begins, for ``length``, as the expression and ends as for the slot."""
    return block(
        when(f"[:pick ${variable} 0 {length}] != {begin}", refuse(reason)),
        _require_end(variable, f"/{slot}.img", reason),
    )


def _require_end(variable: str, end: str, reason: str) -> str:
    return when(f"{_last(variable, len(end))} != {quote(end)}", refuse(reason))


def _last(variable: str, length: int) -> str:
    return f"[:pick ${variable} ([:len ${variable}] - {length}) [:len ${variable}]]"
