"""What the driver asks of RouterOS: one line per operation.

Each builder returns a whole operation: it checks, acts, waits for what it did to show, and
prints what stands there now. The line runs on the RDS in one go, so a connection that breaks in
the middle leaves no half-made decision on our side. What changes a volume runs under its lock
(:func:`locked`), reading back included. Output is a heading (``disk``, ``file``, ...) with
the JSON of one query below it. All doubts are settled before the first change.
"""

from typing import Final

from rds_csi.model.record import Record, owner_prefixes
from rds_csi.routeros.fragments import (
    add_up_promised,
    attempt,
    block,
    close_export,
    disks,
    files,
    find_disk,
    left_by,
    locked,
    open_export,
    perhaps,
    print_disks,
    print_json,
    read_comment,
    read_path,
    refuse,
    require_ours,
    require_own_file,
    require_owner,
    require_pool,
    require_pool_still,
    require_room,
    require_size,
    require_unmounted,
    require_unpublished,
    require_users,
    set_mapped,
    set_root,
    users_of_file,
    wait_until,
    when,
)
from rds_csi.routeros.quoting import (
    check_file_path,
    check_host_nqn,
    check_slot,
    check_subsystem_nqn,
    number,
    quote,
    quote_pattern,
)
from rds_csi.routeros.rewrite import rewrite

PLAIN_VERSION: Final = ":put [/system/resource/get version]"
"""For versions that cannot parse :func:`system`."""


def show(slot: str) -> str:
    """Print the disk, or ``[]``."""
    return print_disks("disk", f"slot={quote(check_slot(slot))}")


def listing(owner: str) -> str:
    """Print all disks that may be the owner's, and those the Go driver may have made.

    The RDS's regular expressions only narrow the answer; the client decides.
    """
    ours = (quote("^" + quote_pattern(prefix)) for prefix in owner_prefixes(owner))
    legacy = quote("^pvc-[0-9a-f]{8}-")
    patterns = (*(f"comment~{pattern}" for pattern in ours), f"slot~{legacy}")
    return print_disks("disks", f"({' or '.join(patterns)})")


def capacity(pool: str) -> str:
    """Print the disk mounted as ``pool``, and the disk in the slot of that name.

    And how many bytes are promised to the files of disks in it.
    """
    name = quote(pool)
    return block(
        add_up_promised(name),
        ':put "promised"',
        ":put $csiSum",
        ':put "mounted"',
        print_json(f"/disk/print detail as-value where mount-point={name}"),
        ':put "slot"',
        print_json(f"/disk/print detail as-value where slot={name}"),
    )


def system() -> str:
    """Print version, board and uptime, and what the log says of boots, if it may be read."""
    boots = '/log/print as-value where message~"^router " or message~"^kernel failure"'
    return block(
        ':put "system"',
        print_json("/system/resource/print as-value"),
        ':put "log"',
        attempt(print_json(boots), failed=":nothing"),
    )


def create(
    *, slot: str, size: int, file_path: str, nqn: str, port: int, record: Record, reserve: int
) -> str:
    """Make the disk unless one of that slot exists, saying "adding" and "created"; print the disk.

    A file that exists already is never taken over: with ``file-size`` RouterOS might reuse it,
    old data included. After a failed ``add`` only the file that was proven absent before is
    removed, and not when another line was faster, nor where RouterOS says that the ``add`` may
    be done yet; "undone" is printed when nothing is left. RouterOS's text is told in any case.
    """
    folder = len(file_path.rpartition("/")[0])
    slot_is = "slot=$csiSlot"
    add = (
        f"/disk/add type=file {slot_is} file-path=$csiFile file-size={number(size)} "
        # RouterOS mounts file systems it recognises by default, beside the node that uses them.
        f"mount-filesystem=no nvme-tcp-export=no "
        f"nvme-tcp-server-nqn={quote(check_subsystem_nqn(nqn))} "
        f"nvme-tcp-server-port={number(port)} comment={quote(record.encode())}"
    )
    gone = f"{files('name=$csiFile')} = 0"
    undo = block(
        ":delay 500ms",
        when(
            f"({disks(slot_is)} + {users_of_file()}) = 0",
            "/file/remove [/file/find where name=$csiFile]",
            wait_until(gone),
            when(gone, ':put "undone"'),
        ),
    )
    undo = attempt(undo, failed=':error ($csiWhy . "; undo: " . $csiGone)', name="csiGone")
    # Another line made the disk in between: then it is shown, as one that existed.
    failed = block(
        when(perhaps("csiWhy"), ":error $csiWhy"),
        when(
            '[:typeof [:find $csiWhy "already"]] != "num"',
            block(undo, ":error $csiWhy"),
            otherwise=when(f"{disks(slot_is)} = 0", ":error $csiWhy"),
        ),
    )
    make = block(
        f":local csiFile {quote(check_file_path(file_path))}",
        when(f"{files('name=$csiFile')} > 0", refuse("leftover-file")),
        f":local csiRoot {quote(file_path.partition('/')[0])}",
        require_room(number(size + reserve), missing="no-pool"),
        f":local csiFolder [:pick $csiFile 0 {folder}]",
        when(f"{files('name=$csiFolder')} = 0", refuse("no-directory")),
        ':put "adding"',
        attempt(f'{add}; :put "created"', failed=failed),
        wait_until(f"{disks(f'{slot_is} size>{number(size - 1)}')} > 0"),
    )
    return locked(slot, when(f"{disks(slot_is)} = 0", make), print_disks("disk", slot_is))


def change(
    *,
    slot: str,
    expected: str,
    record: Record,
    exported: bool,
    allowed_host: str,
    base_path: str,
    opens: bool = False,
    nqn: str = "",
) -> str:
    """Write record and export in one step, if the comment still is ``expected``; print the disk.

    ``opens``: the export is not open yet. The target fixes a namespace's size when it is exported,
    so that is never done over a file out of reach.

    ``nqn`` is the name that the export gets, empty where it keeps its own. It gets it while it is
    closed, and before the record says who has the volume: a line that ends between two steps
    leaves a closed export and the old record, which the next one begins with again. "no-rename"
    where RouterOS does not take the name.

    Whether it was written shows in what is printed.
    """
    shared, was, becomes = rewrite(expected, record.encode())
    write = (
        f"/disk/set ($csiDisk->0) comment={becomes} "
        f"nvme-tcp-server-allow-host-name={quote(check_host_nqn(allowed_host))} "
        # The Go driver left it at yes, and RouterOS would mount beside the node what it recognises.
        f"mount-filesystem=no nvme-tcp-export={'yes' if exported else 'no'}"
    )
    # An empty comment proves nothing; then the path must, as it does for the Go driver's disks.
    guard = "" if expected else require_ours(slot, record.owner, base_path)
    if exported and not expected:
        guard = block(guard, require_unmounted())
    reach = require_size() if opens or nqn else ""
    name = _rename(nqn) if nqn else ""
    swap = when(f"$csiText = {was}", guard, name, write)
    return locked(
        slot,
        *shared,
        find_disk(),
        when("[:len $csiDisk] = 1", read_path(), reach, read_comment(), swap),
        print_disks("disk", "slot=$csiSlot"),
    )


def _rename(nqn: str) -> str:
    """Close the export of ``csiDisk`` and give it another name, proven by reading it back."""
    shown = "[:tostr [/disk/get ($csiDisk->0) nvme-tcp-server-nqn]]"
    return block(
        f":local csiName {quote(check_subsystem_nqn(nqn))}",
        "/disk/set ($csiDisk->0) nvme-tcp-export=no",
        attempt(
            "/disk/set ($csiDisk->0) nvme-tcp-server-nqn=$csiName",
            failed=refuse("no-rename", "$csiSaid"),
            name="csiSaid",
        ),
        wait_until(f"{shown} = $csiName"),
        when(f"{shown} != $csiName", refuse("no-rename", shown)),
    )


def expand(
    *, slot: str, size: int, owner: str, base_path: str, reserve: int, published: bool = True
) -> str:
    """Grow the file unless it is large enough; print the disk. Never makes anything smaller.

    What nodes have is only grown where all of them have maps, and the export is closed first and
    opened after, because a target may fix a size when an export begins. So a line that ends in
    between leaves a closed export, whatever its size, and the next one opens it. ``published``:
    what nodes have is grown like everything else; the target tells them.
    """
    small = f"$csiSize < {number(size)}"
    large_enough = f"slot=$csiSlot size>{number(size - 1)}"
    room = block(
        ':local csiRoot ""',
        set_root("$csiPath"),
        require_room(f"({number(size + reserve)} - $csiSize)", missing="pool-gone"),
    )
    enlarge = block(
        f"/disk/set ($csiDisk->0) file-size={number(size)}",
        wait_until(f"{disks(large_enough)} > 0"),
    )
    if published:
        grow = when(small, room, enlarge)
    else:
        # Whatever is wrong, those who have it get it back.
        anew = block(
            when("!$csiMapped", require_unpublished("grows-later")),
            room,
            when("$csiMapped", close_export()),
            enlarge,
        )
        grow = block(
            set_mapped(),
            ':local csiBad ""',
            when(small, attempt(anew, failed=":set csiBad $csiWhy")),
            # What RouterOS may still be at work on would get the size of this moment.
            when(perhaps("csiBad"), ":error $csiBad"),
            when("$csiMapped", open_export()),
            when("[:len $csiBad] > 0", ":error $csiBad"),
        )
    body = block(
        read_path(),
        read_comment(),
        require_ours(slot, owner, base_path),
        require_size(),
        ":local csiSize [:tonum [/disk/get ($csiDisk->0) size]]",
        grow,
    )
    disk = print_disks("disk", "slot=$csiSlot")
    return locked(slot, find_disk(), when("[:len $csiDisk] = 1", body), disk)


def delete(*, slot: str, owner: str, base_path: str) -> str:
    """Remove the disk and then its file; print disk and files before, and files after.

    ``/disk/remove`` leaves the file. A file without a disk is what a crash between the two
    leaves, so the one file of the volume's name is removed as well, if no other disk uses it.
    Without a disk nobody knows on which pool the file was: that of ``base_path`` has to be
    mounted, or nothing can be said.
    """
    slot_is = "slot=$csiSlot"
    name_left, like = left_by(slot, owner, base_path)
    left = block(':put "file"', print_json(f"/file/print as-value proplist=name where {like}"))
    with_disk = block(
        require_users(1),
        read_comment(),
        require_owner(slot, owner),
        require_own_file(slot, owner, base_path),
        require_unpublished(),
        "/disk/set ($csiDisk->0) mount-filesystem=no nvme-tcp-export=no",
        "/disk/remove ($csiDisk->0)",
        wait_until(f"{disks(slot_is)} = 0"),
        when(f"{disks(slot_is)} > 0", refuse("disk-stays")),
    )
    without_disk = block(
        f":local csiLeft [/file/find where {like}]",
        when("[:len $csiLeft] > 1", refuse("many-files")),
        when(
            "[:len $csiLeft] = 1",
            ":set csiFile [:tostr [/file/get ($csiLeft->0) name]]",
            require_users(0),
        ),
    )
    remove_file = when(
        "[:len $csiFile] > 0",
        "/file/remove [/file/find where name=$csiFile]",
        wait_until(f"{files('name=$csiFile')} = 0"),
        when(f"{files('name=$csiFile')} > 0", refuse("file-stays")),
    )
    return locked(
        slot,
        name_left,
        print_disks("disk", slot_is, ("slot", "comment")),
        left,
        find_disk(),
        ':local csiFile ""',
        f":local csiRoot {quote(base_path.partition('/')[0])}",
        when("[:len $csiDisk] = 1", read_path(), ":set csiFile $csiPath", set_root("$csiPath")),
        require_pool("pool-gone"),
        when("[:len $csiDisk] = 1", with_disk, otherwise=without_disk),
        remove_file,
        require_pool_still(),
        left,
    )
